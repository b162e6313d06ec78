//! What llama.cpp would allocate, by its own account: a model and a context are set up without
//! memory behind them, and the sizes are read from the log.

use std::path::Path;
use std::sync::Arc;

use super::{AbortFlag, Backend, Context, Line, LlamaError, Model};
use crate::engine::options::{ContextOptions, ModelOptions};

/// What one context would take.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Bytes of intermediate results by the name of the buffer, such as "CPU" or "Vulkan0".
    pub compute_bytes: Vec<(String, u64)>,
}

/// Measures a model with a context, without reading or allocating its weights.
pub fn measure(
    backend: &Backend,
    path: &Path,
    model: &ModelOptions,
    context: &ContextOptions,
    context_tokens: u32,
) -> Result<Measured, LlamaError> {
    let model = Model::without_weights(backend, path, model)?;
    let mark = backend.mark();
    let context = Context::new(&model, context, context_tokens, AbortFlag::default(), None)?;
    drop(context);
    debug_assert_eq!(Arc::strong_count(&model), 1);
    Ok(Measured::read(&backend.lines_since(mark)))
}

impl Measured {
    /// The sizes in a log. They are printed in MiB with two digits behind the point.
    pub(super) fn read(lines: &[Line]) -> Self {
        let mut measured = Self::default();
        for line in lines {
            let message = line.message();
            if let Some((name, rest)) = message.split_once(" compute buffer size = ")
                && let Some(bytes) = mebibytes(rest)
            {
                measured.compute_bytes.push((name.trim().to_owned(), bytes));
            }
        }
        measured
    }
}

/// The bytes of a text that begins with a number of MiB.
fn mebibytes(text: &str) -> Option<u64> {
    let number: f64 = text.trim().split_once(" MiB")?.0.trim().parse().ok()?;
    Some((number * 1024.0 * 1024.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::engine::llama::LogLevel;
    use crate::engine::options::{FlashAttention, LoadMode};
    use crate::engine::plan::compute::{Graph, compute_bytes};
    use nfl_converters::Outline;
    use nfl_models::footprint::{Cache, Footprint};
    use nfl_models::gguf::{Gguf, TensorInfo, TensorPlan, Writer};
    use nfl_models::{Level, TensorType};

    /// A file of the shape that a configuration tells, with every tensor and no data (a hole).
    fn hollow(name: &str) -> Option<(Footprint, tempfile::NamedTempFile)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/material/checkpoints");
        if !folder.exists() {
            eprintln!("skipped: no material at {}", folder.display());
            return None;
        }
        let outline = Outline::read(&folder.join(name)).unwrap();
        let mut metadata = outline.metadata.clone();
        metadata.set("tokenizer.ggml.model", "none");
        let tensors = outline.tensors(Level::Q4_K_M).unwrap();
        let footprint = Footprint::new(outline.shape, &tensors);
        let plan = |tensor: TensorInfo| {
            let TensorInfo { name, dimensions, tensor_type, .. } = tensor;
            TensorPlan { name, dimensions, tensor_type }
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = file.as_file().try_clone().unwrap();
        let plans = tensors.into_iter().map(plan).collect();
        let writer = Writer::new(target, &metadata, plans).unwrap();
        file.as_file().set_len(writer.total_bytes()).unwrap();
        Some((footprint, file))
    }

    /// The log is one for the whole process: what is read from it here must not be said by another
    /// test meanwhile, so these tests run in a process of their own, one after the other.
    #[test]
    fn what_llama_cpp_says_is_what_was_predicted() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--test-threads=1", "llama::fit::tests::alone_"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("3 passed"), "{said}");
    }

    /// llama.cpp takes the inventories of these shapes, and reserves for them what the formula
    /// says: never more than 6 % beyond it (11 % where attention is not fused), and never far less.
    #[test]
    #[ignore = "run by the one above"]
    fn alone_real_shapes_load_and_take_what_is_predicted() {
        for name in [
            "configs/llama3_2_1b.json",
            "configs/Llama-3.1-8B.json",
            "configs/llama2_7b.json",
            "configs/llama3_1_70b.json",
            "configs/qwen2_0_5b.json",
            "configs/qwen2_7b.json",
            "configs/qwen3_1.7b.json",
            "configs/gemma2_9b.json",
            "configs/gemma3_1b_it.json",
            "configs/olmo2_7b.json",
            "configs/phi-4.json",
            "configs/smollm2_135m.json",
            "mixtral-8x7b-instruct/config.json",
            "configs/Qwen3-30B-A3B.json",
            "gpt-oss-20b/config.json",
            "granite-3.1-1b-a400m/config.json",
        ] {
            let Some((footprint, file)) = hollow(name) else { return };
            for (context_tokens, micro_batch_tokens, fused) in [
                (4096, 512, true),
                (4096, 64, true),
                (32_768, 512, true),
                (32_768, 2048, true),
                (8192, 256, true),
                (4096, 512, false),
                (4096, 64, false),
                (32_768, 512, false),
            ] {
                let mut options = ContextOptions::with_threads(2);
                options.micro_batch_tokens = micro_batch_tokens;
                options.flash_attention =
                    if fused { FlashAttention::Auto } else { FlashAttention::Off };
                let (backend, model) = (Backend::get(), ModelOptions::default());
                let measured =
                    measure(backend, file.path(), &model, &options, context_tokens).unwrap();
                let graph = Graph {
                    context_tokens: context_tokens.into(),
                    micro_batch_tokens: micro_batch_tokens.into(),
                    sequences: 1,
                    fused,
                };
                let predicted = compute_bytes(footprint.shape(), &graph) as f64;
                let ratio = measured.compute_bytes[0].1 as f64 / predicted;
                let place =
                    format!("{name}, {context_tokens}, {micro_batch_tokens}, {fused}: {ratio:.3}");
                let most = if fused { 1.06 } else { 1.11 };
                assert!((0.85..=most).contains(&ratio), "{place}");
            }
        }
    }

    /// Latent attention cannot be measured without weights (llama.cpp ends the process); that it
    /// takes the tensors can be shown.
    #[test]
    #[ignore = "run by the one above"]
    fn alone_latent_attention_loads() {
        let Some((_, file)) = hollow("configs/deepseek_v2_lite.json") else { return };
        let options = ModelOptions::default();
        let model = Model::without_weights(Backend::get(), file.path(), &options).unwrap();
        assert_eq!(model.blocks(), 27);
    }

    /// Real files, really loaded: weights and cache to the byte, as far as the log tells it.
    #[test]
    #[ignore = "run by the one above"]
    fn alone_real_files_take_what_is_predicted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/material/oracle");
        for name in ["stories260K-F16.gguf", "stories260K-mixtral-4x-top2-Q4_0.gguf"] {
            let path = folder.join(name);
            if !path.exists() {
                eprintln!("skipped: no material at {}", path.display());
                return;
            }
            let footprint = Footprint::of(&Gguf::open(&path).unwrap()).unwrap();
            let backend = Backend::get();
            let mark = backend.mark();
            let mut options = ModelOptions { repack: false, ..ModelOptions::default() };
            options.load_mode = LoadMode::Read;
            let model = Model::load(backend, &path, &options, &mut |_| true).unwrap();
            let context = ContextOptions::with_threads(1);
            drop(Context::new(&model, &context, 512, AbortFlag::default(), None).unwrap());
            let lines = backend.lines_since(mark);
            let sum = |what: &str| {
                let found = lines.iter().filter_map(|line| line.message().split_once(what));
                found.filter_map(|(_, rest)| mebibytes(rest)).sum::<u64>()
            };
            let rounding = 8 << 10; // two digits of a MiB
            let cache = Cache {
                context_tokens: 512,
                micro_batch_tokens: 512,
                sequences: 1,
                key: TensorType::F16,
                value: TensorType::F16,
            };
            let near = |found: u64, expected: u64| found.abs_diff(expected) <= rounding;
            let weights = (sum("model buffer size = "), footprint.weights_bytes());
            assert!(near(weights.0, weights.1), "{name}: {weights:?}");
            assert_eq!(model.weights_bytes(), footprint.weights_bytes(), "{name}");
            let kept = (sum("KV buffer size = "), footprint.kv_bytes(&cache).unwrap());
            assert!(near(kept.0, kept.1), "{name}: {kept:?}");
        }
    }

    #[test]
    fn sizes_are_read_from_the_log() {
        let lines = [
            "sched_reserve:        CPU compute buffer size =   304.75 MiB",
            "llama_kv_cache: size =    0.31 MiB (   512 cells,   5 layers,  1/1 seqs), K (f16):    0.16 MiB, V (f16):    0.16 MiB",
            "load_tensors:   CPU_Mapped model buffer size =   800.00 MiB",
        ]
        .map(|text| Line { level: LogLevel::Info, text: text.to_owned() });
        let measured = Measured::read(&lines);
        assert_eq!(measured.compute_bytes, [("CPU".to_owned(), 319_553_536)]);
    }
}
