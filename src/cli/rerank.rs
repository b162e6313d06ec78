//! `nfl rerank`: documents in the order in which they answer a query.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::placement::PlacementArguments;
use super::reader::{Reader, TextArguments};
use crate::engine::embedding::{EmbeddingOptions, Embeddings, Passage};
use crate::term::{self, Printer, neutral, table};

/// Characters of a document in the human form.
const DOCUMENT_SHOWN_MAX: usize = 70;

/// Order documents by how well they answer a query.
///
/// The best first, one line each: score, the document's number (from 0), its beginning. Scores of one model compare with
/// each other and with nothing else; most are no probabilities.
#[derive(Debug, Args)]
#[command(
    after_help = "This needs a reranking model (such as bge-reranker or Qwen3-Reranker); of any other, compare the vectors\n\
    of nfl embed."
)]
pub(super) struct Arguments {
    /// A GGUF file; of a split model, any of its files.
    pub(super) file: PathBuf,
    /// What is looked for.
    query: String,
    /// Documents.
    document: Vec<String>,
    #[command(flatten)]
    texts: TextArguments,
    /// Show the best N only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Print scores, documents and tokens as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    placement: PlacementArguments,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let documents = arguments.texts.read(&arguments.document)?;
    if documents.is_empty() {
        let hint =
            "give documents: nfl rerank FILE QUERY \"a document\" \"another\", or --file LINES.txt";
        return Err(Failure::usage("there is nothing to rank", hint));
    }
    let reader = Reader::open(&arguments.file, &arguments.placement, printer)?;
    let pair = |document: &String| Passage::Pair {
        query: arguments.query.clone(),
        document: document.clone(),
    };
    let found = reader.read(documents.iter().map(pair).collect(), &EmbeddingOptions::ranking())?;
    let order = order(&found, arguments.top);
    if arguments.json {
        let results: Vec<_> =
            order.iter().map(|&index| result(&found, index, &documents[index])).collect();
        let document = json!({
            "model": arguments.file.display().to_string(),
            "query": arguments.query,
            "tokens": found.tokens(),
            "results": results,
        });
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    let rows: Vec<Vec<String>> = order
        .iter()
        .map(|&index| {
            let score = format!("{:.4}", score(&found, index));
            vec![score, index.to_string(), shown(&documents[index])]
        })
        .collect();
    Ok(printer.line(table::render(&rows, &[0, 1]).trim_end())?)
}

/// The score of a document: the first of those that the classifier gives, as in llama.cpp's server.
fn score(found: &Embeddings, index: usize) -> f32 {
    found.embeddings[index].vectors[0][0]
}

/// The documents' numbers, the best first; of equal scores the first given.
fn order(found: &Embeddings, top: Option<u32>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..found.embeddings.len()).collect();
    order.sort_by(|&one, &other| score(found, other).total_cmp(&score(found, one)));
    order.truncate(top.map_or(usize::MAX, |top| top as usize));
    order
}

fn result(found: &Embeddings, index: usize, document: &str) -> Value {
    let each = &found.embeddings[index];
    let mut result = json!({
        "index": index,
        "score": score(found, index),
        "tokens": each.tokens,
        "document": document,
    });
    let scores = &each.vectors[0];
    if scores.len() > 1 {
        result["scores"] = if found.labels.len() == scores.len() {
            let named = found.labels.iter().cloned().zip(scores.iter().map(|score| json!(score)));
            Value::Object(named.collect::<Map<_, _>>())
        } else {
            json!(scores)
        };
    }
    result
}

/// A document's beginning on one line; a pipe gets all of it.
fn shown(document: &str) -> String {
    let line = neutral(document).replace(['\n', '\t'], " ");
    if !term::stdout_is_terminal() || line.chars().count() <= DOCUMENT_SHOWN_MAX {
        return line;
    }
    let beginning: String = line.chars().take(DOCUMENT_SHOWN_MAX - 1).collect();
    format!("{beginning}…")
}
