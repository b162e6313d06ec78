//! Files that llama.cpp would abort on, hang on or misread: refused before it sees them.

use nfl_models::gguf::{Array, Metadata, TensorInfo, Text, Value};
use nfl_models::preflight::{Warning, check};
use nfl_models::{Hint, TensorType};

use crate::builder::small_llama;

/// A small honest model, changed by the test.
fn outcome(
    experts: u32,
    change: impl FnOnce(&mut Metadata, &mut Vec<TensorInfo>),
) -> Result<Vec<Warning>, String> {
    let (mut metadata, plans) = small_llama(experts);
    let mut tensors: Vec<TensorInfo> = plans
        .into_iter()
        .map(|plan| TensorInfo {
            name: plan.name,
            dimensions: plan.dimensions,
            tensor_type: plan.tensor_type,
            offset: 0,
            shard: 0,
        })
        .collect();
    change(&mut metadata, &mut tensors);
    check(&metadata, &tensors).map_err(|refusal| {
        assert!(refusal.hint().is_some());
        refusal.to_string()
    })
}

/// Sets one entry of an otherwise honest model.
fn with(experts: u32, key: &str, value: impl Into<Value>) -> Result<Vec<Warning>, String> {
    outcome(experts, |metadata, _| metadata.set(key, value))
}

#[track_caller]
fn refused(result: Result<Vec<Warning>, String>, expected: &str) {
    let message = result.expect_err(expected);
    assert!(message.contains(expected), "{message:?}, not {expected:?}");
}

#[test]
fn honest_models_pass() {
    assert_eq!(outcome(0, |_, _| ()), Ok(Vec::new()));
    assert_eq!(outcome(4, |_, _| ()), Ok(Vec::new()));
    assert_eq!(with(4, "llama.expert_used_count", vec![2_u32, 2]), Ok(Vec::new()));
    assert_eq!(with(0, "llama.attention.head_count_kv", vec![2_u32, 4]), Ok(Vec::new()));
}

/// The assertions of llama.cpp's `load_hparams`, and case 11.
#[test]
fn sizes_that_llama_cpp_aborts_on() {
    refused(with(0, "llama.block_count", 0_u32), "llama.block_count: 0 (1 to 512");
    refused(with(0, "llama.block_count", 4_000_000_000_u32), "llama.block_count: 4000000000");
    refused(with(0, "llama.block_count", -1_i32), "llama.block_count is no unsigned number");
    refused(with(0, "llama.embedding_length", 0_u32), "llama.embedding_length: 0");
    refused(with(0, "llama.context_length", u32::MAX), "llama.context_length: 4294967295");
    refused(with(0, "llama.nextn_predict_layers", 3_u32), "nextn_predict_layers: 3 (0 to 2");
    refused(with(0, "llama.attention.head_count", 0_u32), "head_count: 0");
    refused(with(0, "llama.attention.head_count_kv", 0_u32), "head_count_kv: 0");
    refused(with(0, "llama.attention.head_count_kv", 3_u32), "must divide the 4 heads");
    refused(with(0, "llama.attention.value_length", 4_u32), "must be that of the keys");
    refused(with(0, "llama.rope.dimension_count", 7_u32), "must be even");
    refused(with(0, "llama.rope.scaling.type", "cubic"), "rope.scaling.type: cubic");
    refused(with(0, "llama.rope.scaling.type", 1_u32), "rope.scaling.type");
    for epsilon in [-1.0, f32::NAN, f32::INFINITY] {
        refused(with(0, "llama.attention.layer_norm_rms_epsilon", epsilon), "must be zero or more");
    }
}

#[test]
fn experts_that_llama_cpp_aborts_on() {
    refused(with(4, "llama.expert_count", 1_000_000_000_u32), "llama.expert_count: 1000000000");
    refused(with(4, "llama.expert_used_count", 99_u32), "99 (there are 4 experts)");
    refused(with(4, "llama.expert_used_count", 0_u32), "at least 1 of 4");
    refused(with(0, "llama.expert_used_count", 2_u32), "2 (there are 0 experts)");
    refused(with(4, "llama.expert_used_count", vec![2_u32, 3]), "must be one for all blocks");
    refused(with(0, "llama.expert_group_count", 2_u32), "there are no experts");
    refused(with(4, "llama.expert_group_count", 4_u32), "less than the 4 experts");
    refused(with(4, "llama.expert_group_count", 3_u32), "must divide the 4 experts");
    refused(with(4, "llama.expert_group_count", 2_u32), "expert_group_used_count: missing");
    let groups = |used: u32| {
        outcome(4, |metadata, _| {
            metadata.set("llama.expert_group_count", 2_u32);
            metadata.set("llama.expert_group_used_count", used);
        })
    };
    refused(groups(0), "expert_group_used_count: 0");
    refused(groups(2), "expert_group_used_count: 2");
    assert_eq!(groups(1), Ok(Vec::new()));
}

#[test]
fn lists_of_used_experts_are_for_nemotron_h() {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "nemotron_h_moe");
    metadata.set("nemotron_h_moe.context_length", 512_u32);
    metadata.set("nemotron_h_moe.expert_count", 8_u32);
    metadata.set("nemotron_h_moe.expert_used_count", vec![0_u32, 4, 2]);
    assert!(check(&metadata, &[]).is_ok());
}

/// A recurrent model of another architecture has no heads, and is none of our business beyond that.
#[test]
fn other_architectures_pass() {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "mamba");
    metadata.set("mamba.block_count", 24_u32);
    metadata.set("mamba.context_length", 1_048_576_u32);
    metadata.set("mamba.attention.head_count", 0_u32);
    assert_eq!(check(&metadata, &[]), Ok(Vec::new()));
}

#[test]
fn tensors_that_llama_cpp_aborts_on() {
    let typed = |name: &'static str, tensor_type| {
        outcome(0, |_, tensors| {
            let tensor = tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
            tensor.tensor_type = tensor_type;
        })
    };
    refused(typed("blk.0.attn_norm.weight", TensorType::F16), "is F16 (must be F32)");
    refused(typed("blk.0.attn_q.weight", TensorType::Q8_1), "is Q8_1 (a type that ggml");
    refused(typed("blk.0.attn_q.weight", TensorType::I32), "is I32 (a type that ggml");
    refused(with(0, "general.alignment", 8_u32), "general.alignment: 8 (must be a multiple of 32)");
    assert_eq!(with(0, "general.alignment", 4096_u32), Ok(Vec::new()));
    assert_eq!(typed("blk.0.attn_q.weight", TensorType::Q8_0), Ok(Vec::new()));
    refused(outcome(0, |_, tensors| tensors[3].dimensions[0] = 0), "tensor without elements");
    refused(
        outcome(4, |_, tensors| tensors[9].name = "blk.0.ffn_gate.0.weight".to_owned()),
        "one tensor for each expert",
    );
}

/// Case 20, as far as it concerns models: an adapter is none.
#[test]
fn what_is_no_model_is_refused() {
    refused(with(0, "general.type", "adapter"), "not a model of its own: adapter");
    refused(with(0, "general.architecture", "clip"), "image projector");
    refused(
        outcome(0, |metadata, _| drop(metadata.remove("general.architecture"))),
        "no architecture",
    );
}

fn tokens_changed(change: impl FnOnce(&mut Vec<Text>)) -> Result<Vec<Warning>, String> {
    outcome(0, |metadata, _| {
        let key = "tokenizer.ggml.tokens";
        let mut tokens = metadata.array(key).and_then(Array::as_texts).unwrap().to_vec();
        change(&mut tokens);
        metadata.set(key, tokens);
    })
}

/// Case 12, and the vocabulary of case 11.
#[test]
fn tokens() {
    refused(
        tokens_changed(|tokens| tokens[5] = "a".into()),
        "tokens 5 and 259 are the same: \"a\"",
    );
    // llama.cpp sees only what is before the zero.
    refused(tokens_changed(|tokens| tokens[5] = "a\0b".into()), "tokens 5 and 259 are the same");
    let warnings = tokens_changed(|tokens| tokens[259] = "b\0c".into()).unwrap();
    assert_eq!(warnings, [Warning::ZeroBytes { first: 259, count: 1 }]);
    let warnings = tokens_changed(|tokens| tokens[5] = "word".into()).unwrap();
    assert_eq!(warnings, [Warning::NoByteTokens { missing: 1 }]);
    refused(
        tokens_changed(|tokens| {
            tokens[5] = "[EMPTY_7]".into();
            tokens[7] = "".into();
        }),
        "tokens 5 and 7 are the same",
    );
    let strange = Text::from_bytes([0xC0, 0xFF, 0x80]);
    assert_eq!(tokens_changed(|tokens| tokens[259] = strange), Ok(Vec::new()));
    let long = Text::from("long".repeat(1 << 18));
    assert_eq!(tokens_changed(|tokens| tokens[259] = long), Ok(Vec::new()));
    refused(
        tokens_changed(|tokens| drop(tokens.pop())),
        "259 tokens, 260 rows of token_embd.weight",
    );
    refused(
        with(0, "tokenizer.ggml.scores", vec![0_f32; 259]),
        "scores: 259 entries for 260 tokens",
    );
    refused(with(0, "tokenizer.ggml.token_type", vec![1_i32; 9]), "token_type: 9 entries");
    refused(with(0, "tokenizer.ggml.tokens", vec![1_i32; 260]), "is no list of strings");
}

#[test]
fn special_tokens() {
    let warnings = with(0, "tokenizer.ggml.bos_token_id", 1_000_u32).unwrap();
    let key = "tokenizer.ggml.bos_token_id";
    assert_eq!(warnings, [Warning::SpecialToken { key, id: 1_000, tokens: 260 }]);
    assert!(warnings[0].to_string().contains("only 260 tokens"));
    // -1 as an unsigned number: no such token.
    assert_eq!(with(0, "tokenizer.ggml.padding_token_id", u32::MAX), Ok(Vec::new()));
    let unknown = outcome(0, |metadata, _| {
        metadata.set("tokenizer.ggml.model", "t5");
        metadata.set("tokenizer.ggml.add_bos_token", true);
    });
    refused(unknown, "add_bos_token asks for a token that the vocabulary lacks");
}

/// Case 13.
#[test]
fn merges() {
    let with_merges = |merges: &[&str]| {
        let merges: Vec<Text> = merges.iter().map(|text| Text::from(*text)).collect();
        outcome(0, |metadata, tensors| {
            let tokens: Vec<Text> = ["a", "b", "ab", "Ġ", "Ġa", "c", " d", "e", "f", "g", "h", "i"]
                .map(Text::from)
                .to_vec();
            tensors
                .retain(|tensor| !tensor.name.contains("embd") && tensor.name != "output.weight");
            metadata.set("tokenizer.ggml.model", "gpt2");
            metadata.set("tokenizer.ggml.scores", vec![0_f32; 12]);
            metadata.set("tokenizer.ggml.tokens", tokens);
            metadata.set("tokenizer.ggml.merges", merges);
        })
    };
    assert_eq!(with_merges(&["a b", "Ġ a", "  d"]), Ok(Vec::new()));
    refused(with_merges(&["a b", "a c"]), "merge 1 gives no token: \"a c\"");
    refused(with_merges(&["ab"]), "merge 0 gives no token");
    refused(with_merges(&[""]), "merge 0 gives no token");
}
