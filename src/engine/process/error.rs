//! What can go wrong with an engine, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use nfl_models::Hint;
use thiserror::Error;

use crate::engine::frames::{FRAME_BYTES_MAX, Failure};
use crate::engine::llama::backends;

const SIGNAL_ILLEGAL: i32 = 4;
const SIGNAL_ABORT: i32 = 6;
const SIGNAL_KILL: i32 = 9;
const SIGNAL_SEGMENT: i32 = 11;

/// SIGBUS has one number on Linux and another elsewhere.
const SIGNAL_BUS: i32 = if cfg!(target_os = "linux") { 7 } else { 10 };

/// How a worker ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Death {
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its exit status.
    pub status: Option<i32>,
}

impl From<ExitStatus> for Death {
    fn from(status: ExitStatus) -> Self {
        #[cfg(unix)]
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        #[cfg(not(unix))]
        let signal = None;
        Self { signal, status: status.code() }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.signal {
            Some(SIGNAL_ILLEGAL) => " (illegal instruction)",
            Some(SIGNAL_ABORT) => " (abort)",
            Some(SIGNAL_BUS) => " (bus error)",
            Some(SIGNAL_KILL) => " (killed)",
            Some(SIGNAL_SEGMENT) => " (segmentation fault)",
            _ => "",
        };
        match (self.signal, self.status) {
            (Some(signal), _) => write!(formatter, "signal {signal}{name}"),
            (None, Some(status)) => write!(formatter, "exit status {status}"),
            (None, None) => formatter.write_str("cause unknown"),
        }
    }
}

/// Why the engine gave no answer.
#[derive(Debug, Clone, Error)]
pub enum EngineError {
    /// The worker's program could not be started.
    #[error("{}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The program is no worker of this version.
    #[error("{}: not a worker of this nfl: {reason}", program.display())]
    NotAWorker {
        /// The program.
        program: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The worker's process ended. The program lives on;
    /// [`Engine::restart`](super::Engine::restart) gives a new worker.
    #[error("the engine's process died: {death}{}", quoted(words))]
    WorkerDied {
        /// How.
        death: Death,
        /// The last lines of its standard error.
        words: Vec<String>,
    },
    /// The worker lives and says no.
    #[error(transparent)]
    Failed(Failure),
    /// Loading was stopped by the caller.
    #[error("loading was cancelled")]
    Cancelled,
    /// The request is longer than a frame.
    #[error("a request of {0} bytes, {FRAME_BYTES_MAX} are the most")]
    TooLong(usize),
    /// The worker broke the protocol.
    #[error("the engine's process talks nonsense: {0}")]
    Protocol(String),
}

/// The most telling of the last words: an assertion when there is one, else the last line.
fn quoted(words: &[String]) -> String {
    let telling = words
        .iter()
        .rev()
        .find(|line| {
            line.contains("GGML_ASSERT") || line.contains("panicked") || line.contains("what()")
        })
        .or_else(|| {
            let last = (0..words.len()).rev().find(|index| !backends::is_past(words, *index));
            last.map(|index| &words[index])
        });
    telling.map_or(String::new(), |line| format!(": {line}"))
}

impl Hint for EngineError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::WorkerDied { words, .. } if backends::is_loading(words.last()) => {
                "the back-end module or its driver crashes: nfl doctor says more, NFL_BACKENDS=none \
                 does without it"
            }
            Self::WorkerDied { death, .. } => return death.hint(),
            Self::NotAWorker { .. } => "the program was replaced while it ran: start it again",
            Self::Failed(failure) => return failure.hint(),
            Self::Start { .. } | Self::Cancelled | Self::TooLong(_) | Self::Protocol(_) => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

impl Hint for Death {
    fn hint(&self) -> Option<String> {
        let hint = match self.signal? {
            SIGNAL_KILL => {
                "if nobody killed it, the system ran out of memory: try a smaller context, a \
                 smaller level or another model"
            }
            SIGNAL_ILLEGAL => {
                "this build uses instructions that the processor lacks: build nfl on this machine"
            }
            SIGNAL_BUS => "the model's file was changed or cut while it was in use: check it",
            SIGNAL_ABORT | SIGNAL_SEGMENT => {
                "llama.cpp could not cope with this model or request; only this reply is lost"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl Hint for Failure {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::Load(reason) => Some(load_hint(reason).to_owned()),
            Self::NotFinite(_) => Some(
                "the file is damaged, or its training diverged: get it again from where it came"
                    .to_owned(),
            ),
            Self::PromptTooLong { .. } => {
                Some("shorten the prompt, or ask for a larger context".to_owned())
            }
            Self::TextTooLong { .. } => Some(
                "cut it into parts; --ctx N makes room up to what the model was trained on"
                    .to_owned(),
            ),
            Self::NoClassifier => Some(
                "take a reranking model, or compare embeddings: nfl embed FILE QUERY DOCUMENT …"
                    .to_owned(),
            ),
            Self::OnlyRanks => Some(
                "rank with it: nfl rerank FILE QUERY DOCUMENT …; --pooling cls or mean takes its states \
                 all the same"
                    .to_owned(),
            ),
            Self::Busy { .. } => Some("try again in a moment".to_owned()),
            _ => None,
        }
    }
}

/// What llama.cpp's words suggest. It has no error codes: these texts are those of its log (0.1.161
/// of our bindings), and where they change the general advice remains.
fn load_hint(reason: &str) -> &'static str {
    if reason.contains("unknown model architecture") {
        "the llama.cpp in this nfl does not know such models: a newer nfl may"
    } else if reason.contains("to allocate ") || reason.contains("out of memory") {
        "there is not enough memory: try a smaller context, a smaller level or another model"
    } else {
        "the file is damaged, or of a version that the llama.cpp in this nfl does not know: convert \
         the original again, or get the file again from where it came"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_with_its_cause() {
        let death = Death { signal: Some(SIGNAL_ABORT), status: None };
        let words = ["noise", "llama-model.cpp:1: GGML_ASSERT(x) failed", "more"];
        let words = words.map(str::to_owned).to_vec();
        assert_eq!(
            EngineError::WorkerDied { death, words }.to_string(),
            "the engine's process died: signal 6 (abort): llama-model.cpp:1: GGML_ASSERT(x) failed"
        );
        let death = Death { signal: None, status: Some(3) };
        let error = EngineError::WorkerDied { death, words: Vec::new() };
        assert_eq!(error.to_string(), "the engine's process died: exit status 3");
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn a_module_that_crashes_is_named_with_the_way_out() {
        let death = Death { signal: Some(SIGNAL_SEGMENT), status: None };
        let told = |words: &[&str]| {
            let words = words.iter().map(|&word| word.to_owned()).collect();
            let error = EngineError::WorkerDied { death, words };
            (error.to_string(), error.hint().unwrap())
        };
        let (message, hint) = told(&["back-end /m/libggml-cuda.so: loading"]);
        assert!(message.ends_with(": back-end /m/libggml-cuda.so: loading"), "{message}");
        assert!(hint.contains("NFL_BACKENDS=none"), "{hint}");
        let (message, hint) =
            told(&["back-end /m/libggml-cuda.so: loading", "back-end /m/libggml-cuda.so: done"]);
        assert!(message.ends_with("(segmentation fault)"), "{message}");
        assert!(!hint.contains("NFL_BACKENDS"), "{hint}");
    }

    #[test]
    fn a_failed_load_says_what_to_do() {
        let cases = [
            ("a.gguf: unknown model architecture: 'dream'", "a newer nfl may"),
            ("a.gguf: unable to allocate CUDA0 buffer", "not enough memory"),
            ("context of 4096 tokens: failed to allocate buffer for kv cache", "smaller context"),
            ("a.gguf: missing tensor 'blk.0.attn_q.weight'", "convert the original again"),
            ("a.gguf: llama.cpp gave no reason", "convert the original again"),
        ];
        for (reason, advice) in cases {
            let hint = EngineError::Failed(Failure::Load(reason.to_owned())).hint().unwrap();
            assert!(hint.contains(advice) && !hint.ends_with('.'), "{reason}: {hint}");
        }
    }
}
