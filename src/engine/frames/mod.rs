//! The protocol between a program and its worker.
//!
//! Two pipes carry frames: the worker's standard input takes [`Call`]s, its standard output gives
//! [`Reply`]s. A frame is its length as `u32` in little-endian order, then that many bytes of
//! [postcard](https://postcard.jamesmunns.com). No frame is longer than [`FRAME_BYTES_MAX`].
//! Standard error carries no frames: llama.cpp's last words go there.
//!
//! ```text
//! program                          worker
//!         ◄── Hello                 once, before anything else
//! Load    ──►
//!         ◄── Progress …            while it loads
//!         ◄── Loaded | Failed
//! Generate ─►
//!         ◄── Progress …            while it reads a long prompt
//!         ◄── PromptDone
//!         ◄── Token …               one a token
//! Cancel  ──►                       at any time; stops the call of that number and no other
//!         ◄── Done | Failed
//! ```
//!
//! Any number of calls may be under way; every reply bears the number of its call. Generations are
//! answered side by side as far as there are slots, the others wait their turn. The worker ends when
//! its standard input closes.

mod messages;
mod pipe;

pub use messages::{
    Call, DeviceInfo, Done, Event, Failure, Generation, LoadInfo, MemoryUse, Prompt, Reason, Reply,
    Request, SpecialToken, Status,
};
pub use pipe::{FrameBuffer, FrameError, FrameReader, FrameWriter};

/// The argument that turns the program into a worker.
pub const WORKER_ARGUMENT: &str = "__worker";

/// The number of this protocol; a worker of another build is refused.
pub const PROTOCOL: u32 = 5;

/// Bytes of one frame: the longest prompt, or the most logits of one reply.
pub const FRAME_BYTES_MAX: usize = 256 << 20;
