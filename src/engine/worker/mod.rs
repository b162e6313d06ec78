//! The worker: the process that llama.cpp runs in. It answers calls until its standard input
//! closes.

pub mod cage;
mod embed;
mod inbox;
mod load;
mod memory;
mod platform;
mod state;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use super::frames::{Event, FrameWriter, PROTOCOL, Reply};
use inbox::Inbox;
use state::Worker;

pub use super::frames::WORKER_ARGUMENT as ARGUMENT;

/// Runs the worker on this process's standard input and output.
pub fn main() -> ExitCode {
    platform::confine();
    let Ok(output) = platform::take_output() else { return ExitCode::FAILURE };
    let mut writer = FrameWriter::new(output);
    let hello = Reply { number: 0, event: Event::Hello { protocol: PROTOCOL } };
    if writer.write(&hello).is_err() {
        return ExitCode::FAILURE;
    }
    let mut worker = Worker::new(writer, Arc::new(Mutex::new(Inbox::new(platform::Input::new()))));
    while worker.turn() {}
    // The system takes the memory back faster than destructors would.
    std::mem::forget(worker);
    ExitCode::SUCCESS
}
