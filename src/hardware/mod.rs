//! What this machine has, as far as it decides how a model runs.

mod cores;

pub use cores::default_threads;

/// Whether the processor has matrix tiles (Intel AMX), which ggml uses for quantised weights.
///
/// The engine must know, because GCC before 11.5, 12.4 and 13.3 drops the stores of a tile configuration (its PR 114098)
/// and such a build of llama.cpp crashes at the first product; `-fno-dse -fno-tree-dse` avoids it.
pub fn has_matrix_tiles() -> bool {
    cfg!(target_arch = "x86_64")
        && std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
            text.lines().any(|line| line.starts_with("flags") && line.contains(" amx_tile"))
        })
}
