//! Models of random weights with many small experts, one with a uniform router and one with a skewed.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use nfl_models::TensorType;
use nfl_models::gguf::{Array, Metadata, TensorPlan, Text, Value, WriteError, Writer};

const BLOCKS: u64 = 16;
const EXPERTS: u64 = 64;
const EXPERTS_USED: u32 = 4;
const HIDDEN: u64 = 1024;
const INNER: u64 = 512;
const HEADS: u64 = 16;
const HEADS_KV: u64 = 4;
const VOCABULARY: u64 = 512;

/// Random numbers that weights are cut from: making each anew would take minutes.
const POOL: usize = 1 << 22;

/// The constant first number of every embedding, on which a skewed router stands.
const LEVEL: f32 = 8.0;

/// Writes a model. `skew` is how fast experts get rarer: 0 makes all equally likely.
pub(crate) fn write(path: &Path, skew: f32) -> Result<(), WriteError> {
    let plans = plans();
    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut writer = Writer::new(file, &metadata(), plans.clone())?;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let pool: Vec<f32> = (0..POOL).map(|_| random.normal()).collect();
    for plan in plans {
        let values: u64 = plan.dimensions.iter().product();
        let row = plan.dimensions[0] as usize;
        let stem = plan.name.rsplit('.').nth(1).unwrap_or("");
        let deviation = match stem {
            "token_embd" => 1.0,
            // Scores of deviation 2: the chosen experts stand clear, and none has all the weight.
            "ffn_gate_inp" => 2.0 / (HIDDEN as f32).sqrt(),
            _ => (row as f32).sqrt().recip(),
        };
        let mut bytes = Vec::with_capacity(row * 4);
        for number in 0..values as usize / row {
            bytes.clear();
            let start = random.next() as usize % (POOL - row);
            for (column, value) in pool[start..start + row].iter().enumerate() {
                let value = match (stem, column) {
                    (name, _) if name.ends_with("norm") => 1.0,
                    ("token_embd", 0) => LEVEL,
                    ("ffn_gate_inp", 0) => -skew * (1.0 + number as f32).ln() / LEVEL,
                    _ => value * deviation,
                };
                match plan.tensor_type {
                    TensorType::F32 => bytes.extend(value.to_le_bytes()),
                    _ => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
                }
            }
            writer.write(&bytes)?;
        }
        writer.finish_tensor()?;
    }
    writer.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

fn plans() -> Vec<TensorPlan> {
    let plan = |name: &str, dimensions: &[u64]| {
        let is_small = name.contains("norm") || name.contains("gate_inp");
        let tensor_type = if is_small { TensorType::F32 } else { TensorType::F16 };
        TensorPlan { name: format!("{name}.weight"), dimensions: dimensions.to_vec(), tensor_type }
    };
    let keys = HIDDEN / HEADS * HEADS_KV;
    let mut plans = vec![
        plan("token_embd", &[HIDDEN, VOCABULARY]),
        plan("output_norm", &[HIDDEN]),
        plan("output", &[HIDDEN, VOCABULARY]),
    ];
    for block in 0..BLOCKS {
        let own = |name: &str, dimensions: &[u64]| plan(&format!("blk.{block}.{name}"), dimensions);
        plans.extend([
            own("attn_norm", &[HIDDEN]),
            own("attn_q", &[HIDDEN, HIDDEN]),
            own("attn_k", &[HIDDEN, keys]),
            own("attn_v", &[HIDDEN, keys]),
            own("attn_output", &[HIDDEN, HIDDEN]),
            own("ffn_norm", &[HIDDEN]),
            own("ffn_gate_inp", &[HIDDEN, EXPERTS]),
            own("ffn_gate_exps", &[HIDDEN, INNER, EXPERTS]),
            own("ffn_up_exps", &[HIDDEN, INNER, EXPERTS]),
            own("ffn_down_exps", &[INNER, HIDDEN, EXPERTS]),
        ]);
    }
    plans
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    let mut number = |key: &str, value: u64| {
        metadata.set(format!("llama.{key}"), Value::U32(value as u32));
    };
    number("block_count", BLOCKS);
    number("context_length", 2048);
    number("embedding_length", HIDDEN);
    number("feed_forward_length", INNER);
    number("attention.head_count", HEADS);
    number("attention.head_count_kv", HEADS_KV);
    number("rope.dimension_count", HIDDEN / HEADS);
    number("expert_count", EXPERTS);
    number("expert_used_count", u64::from(EXPERTS_USED));
    number("vocab_size", VOCABULARY);
    metadata.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    metadata.set("general.architecture", text("llama"));
    metadata.set("tokenizer.ggml.model", text("llama"));
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let words = (259..VOCABULARY).map(|number| format!("t{number}"));
    let tokens: Vec<Text> = ["<unk>", "<s>", "</s>"]
        .map(str::to_owned)
        .into_iter()
        .chain(bytes)
        .chain(words)
        .map(|token| Text::from_bytes(token.into_bytes()))
        .collect();
    let kinds = (0..VOCABULARY as i32).map(|token| match token {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    });
    metadata.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    let scores = vec![0.0; VOCABULARY as usize];
    metadata.set("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    metadata.set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds.collect())));
    metadata.set("tokenizer.ggml.bos_token_id", Value::U32(1));
    metadata.set("tokenizer.ggml.eos_token_id", Value::U32(2));
    metadata
}

fn text(text: &str) -> Value {
    Value::String(Text::from_bytes(text.as_bytes().to_vec()))
}

/// Numbers from a seed (xorshift*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Nearly normal: twelve uniform numbers.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() % 65536) as f32 / 65536.0).sum::<f32>() - 6.0
    }
}
