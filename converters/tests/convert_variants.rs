//! Checkpoints of every kind a family knows, against the files that upstream's converter makes of
//! them.
//!
//! Each variant is a small checkpoint with weights from a formula. `convert_variants.tsv` holds the
//! SHA-256 of the F32 and BF16 files that `convert_hf_to_gguf.py` makes of it. To make it again:
//! run this test with `NFL_KEEP_VARIANTS=DIR`, which leaves the checkpoints in DIR, run upstream's
//! converter on each, and hash what it writes.

use crate::convert_support::{Reference, material, on};
use nfl_converters::checkpoint::Checkpoint;
use nfl_converters::{Order, convert};
use nfl_models::Level;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const EXPECTED: &str = include_str!("convert_variants.tsv");

/// A checkpoint in the making.
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) config: Value,
    /// `F32`, `F16` or `BF16`.
    dtype: &'static str,
    shards: usize,
    /// Other files: name and content.
    files: &'static [(&'static str, &'static str)],
}

/// The variants, in the order of the table.
pub(crate) fn variants() -> Vec<Variant> {
    let variant = |name, dtype, shards, config| Variant { name, config, dtype, shards, files: &[] };
    let mut tuned = variant("Test-Llama-3.2-1B-Instruct", "BF16", 2, llama_3_2());
    tuned.files = &[
        (
            "README.md",
            "---\nlicense: llama3.2\nlanguage:\n- en\n- de\npipeline_tag: text-generation\n\
             tags:\n- facebook\n- meta\nbase_model: meta-llama/Llama-3.2-1B\n\
             datasets:\n- HuggingFaceH4/ultrachat_200k\n- stingning/ultrachat\n---\n# Title\n",
        ),
        (
            "generation_config.json",
            r#"{"temperature": 0.6, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1}"#,
        ),
    ];
    vec![
        tuned,
        variant("mistral-7B-v0.1", "F16", 1, mistral()),
        variant("Mixtral-8x7B-v0.1", "BF16", 3, mixtral()),
        variant("biased", "F32", 1, biased()),
        variant("old-llama", "F16", 1, old_llama()),
    ]
}

fn llama_3_2() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 256, "num_hidden_layers": 12, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 128, "vocab_size": 512, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131_072, "rope_theta": 500_000.0, "tie_word_embeddings": true,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"
        }
    })
}

fn mistral() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 11, "num_attention_heads": 8,
        "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "sliding_window": 4096,
        "tie_word_embeddings": false
    })
}

fn mixtral() -> Value {
    json!({
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 12, "num_attention_heads": 8,
        "num_key_value_heads": 2, "vocab_size": 512, "num_local_experts": 8,
        "num_experts_per_tok": 2, "_name_or_path": "mistralai/Mixtral-8x7B-v0.1",
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "sliding_window": null, "tie_word_embeddings": false
    })
}

fn biased() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6, "attention_bias": true, "mlp_bias": true,
        "tie_word_embeddings": false,
        "rope_scaling": {
            "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192,
            "beta_fast": 32, "beta_slow": 1
        }
    })
}

/// What the first Llamas left out of their configuration.
fn old_llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 512, "max_position_embeddings": 2048, "tie_word_embeddings": false,
        "rope_scaling": {"type": "linear", "factor": 4.0}
    })
}

impl Variant {
    fn number(&self, key: &str) -> Option<u64> {
        self.config.get(key).and_then(Value::as_u64)
    }

    /// Names and shapes of all tensors.
    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let get = |key: &str| self.number(key).unwrap();
        let flag = |key: &str| self.config.get(key) == Some(&json!(true));
        let (hidden, inner, heads) =
            (get("hidden_size"), get("intermediate_size"), get("num_attention_heads"));
        let head = self.number("head_dim").unwrap_or(hidden / heads);
        let heads_kv = self.number("num_key_value_heads").unwrap_or(heads);
        let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![512, hidden])];
        let mut add = |name: String, rows: u64, columns: u64, bias: bool| {
            all.push((format!("{name}.weight"), vec![rows, columns]));
            if bias {
                all.push((format!("{name}.bias"), vec![rows]));
            }
        };
        if !flag("tie_word_embeddings") {
            add("lm_head".to_owned(), 512, hidden, false);
        }
        let mut norms = vec!["model.norm.weight".to_owned()];
        let mut buffers = Vec::new();
        for layer in 0..get("num_hidden_layers") {
            let at = format!("model.layers.{layer}");
            let biased = flag("attention_bias");
            add(format!("{at}.self_attn.q_proj"), heads * head, hidden, biased);
            add(format!("{at}.self_attn.k_proj"), heads_kv * head, hidden, biased);
            add(format!("{at}.self_attn.v_proj"), heads_kv * head, hidden, biased);
            add(format!("{at}.self_attn.o_proj"), hidden, heads * head, biased);
            if let Some(experts) = self.number("num_local_experts") {
                let at = format!("{at}.block_sparse_moe");
                add(format!("{at}.gate"), experts, hidden, false);
                for expert in 0..experts {
                    add(format!("{at}.experts.{expert}.w1"), inner, hidden, false);
                    add(format!("{at}.experts.{expert}.w2"), hidden, inner, false);
                    add(format!("{at}.experts.{expert}.w3"), inner, hidden, false);
                }
            } else {
                let biased = flag("mlp_bias");
                add(format!("{at}.mlp.gate_proj"), inner, hidden, biased);
                add(format!("{at}.mlp.up_proj"), inner, hidden, biased);
                add(format!("{at}.mlp.down_proj"), hidden, inner, biased);
            }
            norms.push(format!("{at}.input_layernorm.weight"));
            norms.push(format!("{at}.post_attention_layernorm.weight"));
            buffers.push((format!("{at}.self_attn.rotary_emb.inv_freq"), vec![head / 2]));
        }
        all.extend(norms.into_iter().map(|name| (name, vec![hidden])));
        all.extend(buffers);
        all
    }

    /// Writes the checkpoint into a folder of its name.
    pub(crate) fn write(&self, parent: &Path) -> PathBuf {
        let folder = parent.join(self.name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        for (name, content) in self.files {
            fs::write(folder.join(name), content).unwrap();
        }
        let tensors = self.tensors();
        let shards: Vec<_> = tensors.chunks(tensors.len().div_ceil(self.shards)).collect();
        let mut places = BTreeMap::new();
        for (index, shard) in shards.iter().enumerate() {
            let file = match self.shards {
                1 => "model.safetensors".to_owned(),
                all => format!("model-{:05}-of-{all:05}.safetensors", index + 1),
            };
            fs::write(folder.join(&file), self.safetensors(shard)).unwrap();
            places.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone())));
        }
        if self.shards > 1 {
            let index = json!({"metadata": {"total_size": 0}, "weight_map": places});
            let file = folder.join("model.safetensors.index.json");
            fs::write(file, index.to_string()).unwrap();
        }
        folder
    }

    fn safetensors(&self, tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for (name, shape) in tensors {
            let start = data.len();
            let mut state = name
                .bytes()
                .fold(7_u32, |state, byte| state.wrapping_mul(31).wrapping_add(u32::from(byte)));
            for _ in 0..shape.iter().product::<u64>() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // exact in every type: eight bits of mantissa
                let value = (f32::from((state >> 24) as u8) - 127.5) / 1024.0;
                let value = half::bf16::from_f32(value);
                match self.dtype {
                    "BF16" => data.extend(value.to_le_bytes()),
                    "F16" => data.extend(half::f16::from_f32(value.to_f32()).to_le_bytes()),
                    _ => data.extend(value.to_f32().to_le_bytes()),
                }
            }
            let entry =
                json!({"dtype": self.dtype, "shape": shape, "data_offsets": [start, data.len()]});
            header.insert(name.clone(), entry);
        }
        let header = Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }
}

/// A folder for checkpoints: one that stays when the caller asked for it.
fn home(temporary: &Path) -> PathBuf {
    std::env::var_os("NFL_KEEP_VARIANTS").map_or_else(|| temporary.to_owned(), PathBuf::from)
}

#[test]
fn every_variant_equals_upstream_byte_for_byte() {
    let Some(tokenizer) = material("derived/stories260K-hf-llama/tokenizer.model") else { return };
    let temporary = tempfile::tempdir().unwrap();
    let mut expected = EXPECTED.lines().filter(|line| !line.starts_with('#'));
    let made = variants().into_iter().map(|variant| {
        let folder = variant.write(&home(temporary.path()));
        fs::copy(&tokenizer, folder.join("tokenizer.model")).unwrap();
        (variant, folder)
    });
    for (variant, folder) in made.collect::<Vec<_>>() {
        let levels = vec![Level::F32, Level::BF16];
        let order = Order::new(levels, temporary.path().join("out"), variant.name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for receipt in convert(&checkpoint, &order, &Reference, &mut on).unwrap() {
            let hash = Sha256::digest(fs::read(&receipt.path).unwrap());
            let hash: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            let line = format!("{}\t{}\t{}", variant.name, receipt.level, hash.concat());
            assert_eq!(Some(line.as_str()), expected.next());
        }
    }
    assert_eq!(expected.next(), None);
}
