//! The worker: the process that llama.cpp runs in. It answers calls until its standard input
//! closes.

mod control;
mod load;
mod memory;
mod platform;
mod state;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use super::frames::{Call, Event, FrameReader, FrameWriter, PROTOCOL, Reply, Request};
use control::Control;
use state::Worker;

pub use super::frames::WORKER_ARGUMENT as ARGUMENT;

/// How long a computation may take to notice that nobody waits for it any more.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the worker on this process's standard input and output.
pub fn main() -> ExitCode {
    platform::confine();
    let Ok(output) = platform::take_output() else { return ExitCode::FAILURE };
    let mut writer = FrameWriter::new(output);
    let hello = Reply { number: 0, event: Event::Hello { protocol: PROTOCOL } };
    if writer.write(&hello).is_err() {
        return ExitCode::FAILURE;
    }
    let control = Arc::new(Control::default());
    let (sender, calls) = mpsc::channel();
    let reader = Arc::clone(&control);
    let started =
        thread::Builder::new().name("calls".to_owned()).spawn(move || read_calls(&reader, sender));
    if started.is_err() {
        return ExitCode::FAILURE;
    }
    let mut worker = Worker::new(writer, control);
    for call in calls {
        if worker.answer(call).is_err() {
            break;
        }
    }
    // The system takes the memory back faster than destructors would.
    std::mem::forget(worker);
    ExitCode::SUCCESS
}

/// Hands calls on as they come; cancellations take effect at once, whatever is running.
fn read_calls(control: &Control, sender: Sender<Call>) {
    let mut reader = FrameReader::new(io::stdin().lock());
    while let Ok(call) = reader.read::<Call>() {
        match call.request {
            Request::Cancel => control.cancel(call.number),
            _ if sender.send(call).is_err() => break,
            _ => {}
        }
    }
    // The program is gone, or talks nonsense: stop what runs, and do not wait for it forever.
    control.end();
    drop(sender);
    thread::sleep(GRACE);
    platform::end_now();
}
