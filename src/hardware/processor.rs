//! The processor: its name, and the instructions that decide how fast a matrix product is.

use std::fs;
use std::num::NonZero;
use std::thread;

/// What computes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processor {
    /// What it calls itself.
    pub name: String,
    /// Processors that this process may use, two threads of a core counted as two.
    pub logical: usize,
    /// The instruction sets that matter here, in the words of their makers.
    pub features: Vec<&'static str>,
}

/// Instruction sets: our name, Linux's name in /proc/cpuinfo, ggml's name when it was compiled for it.
const FEATURES: &[(&str, &str, &str)] = &[
    ("AVX", "avx", "AVX"),
    ("AVX2", "avx2", "AVX2"),
    ("FMA", "fma", "FMA"),
    ("F16C", "f16c", "F16C"),
    ("AVX-VNNI", "avx_vnni", "AVX_VNNI"),
    ("AVX-512", "avx512f", "AVX512"),
    ("AVX-512 VBMI", "avx512vbmi", "AVX512_VBMI"),
    ("AVX-512 VNNI", "avx512_vnni", "AVX512_VNNI"),
    ("AVX-512 BF16", "avx512_bf16", "AVX512_BF16"),
    ("AMX INT8", "amx_int8", "AMX_INT8"),
    ("NEON", "asimd", "NEON"),
    ("DotProd", "asimddp", "DOTPROD"),
    ("I8MM", "i8mm", "MATMUL_INT8"),
    ("SVE", "sve", "SVE"),
    ("SME", "sme", "SME"),
    ("RVV", "v", "RISCV_V"),
];

/// Looks at the processor.
pub fn processor() -> Processor {
    let table = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = features_of(&table);
    Processor {
        name: name_of(&table).unwrap_or_else(system::name),
        logical: thread::available_parallelism().map_or(1, NonZero::get),
        features: if features.is_empty() { system::features() } else { features },
    }
}

impl Processor {
    /// Instruction sets that the processor has and ggml, by its own words, was not compiled for.
    pub fn unused(&self, compiled: &[String]) -> Vec<&'static str> {
        let is_used = |ours: &str| {
            let ggml = FEATURES.iter().find(|(name, ..)| *name == ours).map(|(_, _, ggml)| *ggml);
            ggml.is_some_and(|ggml| compiled.iter().any(|word| word == ggml))
        };
        self.features.iter().copied().filter(|feature| !is_used(feature)).collect()
    }
}

/// The value of the first line of that name in a table such as /proc/cpuinfo.
fn value<'a>(table: &'a str, names: &[&str]) -> Option<&'a str> {
    table.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        names.contains(&name.trim()).then(|| value.trim())
    })
}

fn name_of(table: &str) -> Option<String> {
    // ARM boards name themselves under Hardware or Model, when at all.
    let name = value(table, &["model name", "Hardware", "Model", "uarch"])?;
    Some(name.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn features_of(table: &str) -> Vec<&'static str> {
    let flags = value(table, &["flags", "Features"]).unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let has = |linux: &str| flags.contains(&linux);
    FEATURES.iter().filter(|(_, linux, _)| has(linux)).map(|(name, ..)| *name).collect()
}

#[cfg(target_os = "linux")]
mod system {
    pub(super) fn name() -> String {
        std::env::consts::ARCH.to_owned()
    }

    pub(super) fn features() -> Vec<&'static str> {
        Vec::new()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use sysinfo::{CpuRefreshKind, RefreshKind, System};

    pub(super) fn name() -> String {
        let kind = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(kind);
        system
            .cpus()
            .first()
            .map_or(std::env::consts::ARCH.to_owned(), |cpu| cpu.brand().to_owned())
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn features() -> Vec<&'static str> {
        [
            ("AVX", std::is_x86_feature_detected!("avx")),
            ("AVX2", std::is_x86_feature_detected!("avx2")),
            ("FMA", std::is_x86_feature_detected!("fma")),
            ("F16C", std::is_x86_feature_detected!("f16c")),
            ("AVX-512", std::is_x86_feature_detected!("avx512f")),
            ("AVX-512 VNNI", std::is_x86_feature_detected!("avx512vnni")),
            ("AVX-512 BF16", std::is_x86_feature_detected!("avx512bf16")),
        ]
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
    }

    #[cfg(target_arch = "aarch64")]
    pub(super) fn features() -> Vec<&'static str> {
        [
            ("NEON", std::arch::is_aarch64_feature_detected!("neon")),
            ("DotProd", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("I8MM", std::arch::is_aarch64_feature_detected!("i8mm")),
            ("SVE", std::arch::is_aarch64_feature_detected!("sve")),
        ]
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) fn features() -> Vec<&'static str> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XEON: &str = "processor\t: 0\nmodel name\t: Intel(R)  Xeon(R) Processor\n\
        flags\t\t: fpu avx f16c avx2 avx512f amx_int8\nmodel name\t: other\n";

    #[test]
    fn names_and_instructions_are_read() {
        assert_eq!(name_of(XEON).unwrap(), "Intel(R) Xeon(R) Processor");
        assert_eq!(features_of(XEON), ["AVX", "AVX2", "F16C", "AVX-512", "AMX INT8"]);
        assert_eq!(features_of("Features\t: fp asimd i8mm\n"), ["NEON", "I8MM"]);
        assert_eq!((name_of(""), features_of("")), (None, Vec::new()));
    }

    #[test]
    fn what_the_build_leaves_unused_is_known() {
        let processor = Processor { features: features_of(XEON), ..Processor::default() };
        let compiled = ["AVX", "AVX2", "F16C"].map(str::to_owned);
        assert_eq!(processor.unused(&compiled), ["AVX-512", "AMX INT8"]);
    }

    #[test]
    fn this_processor_has_a_name() {
        let processor = processor();
        assert!(!processor.name.is_empty() && processor.logical >= 1, "{processor:?}");
        if cfg!(all(target_os = "linux", target_feature = "avx2")) {
            assert!(processor.features.contains(&"AVX2"), "{processor:?}");
        }
    }
}
