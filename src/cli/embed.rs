//! `nfl embed`: texts become vectors.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::failure::Failure;
use super::placement::PlacementArguments;
use super::reader::{Reader, TextArguments};
use crate::engine::embedding::{Embedding, EmbeddingOptions, Embeddings, Passage, Pooling};
use crate::term::Printer;

/// Turn texts into vectors whose nearness is that of their meanings.
///
/// One line of numbers for each text, in the order of the texts; with --pooling none, one for each of its tokens. Vectors
/// have length 1 unless --no-normalize is given, so that the cosine of two is the sum of their products. Several texts are
/// computed at once.
#[derive(Debug, Args)]
#[command(
    after_help = "Models for embeddings (such as nomic-embed, bge, Qwen3-Embedding) say how tokens become one vector; of\n\
    others the mean of the tokens' states is taken. Some want a word in front of a text, such as \"query: \":\n\
    see what their makers say."
)]
pub(super) struct Arguments {
    /// A GGUF file; of a split model, any of its files.
    pub(super) file: PathBuf,
    /// Texts.
    text: Vec<String>,
    #[command(flatten)]
    texts: TextArguments,
    /// How the states of a text's tokens become one vector [default: as the file says, else mean].
    #[arg(long, value_name = "HOW", value_enum)]
    pooling: Option<Way>,
    /// Scale vectors to length 1, which is the default.
    #[arg(long, overrides_with = "no_normalize")]
    normalize: bool,
    /// Leave vectors as long as they come out.
    #[arg(long)]
    no_normalize: bool,
    /// Keep the first N numbers of each vector: for models that were trained for it (Matryoshka).
    #[arg(long, value_name = "N")]
    dimensions: Option<u32>,
    /// Print vectors, tokens and how they were made as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    placement: PlacementArguments,
}

/// How tokens become a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// The mean of all.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// Not at all: a vector a token.
    None,
}

impl From<Way> for Pooling {
    fn from(way: Way) -> Self {
        match way {
            Way::Mean => Self::Mean,
            Way::Cls => Self::Cls,
            Way::Last => Self::Last,
            Way::None => Self::None,
        }
    }
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let texts = arguments.texts.read(&arguments.text)?;
    if texts.is_empty() {
        let hint = "give texts: nfl embed FILE \"a text\" \"another\", or --file LINES.txt";
        return Err(Failure::usage("there is nothing to embed", hint));
    }
    let options = EmbeddingOptions {
        pooling: arguments.pooling.map(Pooling::from),
        normalize: !arguments.no_normalize,
        dimensions: arguments.dimensions,
    };
    let reader = Reader::open(&arguments.file, &arguments.placement, printer)?;
    if options.pooling.is_none() && matches!(reader.pooling(), None | Some(Pooling::None)) {
        printer.say(
            "the file does not say how tokens become one vector: their mean is taken (--pooling)",
        );
    }
    let found = reader.read(texts.into_iter().map(Passage::Text).collect(), &options)?;
    if arguments.json {
        let document = document(&found, arguments, &options);
        return Ok(printer.line(&document.to_string())?);
    }
    for vector in found.embeddings.iter().flat_map(|each| &each.vectors) {
        printer.line(&numbers(vector))?;
    }
    Ok(())
}

/// A vector as a line; each number in the fewest digits that give it back.
fn numbers(vector: &[f32]) -> String {
    let mut line = String::with_capacity(vector.len() * 12);
    for (index, value) in vector.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        let _ = write!(line, "{space}{value}");
    }
    line
}

fn document(
    found: &Embeddings,
    arguments: &Arguments,
    options: &EmbeddingOptions,
) -> serde_json::Value {
    let one = |(index, each): (usize, &Embedding)| match (found.pooling, each.vectors.as_slice()) {
        (Pooling::None, vectors) => {
            json!({"index": index, "tokens": each.tokens, "vectors": vectors})
        }
        (_, vectors) => json!({"index": index, "tokens": each.tokens, "vector": vectors.first()}),
    };
    let embeddings: Vec<_> = found.embeddings.iter().enumerate().map(one).collect();
    let first = found.embeddings.first().and_then(|each| each.vectors.first());
    json!({
        "model": arguments.file.display().to_string(),
        "pooling": found.pooling.name(),
        "normalized": options.normalize,
        "dimensions": first.map(Vec::len),
        "tokens": found.tokens(),
        "embeddings": embeddings,
    })
}
