//! The devices that ggml can compute on, by way of the safe crate.

use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};

use super::Backend;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A graphics card, discrete or integrated.
    Gpu,
    /// A library that speeds the processor up.
    Accelerator,
}

/// A device that ggml can compute on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// ggml's name, such as "Vulkan0".
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// All of its memory, in bytes.
    pub memory_bytes: u64,
    /// Its free memory in bytes; for the processor ggml reports all of it.
    pub memory_free_bytes: u64,
}

/// Lists the devices. `llama_supports_gpu_offload` is no measure: it is true for RPC as well, so
/// count kinds.
pub fn devices(_: &Backend) -> Vec<Device> {
    list_llama_ggml_backend_devices()
        .into_iter()
        .map(|device| Device {
            name: device.name,
            description: device.description,
            kind: match device.device_type {
                LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu => {
                    DeviceKind::Gpu
                }
                LlamaBackendDeviceType::Cpu => DeviceKind::Cpu,
                _ => DeviceKind::Accelerator,
            },
            memory_bytes: device.memory_total as u64,
            memory_free_bytes: device.memory_free as u64,
        })
        .collect()
}
