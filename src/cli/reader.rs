//! A model loaded to read texts, and the texts: what `embed` and `rerank` take alike.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::loading;
use super::placement::PlacementArguments;
use crate::engine::embedding::{EmbeddingOptions, EmbeddingRequest, Embeddings, Passage, Pooling};
use crate::engine::process::{Engine, EngineError};
use crate::term::progress::Progress;
use crate::term::{self, Printer, interrupt};

/// Bytes of a file of texts.
const TEXTS_BYTES_MAX: u64 = 1 << 30;

/// Texts that are handed over in one call: what is kept in memory twice.
const TEXTS_PER_CALL: usize = 256;

#[derive(Debug, Args)]
pub(super) struct TextArguments {
    /// A file with one more text on each line; - reads them from standard input.
    #[arg(long = "file", value_name = "LINES")]
    lines: Option<PathBuf>,
}

impl TextArguments {
    /// The texts of the command line, then those of the file.
    pub(super) fn read(&self, given: &[String]) -> Result<Vec<String>, Failure> {
        let mut texts = given.to_vec();
        if let Some(path) = &self.lines {
            let text = term::read_text(path, TEXTS_BYTES_MAX)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display()), None))?;
            texts.extend(text.lines().map(str::to_owned));
        }
        Ok(texts)
    }
}

/// A model in a worker that reads and does not write.
pub(super) struct Reader<'a> {
    engine: Engine,
    printer: &'a Printer,
}

impl<'a> Reader<'a> {
    pub(super) fn open(
        file: &std::path::Path,
        placement: &PlacementArguments,
        printer: &'a Printer,
    ) -> Result<Self, Failure> {
        let program = loading::program()?;
        let (request, planned) = placement.request_reader(file, &program)?;
        let engine = loading::load(printer, |told| Engine::start(&program, &request, told))?;
        loading::warn(printer, engine.info(), planned.as_ref());
        Ok(Self { engine, printer })
    }

    /// How the model's file says that tokens become a vector.
    pub(super) fn pooling(&self) -> Option<Pooling> {
        self.engine.info().pooling
    }

    /// Reads all texts. An error names a text by its number among all of them.
    pub(super) fn read(
        &self,
        passages: Vec<Passage>,
        options: &EmbeddingOptions,
    ) -> Result<Embeddings, Failure> {
        let total = passages.len();
        let mut progress = Progress::steps(self.printer, total as u64);
        progress.message("reading");
        let cancel = self.engine.cancel_handle();
        let guard = interrupt::on_request(move || cancel.cancel());
        let mut whole: Option<Embeddings> = None;
        let mut rest = passages.into_iter();
        loop {
            let before = whole.as_ref().map_or(0, |whole| whole.embeddings.len());
            let passages: Vec<Passage> = rest.by_ref().take(TEXTS_PER_CALL).collect();
            let count = passages.len();
            let request = EmbeddingRequest { passages, options: options.clone() };
            let part = self.engine.embed(request, &mut |share| {
                progress.set(before as u64 + (share * count as f32) as u64);
                if interrupt::requested() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            if interrupt::requested() {
                return Err(Failure::interrupted());
            }
            let part = part.map_err(|error| renumbered(error, before))?;
            match &mut whole {
                Some(whole) => whole.embeddings.extend(part.embeddings),
                None => whole = Some(part),
            }
            if let Some(whole) = whole.take_if(|whole| whole.embeddings.len() == total) {
                drop(guard);
                return Ok(whole);
            }
        }
    }
}

/// The error of a call, with the number that its text has among all texts.
fn renumbered(error: EngineError, before: usize) -> EngineError {
    use crate::engine::frames::Failure as Refusal;
    match error {
        EngineError::Failed(Refusal::TextTooLong { text, tokens, limit_tokens }) => {
            let text = text + before;
            EngineError::Failed(Refusal::TextTooLong { text, tokens, limit_tokens })
        }
        other => other,
    }
}
