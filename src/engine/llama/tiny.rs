//! Models of a few thousand weights for tests, written from a seed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nfl_models::TensorType;
use nfl_models::gguf::{Array, Metadata, TensorPlan, Text, Value, Writer};

use super::{AbortFlag, Backend, Context, Model};
use crate::engine::options::{ContextOptions, ModelOptions};

/// A tensor: name, dimensions (row length first), values.
pub(in crate::engine) type Tensor = (String, Vec<u64>, Vec<f32>);

/// The shape of the tiny model.
pub(in crate::engine) const HIDDEN: usize = 32;
pub(in crate::engine) const LAYERS: usize = 2;
pub(in crate::engine) const FEED_FORWARD: usize = 64;

/// Texts of the vocabulary behind three control tokens and 256 bytes.
const PIECES: &[&str] = &[
    "▁", "a", "b", "c", "d", "e", "n", "t", "r", "u", "l", "s", "0", "1", "2", "7", "-", ".", "\"",
    "{", "}", "[", "]", ":", ",", "{\"", "\":", "\",", "\"}", ",\"", "▁\"", ":▁", ",▁", "\"▁",
    "▁{", "true", "false", "null", "name", "age", "\"name\"", "\"age\":", "▁true", "12", "3.1",
    "e5", "é", "日", "本", "😀", "\\", "\\n", "\\u", "\n", "\n\n", "},", "}]", "],", "[[", "]]",
    "{}", "[]", "word", "▁the", "▁a", "and", "kind", "cat", "dog", "yes", "no", "\"\"", "2026-",
    "-05", "T12:", "+00:00",
];

/// Tokens of the vocabulary.
pub(in crate::engine) const VOCABULARY: usize = 3 + 256 + PIECES.len();

/// A generator of numbers that look random.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Noise(pub(in crate::engine) u64);

impl Noise {
    pub(in crate::engine) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// From −1 to 1.
    pub(in crate::engine) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(in crate::engine) fn values(&mut self, count: usize, spread: f32) -> Vec<f32> {
        (0..count).map(|_| self.unit() * spread).collect()
    }
}

pub(in crate::engine) fn vocabulary(metadata: &mut Metadata) {
    let mut tokens = vec![Text::from("<unk>"), Text::from("<s>"), Text::from("</s>")];
    let mut kinds: Vec<i32> = vec![2, 3, 3];
    tokens.extend((0..256).map(|byte| Text::from(format!("<0x{byte:02X}>").as_str())));
    kinds.resize(3 + 256, 6);
    tokens.extend(PIECES.iter().map(|piece| Text::from(*piece)));
    kinds.resize(VOCABULARY, 1);
    let scores = (0..VOCABULARY).map(|place| -(place as f32)).collect();
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    metadata.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    metadata.set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    metadata.set("tokenizer.ggml.bos_token_id", 1_u32);
    metadata.set("tokenizer.ggml.eos_token_id", 2_u32);
    metadata.set("tokenizer.ggml.unknown_token_id", 0_u32);
}

pub(in crate::engine) fn write(path: &Path, metadata: &Metadata, tensors: &[Tensor]) {
    let plans = tensors
        .iter()
        .map(|(name, dimensions, _)| TensorPlan {
            name: name.clone(),
            dimensions: dimensions.clone(),
            tensor_type: TensorType::F32,
        })
        .collect();
    let mut writer = Writer::new(Vec::new(), metadata, plans).unwrap();
    for (_, _, values) in tensors {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write(&bytes).unwrap();
        writer.finish_tensor().unwrap();
    }
    fs::write(path, writer.finish().unwrap()).unwrap();
}

/// The metadata of a Llama.
pub(in crate::engine) fn llama_metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    metadata.set("llama.context_length", 512_u32);
    metadata.set("llama.embedding_length", HIDDEN as u32);
    metadata.set("llama.block_count", LAYERS as u32);
    metadata.set("llama.feed_forward_length", FEED_FORWARD as u32);
    metadata.set("llama.attention.head_count", 4_u32);
    metadata.set("llama.attention.head_count_kv", 2_u32);
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    metadata.set("llama.rope.dimension_count", 8_u32);
    metadata.set("llama.vocab_size", VOCABULARY as u32);
    vocabulary(&mut metadata);
    metadata
}

/// The tensors of a Llama.
pub(in crate::engine) fn llama_tensors(seed: u64) -> Vec<Tensor> {
    let mut noise = Noise(seed);
    let (hidden, words) = (HIDDEN as u64, VOCABULARY as u64);
    let (heads, half, inner) = (hidden, hidden / 2, FEED_FORWARD as u64);
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut matrix = |name: String, row: u64, rows: u64, spread: f32| {
        let values = noise.values((row * rows) as usize, spread);
        tensors.push((name, vec![row, rows], values));
    };
    matrix("token_embd.weight".to_owned(), hidden, words, 1.0);
    matrix("output.weight".to_owned(), hidden, words, 0.6);
    for layer in 0..LAYERS {
        for (name, row, rows) in [
            ("attn_q", hidden, heads),
            ("attn_k", hidden, half),
            ("attn_v", hidden, half),
            ("attn_output", heads, hidden),
            ("ffn_gate", hidden, inner),
            ("ffn_up", hidden, inner),
            ("ffn_down", inner, hidden),
        ] {
            matrix(format!("blk.{layer}.{name}.weight"), row, rows, 0.3);
        }
    }
    let norm = |name: String| (name, vec![hidden], vec![1.0; HIDDEN]);
    tensors.push(norm("output_norm.weight".to_owned()));
    for layer in 0..LAYERS {
        tensors.push(norm(format!("blk.{layer}.attn_norm.weight")));
        tensors.push(norm(format!("blk.{layer}.ffn_norm.weight")));
    }
    tensors
}

/// A Llama in a file of its own.
pub(in crate::engine) fn llama_file(folder: &Path, seed: u64) -> PathBuf {
    let path = folder.join(format!("tiny-{seed}.gguf"));
    write(&path, &llama_metadata(), &llama_tensors(seed));
    path
}

pub(in crate::engine) fn load(path: &Path) -> Arc<Model> {
    Model::load(Backend::get(), path, &ModelOptions::default(), &mut |_| true).unwrap()
}

pub(in crate::engine) fn context(model: &Arc<Model>) -> Context {
    let options = ContextOptions::with_threads(1);
    Context::new(model, &options, 256, AbortFlag::default(), None).unwrap()
}
