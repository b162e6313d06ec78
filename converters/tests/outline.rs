//! What a `config.json` tells of a model, against what its publishers say of it.

use std::path::{Path, PathBuf};

use nfl_converters::Outline;
use nfl_models::gguf::TensorInfo;
use nfl_models::{Level, TensorType};

fn material(path: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/material/checkpoints");
    let found = folder.join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!("skipped: no material at {}", found.display());
    None
}

fn parameters(outline: &Outline) -> u64 {
    outline.tensors(Level::F16).unwrap().iter().map(TensorInfo::elements).sum()
}

/// The number of weights that the model's page on Hugging Face gives (from its safetensors).
#[test]
fn weights_are_as_many_as_published() {
    for (name, published) in [
        ("llama3_2_1b", 1_235_814_400),
        ("Llama-3.1-8B", 8_030_261_248),
        ("llama2_70b", 68_976_648_192),
        ("llama3_1_70b", 70_553_706_496),
        ("mistral_7b", 7_241_732_096),
        ("Mixtral-8x7B-v0.1", 46_702_792_704),
        ("qwen2.5_3b", 3_085_938_688),
        ("qwen2_7b", 7_615_616_512),
        ("qwen3_1.7b", 1_720_574_976),
        ("Qwen3-30B-A3B", 30_532_122_624),
        ("deepseek_v2_lite", 15_706_484_224),
        ("gemma2_2b", 2_614_341_888),
        ("gemma2_9b", 9_241_705_984),
        ("gemma3_1b_it", 999_885_952),
        ("olmo2_7b", 7_298_617_344),
        ("phi-3_5", 3_821_079_552),
        ("phi-4", 3_836_021_760), // Phi-4-mini, whatever the name of the file says
    ] {
        let Some(config) = material(&format!("configs/{name}.json")) else { return };
        let outline = Outline::read(&config).unwrap();
        // Factors for frequencies are computed from the configuration: no checkpoint has them.
        let factors =
            u64::from(outline.shape.rope_factors) + 2 * u64::from(outline.shape.rope_long_factors);
        let factors = factors * outline.shape.rope_dimensions / 2;
        assert_eq!(parameters(&outline) - factors, published, "{name}");
    }
}

/// The sum of bytes that the index of a sharded checkpoint gives.
#[test]
fn bytes_are_those_of_the_published_index() {
    for (name, bytes_per_weight) in [("mixtral-8x7b-instruct", 2), ("granite-3.1-1b-a400m", 4)] {
        let Some(folder) = material(name) else { return };
        let outline = Outline::read(&folder).unwrap();
        assert_eq!(parameters(&outline) * bytes_per_weight, total_size(&folder), "{name}");
    }
    // Here the experts are published in blocks, everything else in two bytes a weight.
    let Some(folder) = material("gpt-oss-20b") else { return };
    let outline = Outline::read(&folder).unwrap();
    let bytes = outline.tensors(Level::F16).unwrap().iter().fold(0, |sum, tensor| {
        sum + match tensor.tensor_type {
            TensorType::MXFP4 => tensor.bytes(),
            _ => tensor.elements() * 2,
        }
    });
    assert_eq!(bytes, total_size(&folder));
}

fn total_size(folder: &Path) -> u64 {
    let index = std::fs::read_to_string(folder.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index["metadata"]["total_size"].as_u64().unwrap()
}

/// Files of these models at this level as they are published, in bytes of tensors.
#[test]
fn levels_cost_what_they_cost() {
    let Some(config) = material("configs/Llama-3.1-8B.json") else { return };
    let footprint = Outline::read(&config).unwrap().footprint(Level::Q4_K_M).unwrap();
    // 4.58 GiB in llama.cpp's own table for this model and level.
    let gibibytes = footprint.weights_bytes() as f64 / f64::from(1 << 30);
    assert!((gibibytes - 4.58).abs() < 0.01, "{gibibytes}");
}

#[test]
fn what_is_not_known_is_said() {
    let Some(config) = material("configs/gpt_j.json") else { return };
    let error = Outline::read(&config).unwrap_err();
    assert_eq!(error.to_string(), "unknown architecture: GPTJForCausalLM");
    assert!(nfl_models::Hint::hint(&error).unwrap().contains("Qwen3MoeForCausalLM"));
}
