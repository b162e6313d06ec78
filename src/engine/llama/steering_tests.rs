//! Adapters, control vectors and embeddings against merged weights, biases and products of our own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nfl_models::gguf::{Gguf, Metadata};

use super::tiny::{self, FEED_FORWARD, HIDDEN, LAYERS, Noise, Tensor, VOCABULARY};
use super::{
    AbortFlag, Adapters, Context, Embedder, EmbedderSize, Infill, LlamaError, Model, Token,
    TokenizeOptions, ranking,
};
use crate::engine::embedding::{Pooling, normalize};
use crate::engine::options::ContextOptions;
use crate::engine::steering::{AdapterUse, ControlUse, Steering};

const PROMPT: [Token; 6] = [1, 262, 300, 262, 270, 281];
const RANK: usize = 4;
const ALPHA: f32 = 8.0;

fn logits(context: &mut Context) -> Vec<f32> {
    context.clear();
    context.decode(&PROMPT, PROMPT.len() - 1).unwrap();
    context.logits_of_last().unwrap().to_vec()
}

/// A low-rank pair of a matrix: its name, A, B, the length of a row of A, the rows of B.
type Pair = (String, Vec<f32>, Vec<f32>, usize, usize);

/// A seed, the matrices and the scale of an adapter.
type Merge<'a> = (u64, &'a [&'a str], f32);

fn pairs(seed: u64, names: &[&str]) -> Vec<Pair> {
    let base = tiny::llama_tensors(5);
    let mut noise = Noise(seed);
    names
        .iter()
        .map(|name| {
            let (_, dimensions, _) = base.iter().find(|tensor| tensor.0 == *name).unwrap();
            let (row, rows) = (dimensions[0] as usize, dimensions[1] as usize);
            let a = noise.values(row * RANK, 0.3);
            (name.to_string(), a, noise.values(rows * RANK, 0.3), row, rows)
        })
        .collect()
}

fn adapter_file(folder: &Path, seed: u64, names: &[&str]) -> PathBuf {
    let mut tensors: Vec<Tensor> = Vec::new();
    for (name, a, b, row, rows) in pairs(seed, names) {
        tensors.push((format!("{name}.lora_a"), vec![row as u64, RANK as u64], a));
        tensors.push((format!("{name}.lora_b"), vec![RANK as u64, rows as u64], b));
    }
    let path = folder.join(format!("adapter-{seed}.gguf"));
    tiny::write(&path, &adapter_metadata(), &tensors);
    path
}

fn adapter_metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.type", "adapter");
    metadata.set("general.architecture", "llama");
    metadata.set("adapter.type", "lora");
    metadata.set("adapter.lora.alpha", ALPHA);
    metadata
}

/// The logits of a model whose weights are W + Σ scale·alpha/rank · B·A, computed here.
fn merged_logits(folder: &Path, uses: &[Merge<'_>]) -> Vec<f32> {
    let mut tensors = tiny::llama_tensors(5);
    for (seed, names, scale) in uses {
        for (name, a, b, row, _) in pairs(*seed, names) {
            let (_, _, values) = tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap();
            for (place, value) in values.iter_mut().enumerate() {
                let (output, input) = (place / row, place % row);
                let product: f64 = (0..RANK)
                    .map(|r| f64::from(b[output * RANK + r]) * f64::from(a[r * row + input]))
                    .sum();
                *value += (f64::from(scale * ALPHA / RANK as f32) * product) as f32;
            }
        }
    }
    let path = folder.join("merged.gguf");
    tiny::write(&path, &tiny::llama_metadata(), &tensors);
    logits(&mut tiny::context(&tiny::load(&path)))
}

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn used(path: &Path, scale: f32) -> Steering {
    Steering { adapters: vec![AdapterUse { path: path.to_owned(), scale }], ..Steering::default() }
}

const FIRST: &[&str] =
    &["blk.0.attn_q.weight", "blk.1.ffn_down.weight", "blk.0.attn_output.weight"];
const SECOND: &[&str] = &["blk.0.attn_q.weight", "blk.1.attn_v.weight", "output.weight"];

#[test]
fn adapters_compute_what_merged_weights_compute() {
    let folder = tempfile::tempdir().unwrap();
    let model_path = tiny::llama_file(folder.path(), 5);
    let model = tiny::load(&model_path);
    let mut context = tiny::context(&model);
    let mut adapters = Adapters::new(&model, &model_path);
    let base = logits(&mut context);
    let first = adapter_file(folder.path(), 71, FIRST);
    let second = adapter_file(folder.path(), 72, SECOND);
    let mut with = |steering: &Steering| {
        let steered = adapters.resolve(steering).unwrap();
        adapters.apply(&mut context, &steered).unwrap();
        logits(&mut context)
    };
    let both = Steering {
        adapters: vec![
            AdapterUse { path: first.clone(), scale: 0.5 },
            AdapterUse { path: second.clone(), scale: -1.25 },
        ],
        ..Steering::default()
    };
    let cases: [(Steering, &[Merge<'_>]); 4] = [
        (used(&first, 1.0), &[(71, FIRST, 1.0)]),
        (used(&second, 0.5), &[(72, SECOND, 0.5)]),
        (both.clone(), &[(71, FIRST, 0.5), (72, SECOND, -1.25)]),
        (used(&first, -2.0), &[(71, FIRST, -2.0)]),
    ];
    for (steering, uses) in cases {
        let (found, expected) = (with(&steering), merged_logits(folder.path(), uses));
        let moved = largest_difference(&base, &expected);
        let off = largest_difference(&found, &expected);
        // The cache is F16: that is what differs.
        assert!(moved > 0.1 && off < 0.01 * moved.max(1.0), "{off} of {moved}");
    }
    // Twice at half strength is once at full.
    let halves = Steering {
        adapters: vec![AdapterUse { path: first.clone(), scale: 0.5 }; 2],
        ..Steering::default()
    };
    assert_eq!(with(&halves), with(&used(&first, 1.0)));
    // Without effect, and taken away: the bits of the base.
    with(&both);
    assert_eq!(with(&used(&first, 0.0)), base);
    with(&both);
    assert_eq!(with(&Steering::default()), base);
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model_path = tiny::llama_file(folder.path(), 5);
    let model = tiny::load(&model_path);
    let mut adapters = Adapters::new(&model, &model_path);
    let name = "blk.0.attn_q.weight";
    let matrix = |suffix: &str, dimensions: [u64; 2]| {
        let values = vec![0.1; (dimensions[0] * dimensions[1]) as usize];
        (format!("{name}{suffix}"), dimensions.to_vec(), values)
    };
    let hidden = HIDDEN as u64;
    let good = vec![matrix(".lora_a", [hidden, 2]), matrix(".lora_b", [2, hidden])];
    let metadata = |key: &str, value: nfl_models::gguf::Value| {
        let mut metadata = adapter_metadata();
        metadata.set(key, value);
        metadata
    };
    let text = |value: &str| nfl_models::gguf::Value::from(value);
    let other = |a: Tensor, b: Tensor| (adapter_metadata(), vec![a, b]);
    let cases = [
        (
            metadata("general.type", text("model")),
            good.clone(),
            "general.type is model, not adapter",
        ),
        (
            metadata("general.architecture", text("qwen2")),
            good.clone(),
            "general.architecture is qwen2",
        ),
        (metadata("adapter.type", 7_u32.into()), good.clone(), "adapter.type is no text"),
        (metadata("adapter.lora.alpha", text("8")), good.clone(), "adapter.lora.alpha is no F32"),
        (
            metadata("adapter.lora.alpha", f32::NAN.into()),
            good.clone(),
            "adapter.lora.alpha is no F32",
        ),
        (adapter_metadata(), Vec::new(), "it has no tensors"),
        (adapter_metadata(), good[..1].to_vec(), "has no blk.0.attn_q.weight.lora_b"),
        (
            adapter_metadata(),
            vec![("blk.0.attn_norm.weight".to_owned(), vec![hidden], vec![1.0; HIDDEN])],
            "no part of a low-rank pair",
        ),
    ];
    for (number, (metadata, tensors, problem)) in cases.into_iter().enumerate() {
        let path = folder.path().join(format!("bad-{number}.gguf"));
        tiny::write(&path, &metadata, &tensors);
        let error = adapters.resolve(&used(&path, 1.0)).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    for (number, (metadata, tensors)) in [
        other(matrix(".lora_a", [hidden * 2, 2]), matrix(".lora_b", [2, hidden])),
        other(matrix(".lora_a", [hidden, 2]), matrix(".lora_b", [3, hidden])),
        other(matrix(".lora_a", [hidden, 2]), matrix(".lora_b", [2, hidden / 2])),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("shape-{number}.gguf"));
        tiny::write(&path, &metadata, &tensors);
        let error = adapters.resolve(&used(&path, 1.0)).unwrap_err().to_string();
        assert!(error.contains("with pair"), "{error}");
    }
    for path in [folder.path().join("absent.gguf"), model_path] {
        assert!(matches!(adapters.resolve(&used(&path, 1.0)), Err(LlamaError::Adapter { .. })));
    }
}

/// Adding a direction to a layer's output is what a bias behind its last matrix does.
#[test]
fn control_vectors_add_their_direction() {
    let folder = tempfile::tempdir().unwrap();
    let model_path = tiny::llama_file(folder.path(), 5);
    let direction = Noise(3).values(HIDDEN, 0.5);
    let mut tensors = tiny::llama_tensors(5);
    let scaled: Vec<f32> = direction.iter().map(|value| value * 1.5).collect();
    tensors.push((format!("blk.{}.ffn_down.bias", LAYERS - 1), vec![HIDDEN as u64], scaled));
    let biased_path = folder.path().join("biased.gguf");
    tiny::write(&biased_path, &tiny::llama_metadata(), &tensors);
    let expected = logits(&mut tiny::context(&tiny::load(&biased_path)));

    let vector_path = folder.path().join("vector.gguf");
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "controlvector");
    let tensor = (format!("direction.{}", LAYERS - 1), vec![HIDDEN as u64], direction.clone());
    tiny::write(&vector_path, &metadata, std::slice::from_ref(&tensor));
    let model = tiny::load(&model_path);
    let mut context = tiny::context(&model);
    let mut adapters = Adapters::new(&model, &model_path);
    let base = logits(&mut context);
    let mut with = |uses: &[(f32, Option<(u32, u32)>)]| {
        let controls = uses
            .iter()
            .map(|&(scale, layers)| ControlUse { path: vector_path.clone(), scale, layers })
            .collect();
        let steering = Steering { controls, ..Steering::default() };
        steering.check().unwrap();
        let steered = adapters.resolve(&steering).unwrap();
        adapters.apply(&mut context, &steered).unwrap();
        logits(&mut context)
    };
    let found = with(&[(1.5, None)]);
    assert!(largest_difference(&base, &expected) > 0.1);
    assert!(largest_difference(&found, &expected) < 1e-4);
    assert!(largest_difference(&with(&[(1.0, None), (0.5, Some((1, 1)))]), &expected) < 1e-4);
    assert_eq!(with(&[(1.5, Some((2, 9)))]), base, "no direction lies there");
    assert_eq!(with(&[(0.0, None)]), base);
    with(&[(1.5, None)]);
    assert_eq!(with(&[]), base);

    for (number, tensor) in [
        ("direction.0".to_owned(), vec![HIDDEN as u64], direction.clone()),
        (format!("direction.{LAYERS}"), vec![HIDDEN as u64], direction.clone()),
        ("direction.1".to_owned(), vec![3], vec![0.0; 3]),
        ("other".to_owned(), vec![HIDDEN as u64], direction.clone()),
        ("direction.1".to_owned(), vec![HIDDEN as u64], vec![f32::NAN; HIDDEN]),
    ]
    .iter()
    .enumerate()
    {
        let path = folder.path().join(format!("bad-{number}.gguf"));
        tiny::write(&path, &metadata, std::slice::from_ref(tensor));
        let controls = vec![ControlUse { path, scale: 1.0, layers: None }];
        let steering = Steering { controls, ..Steering::default() };
        assert!(adapters.resolve(&steering).is_err());
    }
}

/// For texts of 64 tokens and a model that ranks, or that does not.
fn try_embedder(model: &Arc<Model>, pooling: Pooling, ranks: bool) -> Result<Embedder, LlamaError> {
    let options = ContextOptions::with_threads(1);
    let size = EmbedderSize { context_tokens: 64, batch_tokens: 64 };
    Embedder::new(model, &options, size, (pooling, ranks), AbortFlag::default())
}

fn embedder(model: &Arc<Model>, pooling: Pooling) -> Embedder {
    try_embedder(model, pooling, pooling == Pooling::Rank).unwrap()
}

fn texts() -> Vec<Vec<Token>> {
    let mut noise = Noise(8);
    (0..12_u64)
        .map(|length| {
            let mut next = || 3 + (noise.next() % (VOCABULARY as u64 - 3)) as Token;
            (0..=length * 2).map(|_| next()).collect()
        })
        .collect()
}

fn close(one: &[f32], other: &[f32]) -> bool {
    largest_difference(one, other) < 2e-3
}

#[test]
fn embeddings_are_the_states_behind_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny::load(&tiny::llama_file(folder.path(), 5));
    let mut single = embedder(&model, Pooling::None);
    let states = single.embed(&[PROMPT.to_vec()]).unwrap().remove(0);
    assert_eq!((states.vectors.len(), states.tokens), (PROMPT.len(), PROMPT.len() as u32));
    // The logits are the product of the last matrix and the state of the last token.
    let tensors = tiny::llama_tensors(5);
    let output = &tensors.iter().find(|tensor| tensor.0 == "output.weight").unwrap().2;
    let product: Vec<f32> = output
        .chunks(HIDDEN)
        .map(|row| row.iter().zip(&states.vectors[PROMPT.len() - 1]).map(|(a, b)| a * b).sum())
        .collect();
    assert!(largest_difference(&product, &logits(&mut tiny::context(&model))) < 2e-2);
    // Pooled, alone or many in a batch.
    let texts = texts();
    let states = single.embed(&texts).unwrap();
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last] {
        let mut many = embedder(&model, pooling);
        assert_eq!((many.pooling(), many.width()), (pooling, HIDDEN));
        for (found, states) in many.embed(&texts).unwrap().iter().zip(&states) {
            let count = states.vectors.len();
            let expected = match pooling {
                Pooling::Cls => states.vectors[0].clone(),
                Pooling::Last => states.vectors[count - 1].clone(),
                _ => (0..HIDDEN)
                    .map(|place| {
                        states.vectors.iter().map(|vector| vector[place]).sum::<f32>()
                            / count as f32
                    })
                    .collect(),
            };
            assert!(close(&found.vectors[0], &expected), "{pooling:?}");
        }
    }
    assert_eq!(single.embed(&[Vec::new()]), Err(LlamaError::EmptyText));
    assert!(matches!(single.embed(&[vec![5; 65]]), Err(LlamaError::ContextFull { .. })));
    assert!(matches!(single.embed(&[vec![-1]]), Err(LlamaError::Token { .. })));
    let refused = try_embedder(&model, Pooling::Rank, false);
    assert_eq!(refused.err(), Some(LlamaError::NoClassifier));
}

const CLASSES: usize = 2;

fn bert_file(folder: &Path) -> (PathBuf, Vec<Tensor>) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "bert");
    for (key, value) in [
        ("context_length", 64),
        ("embedding_length", HIDDEN),
        ("block_count", LAYERS),
        ("feed_forward_length", FEED_FORWARD),
        ("attention.head_count", 4),
        ("pooling_type", 4),
    ] {
        metadata.set(format!("bert.{key}"), value as u32);
    }
    metadata.set("bert.attention.layer_norm_epsilon", 1e-6_f32);
    metadata.set("bert.attention.causal", false);
    metadata.set(
        "bert.classifier.output_labels",
        nfl_models::gguf::Value::Array(nfl_models::gguf::Array::String(vec![
            "no".into(),
            "yes".into(),
        ])),
    );
    tiny::vocabulary(&mut metadata);
    metadata.set("tokenizer.ggml.token_type_count", 2_u32);
    let mut noise = Noise(21);
    let (hidden, inner, words) = (HIDDEN as u64, FEED_FORWARD as u64, VOCABULARY as u64);
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut add = |name: String, dimensions: Vec<u64>, spread: f32| {
        let count = dimensions.iter().product::<u64>() as usize;
        tensors.push((name, dimensions, noise.values(count, spread)));
    };
    add("token_embd.weight".to_owned(), vec![hidden, words], 1.0);
    add("token_types.weight".to_owned(), vec![hidden, 2], 0.1);
    add("position_embd.weight".to_owned(), vec![hidden, 64], 0.5);
    let mut norm = |name: String| {
        add(format!("{name}.weight"), vec![hidden], 1.0);
        add(format!("{name}.bias"), vec![hidden], 0.1);
    };
    norm("token_embd_norm".to_owned());
    for layer in 0..LAYERS {
        norm(format!("blk.{layer}.attn_output_norm"));
        norm(format!("blk.{layer}.layer_output_norm"));
    }
    for layer in 0..LAYERS {
        for (name, row, rows) in [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, hidden),
            ("attn_v", hidden, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_up", hidden, inner),
            ("ffn_down", inner, hidden),
        ] {
            add(format!("blk.{layer}.{name}.weight"), vec![row, rows], 0.3);
            add(format!("blk.{layer}.{name}.bias"), vec![rows], 0.1);
        }
    }
    add("cls.output.weight".to_owned(), vec![hidden, CLASSES as u64], 0.5);
    add("cls.output.bias".to_owned(), vec![CLASSES as u64], 0.5);
    let path = folder.join("bert.gguf");
    tiny::write(&path, &metadata, &tensors);
    (path, tensors)
}

/// The states of a BERT's tokens in double precision, from the paper's formulas.
struct Bert<'a>(&'a [Tensor]);

impl Bert<'_> {
    fn tensor(&self, name: &str) -> Vec<f64> {
        let (_, _, values) = self.0.iter().find(|tensor| tensor.0 == name).unwrap();
        values.iter().map(|value| f64::from(*value)).collect()
    }

    fn linear(&self, name: &str, input: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let weight = self.tensor(&format!("{name}.weight"));
        let bias = self.tensor(&format!("{name}.bias"));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        input
            .iter()
            .map(|x| weight.chunks(x.len()).zip(&bias).map(|(row, b)| dot(row, x) + b).collect())
            .collect()
    }

    fn norm(&self, name: &str, input: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let weight = self.tensor(&format!("{name}.weight"));
        let bias = self.tensor(&format!("{name}.bias"));
        input
            .iter()
            .map(|x| {
                let count = x.len() as f64;
                let mean = x.iter().sum::<f64>() / count;
                let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
                let scale = 1.0 / (variance + 1e-6).sqrt();
                let pairs = weight.iter().zip(&bias);
                x.iter().zip(pairs).map(|(v, (w, b))| (v - mean) * scale * w + b).collect()
            })
            .collect()
    }

    fn attention(&self, layer: usize, input: &[Vec<f64>]) -> Vec<Vec<f64>> {
        const HEADS: usize = 4;
        let length = HIDDEN / HEADS;
        let part = |name: &str| self.linear(&format!("blk.{layer}.attn_{name}"), input);
        let (q, k, v) = (part("q"), part("k"), part("v"));
        let mut mixed = vec![vec![0.0; HIDDEN]; input.len()];
        for head in 0..HEADS {
            let range = head * length..(head + 1) * length;
            for (to, query) in q.iter().enumerate() {
                let scores: Vec<f64> = k
                    .iter()
                    .map(|key| {
                        let pairs = query[range.clone()].iter().zip(&key[range.clone()]);
                        (pairs.map(|(a, b)| a * b).sum::<f64>() / (length as f64).sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = scores.iter().sum();
                for (score, value) in scores.iter().zip(&v) {
                    for place in range.clone() {
                        mixed[to][place] += score / sum * value[place];
                    }
                }
            }
        }
        self.linear(&format!("blk.{layer}.attn_output"), &mixed)
    }

    fn states(&self, tokens: &[Token]) -> Vec<Vec<f64>> {
        let (words, places) =
            (self.tensor("token_embd.weight"), self.tensor("position_embd.weight"));
        let kinds = self.tensor("token_types.weight");
        let sum = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<Vec<f64>> {
            a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
        };
        let embedded: Vec<Vec<f64>> = tokens
            .iter()
            .enumerate()
            .map(|(place, &token)| {
                (0..HIDDEN)
                    .map(|i| {
                        words[token as usize * HIDDEN + i] + places[place * HIDDEN + i] + kinds[i]
                    })
                    .collect()
            })
            .collect();
        let mut state = self.norm("token_embd_norm", &embedded);
        for layer in 0..LAYERS {
            let attended = self.attention(layer, &state);
            state = self.norm(&format!("blk.{layer}.attn_output_norm"), &sum(&state, &attended));
            let gelu = |x: f64| {
                0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3))).tanh())
            };
            let inner: Vec<Vec<f64>> = self
                .linear(&format!("blk.{layer}.ffn_up"), &state)
                .into_iter()
                .map(|row| row.into_iter().map(gelu).collect())
                .collect();
            let out = self.linear(&format!("blk.{layer}.ffn_down"), &inner);
            state = self.norm(&format!("blk.{layer}.layer_output_norm"), &sum(&state, &out));
        }
        state
    }
}

#[test]
fn a_bert_embeds_and_ranks_as_the_formulas_say() {
    let folder = tempfile::tempdir().unwrap();
    let (path, tensors) = bert_file(folder.path());
    nfl_models::preflight(&Gguf::open(&path).unwrap()).unwrap();
    let classes = ranking::classifier_scores(&Gguf::open(&path).unwrap());
    assert_eq!(classes, Some(CLASSES as u64));
    let model = tiny::load(&path);
    let bert = Bert(&tensors);
    let texts = texts();
    let single = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    let mut each = embedder(&model, Pooling::None);
    let mut mean = embedder(&model, Pooling::Mean);
    assert_eq!(Pooling::of(&Gguf::open(&path).unwrap()), Some(Pooling::Rank));
    let mut rank = embedder(&model, Pooling::Rank);
    assert_eq!((rank.pooling(), rank.width()), (Pooling::Rank, CLASSES));
    assert_eq!(ranking::labels(&model), ["no", "yes"]);
    let (each, mean) = (each.embed(&texts).unwrap(), mean.embed(&texts).unwrap());
    let rank = rank.embed(&texts).unwrap();
    for (number, text) in texts.iter().enumerate() {
        let states = bert.states(text);
        for (found, expected) in each[number].vectors.iter().zip(&states) {
            let off = largest_difference(found, &single(expected));
            assert!(off < 1e-2, "{off}");
        }
        let mut expected: Vec<f32> = (0..HIDDEN)
            .map(|i| {
                (states.iter().map(|state| state[i]).sum::<f64>() / states.len() as f64) as f32
            })
            .collect();
        let mut found = mean[number].vectors[0].clone();
        normalize(&mut expected);
        normalize(&mut found);
        assert!(largest_difference(&found, &expected) < 5e-3);
        let scores = bert.linear("cls.output", &states[..1]).remove(0);
        assert!(largest_difference(&rank[number].vectors[0], &single(&scores)) < 3e-2);
    }
}

#[test]
fn a_pair_is_put_together_as_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let plain = tiny::load(&tiny::llama_file(folder.path(), 5));
    let words = |text: &str| {
        let options = TokenizeOptions { add_special: false, parse_special: false };
        plain.vocabulary().tokenize(text, options).unwrap()
    };
    // This vocabulary asks for a token in front and for none behind a text.
    let expected = [vec![1], words("cat"), words("dog")].concat();
    assert_eq!(ranking::pair(&plain, "cat", "dog").unwrap(), expected);
    let mut metadata = tiny::llama_metadata();
    metadata.set("tokenizer.chat_template.rerank", "<s>{query}</s><s>{document}</s>");
    let path = folder.path().join("template.gguf");
    tiny::write(&path, &metadata, &tiny::llama_tensors(5));
    // The template brings all special tokens, and nothing is added to them.
    let expected = [vec![1], words("cat"), vec![2, 1], words("{query} dog"), vec![2]].concat();
    assert_eq!(ranking::pair(&tiny::load(&path), "cat", "{query} dog").unwrap(), expected);
}

#[test]
fn a_gap_is_described_with_the_models_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = tiny::llama_file(folder.path(), 5);
    let infill = Infill { prefix: "a".into(), suffix: "b".into(), ..Infill::default() };
    let without = tiny::load(&path).vocabulary();
    assert_eq!(infill.prompt(&without), Err(LlamaError::NoInfill));
    let mut metadata = tiny::llama_metadata();
    for (key, token) in [("fim_pre", 260_u32), ("fim_suf", 261), ("fim_mid", 262), ("fim_sep", 263)]
    {
        metadata.set(format!("tokenizer.ggml.{key}_token_id"), token);
    }
    metadata.set("tokenizer.ggml.add_bos_token", true);
    let path = folder.path().join("infill.gguf");
    tiny::write(&path, &metadata, &tiny::llama_tensors(5));
    let vocabulary = tiny::load(&path).vocabulary();
    let text = |text: &str| vocabulary.tokenize(text, super::TokenizeOptions::default()).unwrap();
    let expected = [&[1, 260][..], &text("a"), &[261], &text("b"), &[262]].concat();
    assert_eq!(infill.prompt(&vocabulary).unwrap(), expected);
    let files = vec![super::InfillFile { name: "x".into(), text: "yes".into() }];
    let more = Infill { files, file: Some("main".into()), ..infill.clone() };
    let expected =
        [&[1, 263][..], &text("x\nyes"), &[263], &text("main\n"), &expected[1..]].concat();
    assert_eq!(more.prompt(&vocabulary).unwrap(), expected);
    let named = Infill { repository: Some("r".into()), ..infill };
    assert_eq!(named.prompt(&vocabulary), Err(LlamaError::NoInfillFiles));
}
