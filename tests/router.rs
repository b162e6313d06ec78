//! Router choice, proven: the engine and a plain f64 implementation take the same experts and reach the same logits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nfl::engine::llama::{AbortFlag, Backend, Context, Model, Observer, TensorView, Token};
use nfl::engine::options::{CacheType, ContextOptions, FlashAttention, ModelOptions};

use crate::fixture;
use crate::judge::mixtral::Mixtral;

const TOKENS: usize = 96;

/// Experts of `[layer][position]`, as the engine chose them.
type Choices = BTreeMap<usize, Vec<Vec<usize>>>;

struct ChoiceObserver {
    choices: Arc<Mutex<Choices>>,
}

fn layer_of(tensor: TensorView<'_>) -> Option<usize> {
    tensor.name().strip_prefix("ffn_moe_topk-")?.parse().ok()
}

impl Observer for ChoiceObserver {
    fn wants(&mut self, tensor: &TensorView<'_>) -> bool {
        layer_of(*tensor).is_some()
    }

    fn observe(&mut self, tensor: &TensorView<'_>) -> bool {
        let layer = layer_of(*tensor).unwrap();
        let used = tensor.dimensions()[0] as usize;
        let experts = tensor.integers().unwrap();
        let rows = experts
            .chunks_exact(used)
            .map(|row| row.iter().map(|&expert| expert as usize).collect());
        self.choices.lock().unwrap().entry(layer).or_default().extend(rows);
        true
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// A Mixtral of 8 experts, 2 used, with a router whose choices have clear margins.
fn sharp_mixtral(folder: &std::path::Path) -> std::path::PathBuf {
    let config = folder.join("config.json");
    std::fs::write(
        &config,
        r#"{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 64,
            "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
            "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 400, "rope_theta": 1000000.0,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "hidden_act": "silu", "sliding_window": null,
            "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}"#,
    )
    .unwrap();
    let checkpoint = folder.join("sharp-mixtral");
    let arguments = ["synthesize", fixture::text(&config), "--output", fixture::text(&checkpoint)];
    let options = ["--seed", "2024", "--dtype", "f32", "--router-sharpness", "8", "--quiet"];
    fixture::nfl(&[&arguments[..], &options[..]].concat()).expect_success();
    checkpoint
}

#[test]
fn the_engine_takes_the_same_experts_and_reaches_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = sharp_mixtral(folder.path());
    let file = fixture::convert(&checkpoint, "f32", folder.path()).remove(0);
    let tokens: Vec<usize> = (0..TOKENS).map(|i| (i * i * 31 + i * 7 + 1) % 400).collect();
    let verdict = Mixtral::open(&checkpoint).judge(&tokens);
    // Rounding to f32 moves the router's logits by about 1e-5: with this margin the choice is not the rounding's.
    let margin = verdict.margin_min;
    assert!(margin > 1e-3, "the router is not sharp: margin {margin}");

    let choices: Arc<Mutex<Choices>> = Arc::default();
    let observer = Box::new(ChoiceObserver { choices: Arc::clone(&choices) });
    let model =
        Model::load(Backend::get(), &file, &ModelOptions::default(), &mut |_| true).unwrap();
    let options = ContextOptions {
        key_type: CacheType::F32,
        value_type: CacheType::F32,
        flash_attention: FlashAttention::Off,
        ..ContextOptions::with_threads(2)
    };
    let mut context =
        Context::new(&model, &options, 512, AbortFlag::default(), Some(observer)).unwrap();
    let ids: Vec<Token> = tokens.iter().map(|&token| token as Token).collect();
    context.decode(&ids, 0).unwrap();

    let mut difference_max = 0.0_f64;
    for (position, expected) in verdict.logits.iter().enumerate() {
        let logits = context.logits(position).unwrap();
        assert_eq!(logits.len(), expected.len());
        for (logit, expected) in logits.iter().zip(expected) {
            difference_max = difference_max.max((f64::from(*logit) - expected).abs());
        }
    }
    assert!(difference_max < 1e-3, "logits differ by {difference_max}");

    let choices = choices.lock().unwrap();
    assert_eq!(choices.len(), verdict.experts.len(), "layers with a router");
    for (layer, expected) in verdict.experts.iter().enumerate() {
        assert_eq!(&choices[&layer], expected, "experts of layer {layer}");
    }
    // A judge that sees one pair only would prove little: the choices must vary.
    let pairs: std::collections::BTreeSet<&Vec<usize>> = verdict.experts.iter().flatten().collect();
    assert!(pairs.len() > 20, "only {} different pairs of experts", pairs.len());
}
