//! The planner over a grid of real shapes and machines.

use std::path::Path;

use nfl_converters::Outline;
use nfl_models::footprint::Cache;
use nfl_models::{Footprint, Level, Role};

use super::compute::{Behind, Graph, compute_bytes, gpu_compute_bytes};
use super::*;
use crate::engine::options::{CPU, CacheType};

const GIB: u64 = 1 << 30;

/// Mixtures, and dense models from 1 to 70 thousand million weights.
const SHAPES: [&str; 11] = [
    "mixtral-8x7b-instruct/config.json",
    "configs/Qwen3-30B-A3B.json",
    "gpt-oss-20b/config.json",
    "configs/deepseek_v2_lite.json",
    "granite-3.1-1b-a400m/config.json",
    "configs/llama3_2_1b.json",
    "configs/qwen2.5_3b.json",
    "configs/Llama-3.1-8B.json",
    "configs/gemma2_9b.json",
    "configs/llama2_13b.json",
    "configs/llama3_1_70b.json",
];

pub(super) fn footprint(name: &str, level: Level) -> Option<Footprint> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/material/checkpoints");
    if !folder.join(name).exists() {
        eprintln!("skipped: no material at checkpoints/{name}");
        return None;
    }
    Some(Outline::read(&folder.join(name)).unwrap().footprint(level).unwrap())
}

pub(super) fn machine(gpus: &[u64], memory: u64) -> Machine {
    let card = |(index, bytes): (usize, &u64)| {
        Gpu::with_free(format!("GPU{index}"), "card".to_owned(), *bytes)
    };
    Machine {
        gpus: gpus.iter().enumerate().map(card).collect(),
        memory: MainMemory::installed(memory),
    }
}

/// "As many whole layers as fit", with the same context, cache and micro-batch: what each token
/// reads from main memory then. Written out anew, so that the planner does not judge itself.
fn naive_slow_bytes(footprint: &Footprint, machine: &Machine, plan: &Plan) -> u64 {
    let shape = footprint.shape();
    let cache = Cache {
        context_tokens: plan.context_tokens.into(),
        micro_batch_tokens: plan.micro_batch_tokens.into(),
        sequences: 1,
        key: plan.key_type.tensor_type(),
        value: plan.value_type.tensor_type(),
    };
    let graph = Graph {
        context_tokens: plan.context_tokens.into(),
        micro_batch_tokens: plan.micro_batch_tokens.into(),
        sequences: 1,
        fused: true,
    };
    let kv = |block: u32| footprint.kv_block_bytes(block, &cache).unwrap();
    let role = if shape.tied_output { Role::TokenEmbedding } else { Role::Output };
    let output = footprint.role_bytes(role) + footprint.role_bytes(Role::OutputNorm);
    let read = |block: u32| {
        let weights = footprint.weights().iter().filter(|weight| weight.block == Some(block));
        weights.map(|weight| footprint.read_bytes(weight)).sum::<u64>() + kv(block)
    };
    let total = footprint.bytes_per_token() + (0..shape.blocks).map(kv).sum::<u64>();
    let Some(gpu) = machine.gpus.first() else { return total };
    // What stays behind is copied to the card in turn, and needs room there.
    let blocks = footprint.weights().iter().filter(|weight| weight.block.is_some());
    let behind = Behind {
        weights_bytes: blocks.map(|weight| weight.bytes).max().unwrap(),
        output_bytes: 0,
        cache_bytes: (0..shape.blocks).map(kv).max().unwrap(),
    };
    let whole = output
        + (0..shape.blocks).map(|block| footprint.block_bytes(block) + kv(block)).sum::<u64>();
    let usable = |behind: &Behind| {
        let slack = compute_bytes(shape, &graph) / 8;
        gpu.usable_bytes().saturating_sub(gpu_compute_bytes(shape, &graph, behind) + slack)
    };
    let usable = if whole <= usable(&Behind::default()) { whole } else { usable(&behind) };
    let (mut used, mut fast) = (output, output);
    if used > usable {
        return total;
    }
    for block in (0..shape.blocks).rev() {
        let needed = footprint.block_bytes(block) + kv(block);
        if used + needed > usable {
            break;
        }
        used += needed;
        fast += read(block);
    }
    // A tied embedding is copied to the GPU as output; a token's row is still read in memory.
    let row = footprint.role_bytes(Role::TokenEmbedding) / shape.vocabulary;
    total.saturating_sub(fast) + if shape.tied_output { row } else { 0 }
}

/// What holds of every plan.
fn check(footprint: &Footprint, machine: &Machine, plan: &Plan) {
    for device in &plan.devices {
        assert!(
            device.used_bytes() <= device.capacity_bytes - device.margin_bytes,
            "{} is overcommitted: {device:?}",
            device.name
        );
    }
    let shape = footprint.shape();
    let copied = if shape.tied_output && plan.gpu_layers > 0 {
        footprint.role_bytes(Role::TokenEmbedding)
    } else {
        0
    };
    let weights: u64 = plan.devices.iter().map(|device| device.weights_bytes).sum();
    assert_eq!(weights + plan.streamed_bytes, footprint.weights_bytes() + copied);
    let cache = Cache {
        context_tokens: plan.context_tokens.into(),
        micro_batch_tokens: plan.micro_batch_tokens.into(),
        sequences: 1,
        key: plan.key_type.tensor_type(),
        value: plan.value_type.tensor_type(),
    };
    let kept: u64 = plan.devices.iter().map(|device| device.cache_bytes).sum();
    assert_eq!(kept, footprint.kv_bytes(&cache).unwrap());
    assert_eq!(plan.devices.len(), machine.gpus.len() + 1);
    assert_eq!(plan.split.iter().sum::<u32>(), plan.gpu_layers);
    assert!(plan.decisions.iter().all(|decision| !decision.why.is_empty()));
    assert!(plan.disk_bytes_per_token <= plan.slow_bytes_per_token);
    let exact = [CacheType::F16, CacheType::Q8_0];
    assert!(exact.contains(&plan.key_type) && exact.contains(&plan.value_type));
}

#[test]
fn plans_add_up_fit_and_beat_whole_layers() {
    let (mut planned, mut better) = (0, 0);
    for name in SHAPES {
        let Some(footprint) = footprint(name, Level::Q4_K_M) else { return };
        for gpu in [0, 6, 8, 12, 16, 24] {
            for memory in [8, 16, 32, 64] {
                for context_tokens in [None, Some(8192), Some(32_768)] {
                    let gpus = [gpu * GIB];
                    let gpus = if gpu == 0 { &[][..] } else { &gpus[..] };
                    let machine = machine(gpus, memory * GIB);
                    let wishes = Wishes { context_tokens, ..Wishes::default() };
                    let place = format!("{name}, {gpu} GiB, {memory} GiB, {context_tokens:?}");
                    let plan = match plan(&footprint, &machine, &wishes) {
                        Ok(plan) => plan,
                        Err(error) => {
                            let text = error.to_string();
                            assert!(
                                context_tokens.is_some() && text.contains("GiB"),
                                "{place}: {text}"
                            );
                            continue;
                        }
                    };
                    check(&footprint, &machine, &plan);
                    let naive = naive_slow_bytes(&footprint, &machine, &plan);
                    assert!(
                        plan.slow_bytes_per_token <= naive,
                        "{place}: {} > {naive}",
                        plan.slow_bytes_per_token
                    );
                    planned += 1;
                    better += usize::from(plan.slow_bytes_per_token < naive);
                }
            }
        }
    }
    eprintln!("{planned} planned, {better} better");
    assert!(planned > 600, "{planned}");
    assert!(better > 200, "{better}");
}

#[test]
fn what_is_pinned_stays_and_the_rest_is_planned() {
    let Some(footprint) = footprint(SHAPES[1], Level::Q4_K_M) else { return };
    let machine = machine(&[12 * GIB], 32 * GIB);
    let all_experts = Wishes { cpu_expert_blocks: Some(u32::MAX), ..Wishes::default() };
    let plan_of = |wishes: &Wishes| plan(&footprint, &machine, wishes).unwrap();
    let plan = plan_of(&all_experts);
    check(&footprint, &machine, &plan);
    assert_eq!(plan.gpu_layers, 49);
    assert!(plan.devices[1].weights_bytes >= footprint.experts_bytes());
    let some = plan_of(&Wishes { cpu_expert_blocks: Some(40), ..Wishes::default() });
    assert!(some.slow_bytes_per_token < plan.slow_bytes_per_token);
    let free = plan_of(&Wishes::default());
    assert!(free.slow_bytes_per_token < some.slow_bytes_per_token);

    let layers = plan_of(&Wishes { gpu_layers: Some(20), ..Wishes::default() });
    check(&footprint, &machine, &layers);
    assert_eq!(layers.gpu_layers, 20);

    let pattern = r"blk\.(4[0-7])\.ffn_.*_exps".to_owned();
    let device = "GPU0".to_owned();
    let pinned = plan_of(&Wishes {
        overrides: vec![TensorOverride { pattern: pattern.clone(), device }],
        cpu_expert_blocks: Some(u32::MAX),
        key_type: Some(CacheType::F16),
        value_type: Some(CacheType::Q8_0),
        micro_batch_tokens: Some(256),
        ..Wishes::default()
    });
    check(&footprint, &machine, &pinned);
    assert_eq!(pinned.overrides[0].pattern, pattern);
    assert_eq!((pinned.value_type, pinned.micro_batch_tokens), (CacheType::Q8_0, 256));
    assert!(pinned.slow_bytes_per_token < plan.slow_bytes_per_token);
}

#[test]
fn the_generated_patterns_match_what_was_moved_and_nothing_else() {
    for name in SHAPES {
        let Some(footprint) = footprint(name, Level::Q4_K_M) else { return };
        let machine = machine(&[6 * GIB], 64 * GIB);
        let plan = plan(&footprint, &machine, &Wishes::default()).unwrap();
        let patterns: Vec<regex::Regex> =
            plan.overrides.iter().map(|each| regex::Regex::new(&each.pattern).unwrap()).collect();
        assert!(plan.overrides.iter().all(|each| each.device == CPU));
        // By layers and patterns alone, as llama.cpp will place them.
        let first = footprint.shape().blocks + 1 - plan.gpu_layers;
        let in_memory: u64 = footprint
            .weights()
            .iter()
            .filter(|weight| {
                let layer = weight.block.unwrap_or(match weight.role {
                    Role::TokenEmbedding => 0,
                    _ => footprint.shape().blocks,
                });
                layer < first
                    || weight.role == Role::TokenEmbedding
                    || patterns.iter().any(|pattern| pattern.is_match(&weight.name))
            })
            .map(|weight| weight.bytes)
            .sum();
        assert_eq!(plan.devices[1].weights_bytes + plan.streamed_bytes, in_memory, "{name}");
    }
}

#[test]
fn several_cards_share_the_layers() {
    let Some(footprint) = footprint(SHAPES[10], Level::Q4_K_M) else { return };
    let machine = machine(&[24 * GIB, 12 * GIB], 64 * GIB);
    let plan = plan(&footprint, &machine, &Wishes::default()).unwrap();
    check(&footprint, &machine, &plan);
    assert!(plan.split[0] > plan.split[1] && plan.split[1] > 0, "{:?}", plan.split);
}

#[test]
fn what_cannot_be_is_refused_with_what_could() {
    use nfl_models::Hint;
    let Some(footprint) = footprint(SHAPES[7], Level::Q4_K_M) else { return };
    let refuse = |machine: &Machine, wishes: &Wishes| {
        let error = plan(&footprint, machine, wishes).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    };
    let small = machine(&[], 8 * GIB);
    let long = Wishes { context_tokens: Some(131_072), ..Wishes::default() };
    let (message, hint) = refuse(&small, &long);
    assert!(message.contains("a context of 131072 tokens (f16) needs 16."), "{message}");
    // What is offered does fit.
    assert_eq!(hint.matches("--ctx ").count(), 2, "{hint}");
    let offered = hint.split("--ctx ").last().unwrap();
    let (tokens, rest) = offered.split_once(" --kv ").unwrap();
    let cache: CacheType = rest.parse().unwrap();
    let wishes = Wishes {
        context_tokens: Some(tokens.parse().unwrap()),
        key_type: Some(cache),
        value_type: Some(cache),
        ..Wishes::default()
    };
    check(&footprint, &small, &plan(&footprint, &small, &wishes).unwrap());

    let card = machine(&[6 * GIB], 16 * GIB);
    let all = Wishes {
        gpu_layers: Some(99),
        context_tokens: Some(65_536),
        key_type: Some(CacheType::F16),
        value_type: Some(CacheType::F16),
        ..Wishes::default()
    };
    let (message, hint) = refuse(&card, &all);
    assert!(message.contains("99 layers") && hint.contains("--gpu-layers "), "{message} {hint}");
    let override_ = |pattern: &str, device: &str| Wishes {
        overrides: vec![TensorOverride { pattern: pattern.into(), device: device.into() }],
        ..Wishes::default()
    };
    assert!(refuse(&card, &override_("(", "CPU")).0.contains("tensor override ("));
    assert!(refuse(&card, &override_("x", "GPU7")).1.contains("CPU, GPU0"));
    let locked = Wishes { lock_memory: true, ..Wishes::default() };
    assert!(refuse(&machine(&[], 5 * GIB), &locked).1.contains("--mlock"));
    let endless = Wishes { context_tokens: Some(2_000_000_000), ..Wishes::default() };
    assert!(refuse(&card, &endless).0.contains("2000000000"));
}

/// Bytes of both plans together against the machine's own, over pairs of models and machines.
#[test]
fn a_model_and_its_draft_model_never_overcommit_together() {
    let (mut planned, mut refused) = (0, 0);
    for (large, small) in [
        ("configs/Llama-3.1-8B.json", "configs/llama3_2_1b.json"),
        ("configs/llama3_1_70b.json", "configs/Llama-3.1-8B.json"),
        ("mixtral-8x7b-instruct/config.json", "configs/llama3_2_1b.json"),
        ("configs/Qwen3-30B-A3B.json", "configs/qwen2.5_3b.json"),
    ] {
        let Some(large) = footprint(large, Level::Q4_K_M) else { return };
        let Some(small) = footprint(small, Level::Q4_K_M) else { return };
        for gpus in [&[][..], &[6 * GIB], &[12 * GIB], &[24 * GIB], &[8 * GIB, 12 * GIB]] {
            for (memory, shares) in
                [8, 16, 32, 64].into_iter().flat_map(|m| [(m, false), (m, true)])
            {
                let mut machine = machine(gpus, memory * GIB);
                for gpu in &mut machine.gpus {
                    gpu.shares_memory = shares;
                }
                for context_tokens in [None, Some(512), Some(32_768)] {
                    let wishes = Wishes { context_tokens, ..Wishes::default() };
                    let mut model = |machine: &Machine| plan(&large, machine, &wishes);
                    match plan_with_draft(&small, &machine, &wishes, &mut model) {
                        Ok((model, draft)) => {
                            planned += 1;
                            check_together(&machine, &model, &draft);
                        }
                        Err(error) => {
                            refused += 1;
                            assert!(nfl_models::Hint::hint(&error).is_some(), "{error}");
                        }
                    }
                }
            }
        }
    }
    assert!(planned > 200, "{planned} planned, {refused} refused");
}

fn check_together(machine: &Machine, model: &Plan, draft: &Plan) {
    assert_eq!(model.context_tokens, draft.context_tokens);
    let used = |name: &str| {
        let devices = model.devices.iter().chain(&draft.devices);
        let of_name = devices.filter(|device| device.name == name);
        of_name.map(DevicePlan::used_bytes).sum::<u64>()
    };
    let mut memory = used(CPU);
    for gpu in &machine.gpus {
        assert!(used(&gpu.name) <= gpu.usable_bytes(), "{}: {model:?} {draft:?}", gpu.name);
        memory += if gpu.shares_memory { used(&gpu.name) } else { 0 };
    }
    assert!(memory <= machine.memory.usable_bytes(), "{memory}: {model:?} {draft:?}");
}

#[test]
fn the_reason_for_a_micro_batch_is_the_one_that_holds() {
    let Some(footprint) = footprint("mixtral-8x7b-instruct/config.json", Level::Q4_K_M) else {
        return;
    };
    let why = |gpus: &[u64], memory: u64, context: u32, micro_batch: Option<u32>| {
        let wishes = Wishes {
            context_tokens: Some(context),
            micro_batch_tokens: micro_batch,
            ..Wishes::default()
        };
        let plan = plan(&footprint, &machine(gpus, memory * GIB), &wishes).unwrap();
        let decision = plan.decisions.iter().find(|each| each.what == "micro-batch").unwrap();
        (plan.micro_batch_tokens, decision.why.clone())
    };
    assert_eq!(why(&[12 * GIB], 64, 8192, Some(256)), (256, "asked for".to_owned()));
    let (tokens, reason) = why(&[12 * GIB], 64, 8192, None);
    assert!(tokens > 512 && reason.contains("copied to the GPU"), "{tokens}: {reason}");
    let (tokens, reason) = why(&[12 * GIB], 64, 512, None);
    assert!(tokens == 512 && reason.contains("no room for 1024"), "{tokens}: {reason}");
    let (tokens, reason) = why(&[], 64, 8192, None);
    assert!(tokens == 512 && reason.contains("no weights are copied"), "{tokens}: {reason}");
}
