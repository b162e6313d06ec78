//! The machine that the program runs on, as plans see it.

use std::path::Path;

use super::machine::{Gpu, Machine, MainMemory};
use crate::engine::llama::{Device, DeviceKind, backends};
use crate::engine::probe::probe;
use crate::hardware;

/// Looks at this machine: main memory that this process may take, and the GPUs that llama.cpp finds.
/// Drivers are asked in processes of their own (`program` is this executable), and only where a
/// back-end for GPUs is there at all.
pub fn this_machine(program: &Path) -> Machine {
    let mut devices = Vec::new();
    if cfg!(feature = "metal") {
        devices.extend(probe(program, None).devices);
    }
    let modules = backends::folder().map(|folder| backends::find(&folder)).unwrap_or_default();
    for module in modules {
        devices.extend(probe(program, Some(&module)).devices);
    }
    let gpus = devices.into_iter().filter(|device| device.kind == DeviceKind::Gpu).map(gpu);
    let available = hardware::memory().available_bytes;
    // A system that does not tell: nothing is refused for it.
    let available = if available == 0 { u64::MAX / 4 } else { available };
    Machine { gpus: gpus.collect(), memory: MainMemory::available(available) }
}

fn gpu(device: Device) -> Gpu {
    let shares_memory = device.is_integrated || cfg!(target_os = "macos");
    Gpu {
        shares_memory,
        ..Gpu::with_free(device.name, device.description, device.memory_free_bytes)
    }
}
