//! The devices that ggml can compute on, by way of the safe crate.

use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use llama_cpp_sys_2 as sys;
use serde::{Deserialize, Serialize};

use super::{Backend, text};

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A graphics card, discrete or integrated.
    Gpu,
    /// A library that speeds the processor up.
    Accelerator,
}

/// A device that ggml can compute on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// ggml's name, such as "Vulkan0".
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Whether it computes in main memory: a part of the processor's chip.
    pub is_integrated: bool,
    /// The back-end that drives it, such as "Vulkan".
    pub backend: String,
    /// Where it sits, such as "0000:01:00.0": the same card has the same under every back-end.
    pub bus_id: Option<String>,
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
            bus_id: bus_id(device.index),
            name: device.name,
            description: device.description.trim().to_owned(),
            kind: match device.device_type {
                LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu => {
                    DeviceKind::Gpu
                }
                LlamaBackendDeviceType::Cpu => DeviceKind::Cpu,
                _ => DeviceKind::Accelerator,
            },
            is_integrated: device.device_type == LlamaBackendDeviceType::IntegratedGpu,
            backend: device.backend,
            memory_bytes: device.memory_total as u64,
            memory_free_bytes: device.memory_free as u64,
        })
        .collect()
}

/// ggml's identifier of the device at a position of its list; the safe crate leaves it out.
fn bus_id(index: usize) -> Option<String> {
    // SAFETY: the backend is initialised (the caller has the proof), and the index is one that the
    // list just gave; the properties are plain data that ggml fills in.
    let id = unsafe {
        if index >= sys::ggml_backend_dev_count() {
            return None;
        }
        let mut properties = std::mem::zeroed::<sys::ggml_backend_dev_props>();
        sys::ggml_backend_dev_get_props(sys::ggml_backend_dev_get(index), &raw mut properties);
        text(properties.device_id)
    };
    (!id.is_empty()).then_some(id)
}
