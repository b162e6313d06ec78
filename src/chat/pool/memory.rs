//! What loaded models take, held against what the machine has: byte for byte, on every device.

use crate::engine::frames::LoadInfo;
use crate::engine::options::CPU;
use crate::engine::plan::{DevicePlan, Machine, Plan, Planned};

/// What one model takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holding {
    /// Bytes of main memory, mapped files and the memory of GPUs that live in it included.
    memory_bytes: u64,
    /// What of that the system counts as taken: a mapped file it counts as free.
    own_bytes: u64,
    gpus: Vec<GpuHolding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct GpuHolding {
    name: String,
    bytes: u64,
    shares_memory: bool,
}

impl Holding {
    /// What a plan takes, the draft model's included.
    pub(super) fn planned(planned: &Planned, machine: &Machine) -> Self {
        let plans: Vec<&Plan> =
            [Some(&planned.plan), planned.draft.as_ref()].into_iter().flatten().collect();
        let used = |name: &str| {
            let devices = plans.iter().flat_map(|plan| &plan.devices);
            devices.filter(|device| device.name == name).map(DevicePlan::used_bytes).sum()
        };
        let gpus = machine.gpus.iter().map(|gpu| GpuHolding {
            name: gpu.name.clone(),
            bytes: used(&gpu.name),
            shares_memory: gpu.shares_memory,
        });
        let gpus: Vec<GpuHolding> = gpus.filter(|gpu| gpu.bytes > 0).collect();
        let shared: u64 = gpus.iter().filter(|gpu| gpu.shares_memory).map(|gpu| gpu.bytes).sum();
        Self { memory_bytes: used(CPU) + shared, own_bytes: shared, gpus }
    }

    /// What a model takes for which there is no plan: its files, mapped into main memory.
    pub(super) fn files(bytes: u64) -> Self {
        Self { memory_bytes: bytes, ..Self::default() }
    }

    /// The same once it is loaded, with what its process takes in truth.
    pub(super) fn loaded(self, info: &LoadInfo) -> Self {
        let own_bytes = self.own_bytes + info.memory.anonymous_bytes.unwrap_or(0);
        Self { memory_bytes: self.memory_bytes.max(own_bytes), own_bytes, ..self }
    }

    /// Bytes in all memories.
    pub(super) fn total_bytes(&self) -> u64 {
        let gpus = self.gpus.iter().filter(|gpu| !gpu.shares_memory);
        self.memory_bytes + gpus.map(|gpu| gpu.bytes).sum::<u64>()
    }

    /// Bytes in the memories of GPUs.
    pub(super) fn gpu_bytes(&self) -> u64 {
        self.gpus.iter().map(|gpu| gpu.bytes).sum()
    }

    fn on_gpu(&self, name: &str) -> u64 {
        self.gpus.iter().filter(|gpu| gpu.name == name).map(|gpu| gpu.bytes).sum()
    }
}

/// The machine as it would be with these models unloaded.
pub(super) fn emptied<'a>(
    machine: &Machine,
    loaded: impl Iterator<Item = &'a Holding> + Clone,
) -> Machine {
    let mut empty = machine.clone();
    for gpu in &mut empty.gpus {
        gpu.free_bytes += loaded.clone().map(|holding| holding.on_gpu(&gpu.name)).sum::<u64>();
    }
    let memory = &mut empty.memory;
    memory.available_bytes += loaded.map(|holding| holding.own_bytes).sum::<u64>();
    // What stays free grows with what there is: see `MainMemory::available`.
    memory.margin_bytes = memory.margin_bytes.max(memory.available_bytes / 20);
    empty
}

/// Whether a model fits an empty machine beside those that stay.
pub(super) fn fits<'a>(
    empty: &Machine,
    staying: impl Iterator<Item = &'a Holding> + Clone,
    new: &'a Holding,
) -> bool {
    let all = staying.chain([new]);
    let memory: u64 = all.clone().map(|holding| holding.memory_bytes).sum();
    memory <= empty.memory.usable_bytes()
        && empty.gpus.iter().all(|gpu| {
            all.clone().map(|holding| holding.on_gpu(&gpu.name)).sum::<u64>() <= gpu.usable_bytes()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::frames::MemoryUse;
    use crate::engine::plan::{Gpu, MainMemory};

    const GIB: u64 = 1 << 30;

    fn machine(gpu: u64, memory: u64) -> Machine {
        let gpu = Gpu::with_free("GPU0".to_owned(), "a card".to_owned(), gpu);
        Machine { gpus: vec![gpu], memory: MainMemory::available(memory) }
    }

    fn holding(gpu: u64, memory: u64) -> Holding {
        let gpu = GpuHolding { name: "GPU0".to_owned(), bytes: gpu, shares_memory: false };
        Holding { gpus: vec![gpu], ..Holding::files(memory) }
    }

    #[test]
    fn every_device_has_its_own_account() {
        let machine = machine(12 * GIB, 40 * GIB);
        let fits = |staying: &[Holding], new| fits(&machine, staying.iter(), &new);
        assert!(fits(&[], holding(11 * GIB, 30 * GIB)));
        assert!(!fits(&[], holding(12 * GIB, 0)), "half a gibibyte is left alone");
        assert!(fits(&[holding(5 * GIB, 30 * GIB)], holding(6 * GIB, 8 * GIB)));
        assert!(!fits(&[holding(5 * GIB, 30 * GIB)], holding(7 * GIB, 8 * GIB)));
        assert!(!fits(&[holding(5 * GIB, 30 * GIB)], holding(6 * GIB, 9 * GIB)));
    }

    #[test]
    fn an_emptied_machine_has_back_what_was_taken_and_counts_no_mapped_file_twice() {
        let memory = MemoryUse { anonymous_bytes: Some(3 * GIB), ..MemoryUse::default() };
        let info = LoadInfo { memory, ..LoadInfo::default() };
        // 8 GiB of a mapped file, which the system calls available, and 3 GiB besides.
        let loaded = holding(5 * GIB, 11 * GIB).loaded(&info);
        let now = machine(7 * GIB, 37 * GIB);
        let empty = emptied(&now, [&loaded].into_iter());
        assert_eq!(empty.gpus[0].free_bytes, 12 * GIB);
        assert_eq!(empty.memory.available_bytes, 40 * GIB);
        assert_eq!(empty.memory.margin_bytes, 2 * GIB);
        assert!(fits(&empty, [&loaded].into_iter(), &holding(0, 27 * GIB)));
        assert!(!fits(&empty, [&loaded].into_iter(), &holding(0, 28 * GIB)));
        assert_eq!((loaded.total_bytes(), loaded.gpu_bytes()), (16 * GIB, 5 * GIB));
    }
}
