//! What the page shows of the server: a wire type of our own.

use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Serialize;

use crate::hardware;
use crate::server::Server;

/// How the server is.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    /// Main memory of the machine, and what is left of it.
    memory_bytes: u64,
    memory_available_bytes: u64,
    /// Replies that are being made, and requests that wait.
    busy: u32,
    waiting: u32,
    models: Vec<Loaded>,
}

/// A model that is loaded.
#[derive(Debug, Serialize, JsonSchema)]
struct Loaded {
    name: String,
    bytes: u64,
    gpu_bytes: u64,
    context_tokens: u32,
    busy: u32,
    waiting: u32,
    /// Seconds until it is unloaded when nobody asks it; none is never.
    leaves_in_seconds: Option<u64>,
}

impl Status {
    pub(super) fn of(server: &Server) -> Self {
        let memory = hardware::memory();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds_until = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(now).as_secs()
        };
        let models: Vec<Loaded> = server
            .pool
            .loaded()
            .into_iter()
            .map(|model| Loaded {
                name: model.name,
                bytes: model.bytes,
                gpu_bytes: model.gpu_bytes,
                context_tokens: model.context_tokens,
                busy: model.busy,
                waiting: model.waiting,
                leaves_in_seconds: model.expires.map(seconds_until),
            })
            .collect();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: server.started.elapsed().as_secs(),
            memory_bytes: memory.usable_bytes(),
            memory_available_bytes: memory.available_bytes,
            busy: models.iter().map(|model| model.busy).sum(),
            waiting: models.iter().map(|model| model.waiting).sum(),
            models,
        }
    }
}
