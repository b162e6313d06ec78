//! Generated checkpoints: readable, reproducible, complete or absent.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use nfl_converters::checkpoint::{Checkpoint, SourceTensor, SourceType};
use nfl_converters::seeded::{Overrides, Seed, SeededError, WeightType, generate};
use nfl_models::Hint;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::checkpoint_support::{Draft, material};

const MIXTRAL: &str = r#"{"architectures": ["MixtralForCausalLM"], "hidden_size": 128,
    "intermediate_size": 448, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_local_experts": 4, "vocab_size": 400}"#;

fn go_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// For what must be refused: should it not be, a full model is not written after all.
fn stop(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Break(())
}

/// sha256 of every file of a directory.
fn digests(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let digest = Sha256::digest(fs::read(entry.path()).unwrap());
            (entry.file_name().into_string().unwrap(), digest.to_vec())
        })
        .collect()
}

#[test]
fn real_configs_of_the_three_families_give_checkpoints_of_their_shape() {
    let Some(configs) = material("checkpoints/configs") else { return };
    let overrides = Overrides {
        layers: Some(1),
        hidden: Some(256),
        experts: None,
        vocabulary: Some(300),
        ..Overrides::default()
    };
    let seed = Seed { overrides, ..Seed::default() };
    let draft = Draft::empty();
    for name in [
        "Llama-3.1-8B",
        "Mixtral-8x7B-v0.1",
        "codellama_34b",
        "llama2_70b",
        "llama2_7b",
        "llama3_2_1b",
        "mistral_7b",
        "mistral_7b_v03",
        "smollm2_135m",
        "tinyllama_1b_chat_v1.0",
    ] {
        let target = draft.path().join(name);
        let config = configs.join(format!("{name}.json"));
        let made = generate(&config, &target, &seed, &mut go_on).unwrap();
        let checkpoint = Checkpoint::open(&target).unwrap();
        assert_eq!(checkpoint.tensors().count(), made.tensors, "{name}");
        let elements: u64 = checkpoint.tensors().map(SourceTensor::elements).sum();
        assert_eq!(elements, made.parameters, "{name}");
        let config = checkpoint.config();
        let hidden = config.u64("hidden_size").unwrap();
        let heads = config.u64("num_attention_heads").unwrap();
        let length = config.optional_u64("head_dim").unwrap().unwrap_or(hidden / heads);
        let query = checkpoint.tensor("model.layers.0.self_attn.q_proj.weight").unwrap();
        assert_eq!(query.shape, [heads * length, hidden], "{name}");
        let embedding = checkpoint.tensor("model.embed_tokens.weight").unwrap();
        assert_eq!(embedding.shape, [300, hidden], "{name}");
        let is_tied = config.bool("tie_word_embeddings").unwrap();
        assert_eq!(checkpoint.tensor("lm_head.weight").is_none(), is_tied, "{name}");
        assert_eq!(config.u64("bos_token_id").unwrap(), 1, "{name}");
    }
    let other = configs.join("gpt2.json");
    let error = generate(&other, &draft.path().join("gpt2"), &seed, &mut go_on).unwrap_err();
    assert!(matches!(error, SeededError::Family { .. }), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let draft = Draft::empty().with("config.json", MIXTRAL.as_bytes());
    let config = draft.path().join("config.json");
    let make = |name: &str, number: u64, threads: usize| {
        let seed = Seed { seed: number, dtype: WeightType::F16, ..Seed::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let target = draft.path().join(name);
        pool.install(|| generate(&config, &target, &seed, &mut go_on)).unwrap();
        digests(&target)
    };
    let one = make("one", 5, 1);
    assert_eq!(one, make("three", 5, 3));
    assert_ne!(one["model.safetensors"], make("other", 6, 3)["model.safetensors"]);
}

#[test]
fn shards_hold_the_same_tensors_as_one_file_and_the_crate_reads_them() {
    let draft = Draft::empty().with("config.json", MIXTRAL.as_bytes());
    let one = Seed { dtype: WeightType::F32, ..Seed::default() };
    let many = Seed { shard_bytes_max: 300_000, ..one.clone() };
    let (single, sharded) = (draft.path().join("single"), draft.path().join("sharded"));
    assert_eq!(generate(draft.path(), &single, &one, &mut go_on).unwrap().shards, 1);
    let made = generate(draft.path(), &sharded, &many, &mut go_on).unwrap();
    assert!(made.shards > 5, "{}", made.shards);
    let (single, checkpoint) =
        (Checkpoint::open(&single).unwrap(), Checkpoint::open(&sharded).unwrap());
    assert_eq!(checkpoint.tensors().count(), made.tensors);
    for path in checkpoint.shard_paths() {
        let bytes = fs::read(path).unwrap();
        let judge = SafeTensors::deserialize(&bytes).unwrap();
        let data: usize = judge.iter().map(|(_, view)| view.data().len()).sum();
        assert!(data <= 300_000 || judge.len() == 1, "{}: {data}", path.display());
        for (name, view) in judge.iter() {
            assert_eq!(single.raw(single.tensor(name).unwrap()), view.data(), "{name}");
        }
    }
}

#[test]
fn values_have_the_spread_of_their_matrix_and_norms_are_one() {
    let draft = Draft::empty().with("config.json", MIXTRAL.as_bytes());
    let target = draft.path().join("made");
    let seed = Seed { dtype: WeightType::F32, router_sharpness: 8.0, ..Seed::default() };
    generate(draft.path(), &target, &seed, &mut go_on).unwrap();
    let checkpoint = Checkpoint::open(&target).unwrap();
    for tensor in checkpoint.tensors() {
        assert_eq!(tensor.dtype, SourceType::F32);
        let mut values = vec![0.0; tensor.elements() as usize];
        checkpoint.read_f32(tensor, 0, &mut values).unwrap();
        if tensor.name.contains("norm") {
            assert!(values.iter().all(|&value| value.to_bits() == 1_f32.to_bits()));
            continue;
        }
        let columns = *tensor.shape.last().unwrap() as f64;
        let sharpness = if tensor.name.ends_with("moe.gate.weight") { 8.0 } else { 1.0 };
        let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let found = (squares / values.len() as f64).sqrt() * columns.sqrt() / sharpness;
        // Within five standard errors of a sample of that size.
        let tolerance = 5.0 / (2.0 * values.len() as f64).sqrt();
        assert!((found - 1.0).abs() < tolerance, "{}: {found}", tensor.name);
    }
}

#[test]
fn nothing_is_left_behind_when_it_is_stopped_or_refused() {
    let draft = Draft::empty().with("config.json", MIXTRAL.as_bytes());
    let target = draft.path().join("made");
    let mut calls = 0;
    let error = generate(draft.path(), &target, &Seed::default(), &mut |done, total| {
        calls += 1;
        assert!(done <= total);
        if done * 2 > total { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(error, Err(SeededError::Stopped)) && calls > 1);
    fs::write(&target, b"mine").unwrap();
    let error = generate(draft.path(), &target, &Seed::default(), &mut go_on).unwrap_err();
    assert!(matches!(error, SeededError::Exists { .. }) && error.hint().is_some());
    assert_eq!(fs::read(&target).unwrap(), b"mine");
    fs::remove_file(&target).unwrap();
    let empty = Draft::empty();
    let seed = Seed { tokenizer: Some(empty.path().to_path_buf()), ..Seed::default() };
    let error = generate(draft.path(), &target, &seed, &mut go_on).unwrap_err();
    assert!(matches!(error, SeededError::NoTokenizer { .. }) && error.hint().is_some());
    let overrides = Overrides { vocabulary: Some(200), ..Overrides::default() };
    let seed = Seed { overrides, ..Seed::default() };
    let error = generate(draft.path(), &target, &seed, &mut go_on).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vocab_size: 200, expected at least 259 for a made-up vocabulary with all bytes"
    );
    assert_eq!(digests(draft.path()).keys().collect::<Vec<_>>(), ["config.json"]);
}

#[test]
fn case_31_configs_with_impossible_numbers_are_refused() {
    for (text, message) in [
        (r#"{"model_type":"llama","num_hidden_layers":-1}"#, "num_hidden_layers: -1"),
        (r#"{"model_type":"llama","num_hidden_layers":4000000000}"#, "num_hidden_layers: 4000"),
        (r#"{"model_type":"llama","hidden_size":18446744073709551615}"#, "hidden_size: 1844"),
        (r#"{"model_type":"llama","num_attention_heads":0}"#, "num_attention_heads: 0"),
        (r#"{"model_type":"llama","num_key_value_heads":64}"#, "num_key_value_heads: 64"),
        (r#"{"model_type":"llama","num_key_value_heads":5}"#, "num_key_value_heads: 5"),
        (r#"{"model_type":"llama","head_dim":3}"#, "head_dim: 3"),
        (r#"{"model_type":"mixtral","num_local_experts":1000000000}"#, "num_local_experts: 1000"),
        (r#"{"model_type":"mixtral","num_experts_per_tok":0}"#, "num_experts_per_tok: 0"),
        (r#"{"model_type":"llama","vocab_size":1e300}"#, "vocab_size: 1e"),
        (r#"{"architectures":[]}"#, "architectures"),
        (r#"{"architectures":"LlamaForCausalLM"}"#, "architectures"),
        ("[]", "expected an object"),
    ] {
        let draft = Draft::empty().with("config.json", text.as_bytes());
        let target = draft.path().join("made");
        let error = generate(draft.path(), &target, &Seed::default(), &mut stop).unwrap_err();
        assert!(error.to_string().contains(message), "{text}: {error}");
        assert!(!target.exists());
    }
}

#[test]
fn a_tokenizer_is_copied_when_one_is_given() {
    let Some(source) = material("derived/stories260K-hf-llama") else { return };
    let draft = Draft::empty();
    let target = draft.path().join("made");
    let overrides = Overrides { layers: Some(1), ..Overrides::default() };
    let seed = Seed { tokenizer: Some(source.clone()), overrides, ..Seed::default() };
    generate(&source, &target, &seed, &mut go_on).unwrap();
    let copied = fs::read(target.join("tokenizer.model")).unwrap();
    assert_eq!(copied, fs::read(source.join("tokenizer.model")).unwrap());
    assert_eq!(Checkpoint::open(&target).unwrap().config().u64("vocab_size").unwrap(), 512);
}
