//! The options of a reply that guesses tokens ahead.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nfl_models::gguf::Gguf;
use nfl_models::prediction;

use super::failure::Failure;
use crate::engine::options::Speculation;
use crate::engine::plan::Guessers;

/// How tokens are guessed.
#[derive(Debug, Args)]
pub(super) struct GuessingArguments {
    /// Guess tokens ahead and check several at once: the reply is the same, and comes sooner where it repeats something.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Guessing::Auto)]
    spec: Guessing,
    /// A small model of the same vocabulary that guesses for this one; both are planned so that they fit together.
    #[arg(long, value_name = "FILE")]
    pub(super) draft: Option<PathBuf>,
}

/// Where guesses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Guessing {
    /// Nowhere: one token after the other.
    Off,
    /// Prompt, reply, and the draft model or the model's own layer for it, as long as it pays.
    Auto,
    /// Prompt and reply.
    Ngram,
    /// The draft model.
    Draft,
    /// The model's own layer for it (multi-token prediction), which some files have.
    Mtp,
}

impl GuessingArguments {
    /// Where guesses come from.
    pub(super) fn speculation(&self) -> Speculation {
        match self.spec {
            Guessing::Off => Speculation::Off,
            Guessing::Auto => Speculation::Auto,
            Guessing::Ngram => Speculation::Ngram,
            Guessing::Draft => Speculation::Draft,
            Guessing::Mtp => Speculation::Mtp,
        }
    }

    /// What guesses for a file; refuses what cannot be had.
    pub(super) fn guessers(&self, file: &Path) -> Result<Guessers<'_>, Failure> {
        if self.spec == Guessing::Draft && self.draft.is_none() {
            let hint = "name a small model of the same vocabulary: --draft FILE";
            return Err(Failure::usage("--spec draft: there is no draft model", hint));
        }
        if self.spec == Guessing::Mtp && self.draft.is_some() {
            let hint = "leave out --draft, or ask for --spec draft";
            return Err(Failure::usage("--spec mtp: a draft model would not be asked", hint));
        }
        // What cannot be read is refused by the worker, in its own words.
        if self.spec == Guessing::Mtp
            && let Ok(gguf) = Gguf::open(file)
            && let Err(error) = prediction::find(&gguf)
        {
            let hint = "--spec auto guesses from what there is";
            return Err(Failure::new(format!("{}: {error}", file.display()), Some(hint)));
        }
        // One kind of drafter is enough, and who names a small model wants that.
        let prediction =
            matches!(self.spec, Guessing::Auto | Guessing::Mtp) && self.draft.is_none();
        Ok(Guessers { draft: self.draft.as_deref(), prediction })
    }
}
