//! What llama.cpp would reserve for intermediate results, asked of llama.cpp itself.
//!
//! A child process sets the model and a context up without memory behind them, with the devices that
//! are there: nothing is read but the file's list of tensors and its vocabulary, nothing is allocated
//! on a card. In a process of its own, because llama.cpp ends the process for some architectures
//! (latent attention) and drivers may; and in the worker's cage, because nobody vouches for the file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::inquiry;
use super::llama::{Backend, DeviceKind, devices, measure};
use super::options::{CONTEXT_TOKENS_DEFAULT, ContextOptions, ModelOptions};
use super::worker::cage::{self, Reach};
use crate::engine::scheduler::ms_since;

/// The argument that turns the program into the child.
pub const ARGUMENT: &str = "__reserve";

/// How long llama.cpp and the drivers may take. A vocabulary is read in half a second, a driver may
/// take seconds to wake up a card.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    file: PathBuf,
    model: ModelOptions,
    context: ContextOptions,
}

/// Buffers for intermediate results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reserved {
    /// Bytes by the name of the buffer: a device such as "Vulkan0", or memory of the host, such as
    /// "CPU" or "Vulkan_Host".
    pub buffers: Vec<(String, u64)>,
    /// Milliseconds that the question took, from the start of the child.
    pub took_ms: f64,
}

/// Answers in this process, for its parent.
pub fn main() -> ExitCode {
    let Some(question) = inquiry::question::<Question>() else { return ExitCode::FAILURE };
    inquiry::answer(&look(&question))
}

fn look(question: &Question) -> Result<Reserved, String> {
    let Question { file, model, context } = question;
    let backend = Backend::get();
    let gpu = devices(backend).iter().any(|device| device.kind == DeviceKind::Gpu);
    cage::close(&Reach { model: file.clone(), gpu, ..Reach::default() });
    let gguf = nfl_models::gguf::Gguf::open(file).map_err(|error| error.to_string())?;
    nfl_models::preflight(&gguf).map_err(|error| error.to_string())?;
    let first = gguf.files().next().unwrap_or(file);
    let tokens = context.context_tokens.unwrap_or(CONTEXT_TOKENS_DEFAULT);
    let measured = measure(backend, first, model, context, tokens);
    let buffers = measured.map_err(|error| error.to_string())?.compute_bytes;
    Ok(Reserved { buffers, took_ms: 0.0 })
}

/// Asks a child process of `program` what a load with these options would reserve; or says in words
/// why that cannot be told.
///
/// # Errors
/// When the child dies, takes too long, or llama.cpp refuses the file or the options.
pub fn reserved(
    program: &Path,
    file: &Path,
    model: &ModelOptions,
    context: &ContextOptions,
) -> Result<Reserved, String> {
    let started = Instant::now();
    let question =
        Question { file: file.to_owned(), model: model.clone(), context: context.clone() };
    let question = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    let arguments = [OsStr::new(ARGUMENT)];
    let answer: Result<Reserved, String> = inquiry::ask(program, &arguments, question, PATIENCE)?;
    Ok(Reserved { took_ms: ms_since(started), ..answer? })
}
