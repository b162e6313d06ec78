//! The types that each level chooses, against llama-quantize's own choice for thirteen shapes
//! (`convert_mixture.tsv`).

use nfl_converters::quantize::category::Candidate;
use nfl_converters::quantize::mixture::{Choice, Traits, choose};
use nfl_models::{Level, TensorType};
use std::collections::HashMap;

const TABLE: &str = include_str!("convert_mixture.tsv");
const VOCABULARY: u64 = 512;

/// The numbers of a `shape` line.
struct Shape {
    traits: Traits,
    embedding: u64,
    feed_forward: u64,
    tied: bool,
}

impl Shape {
    fn parse(fields: &[&str]) -> Self {
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        let traits = Traits {
            architecture: fields[2].to_owned(),
            blocks: number(3) as i64,
            experts: number(8),
            heads: number(6),
            heads_kv: number(7),
            importance: false,
        };
        Self { traits, embedding: number(4), feed_forward: number(5), tied: number(9) == 1 }
    }

    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let (wide, narrow, experts) = (self.feed_forward, self.embedding, self.traits.experts);
        let key = narrow / self.traits.heads * self.traits.heads_kv;
        let mut all = vec![("token_embd".to_owned(), vec![narrow, VOCABULARY])];
        all.push(("output_norm".to_owned(), vec![narrow]));
        if !self.tied {
            all.push(("output".to_owned(), vec![narrow, VOCABULARY]));
        }
        for block in 0..self.traits.blocks {
            let mut add = |kind: &str, dimensions: &[u64]| {
                all.push((format!("blk.{block}.{kind}"), dimensions.to_vec()));
            };
            add("attn_norm", &[narrow]);
            add("attn_output", &[narrow, narrow]);
            if self.traits.architecture == "falcon" {
                add("attn_qkv", &[narrow, narrow + 2 * key]);
                add("ffn_up", &[narrow, wide]);
                add("ffn_down", &[wide, narrow]);
                continue;
            }
            add("attn_q", &[narrow, narrow]);
            add("attn_k", &[narrow, key]);
            add("attn_v", &[narrow, key]);
            add("ffn_norm", &[narrow]);
            if experts > 0 {
                add("ffn_gate_inp", &[narrow, experts]);
                add("ffn_gate_exps", &[narrow, wide, experts]);
                add("ffn_up_exps", &[narrow, wide, experts]);
                add("ffn_down_exps", &[wide, narrow, experts]);
            } else {
                add("ffn_gate", &[narrow, wide]);
                add("ffn_up", &[narrow, wide]);
                add("ffn_down", &[wide, narrow]);
            }
        }
        all.into_iter().map(|(kind, dimensions)| (format!("{kind}.weight"), dimensions)).collect()
    }
}

/// Chooses with the tensors in reverse, as a checkpoint may store them in any order.
fn chosen(shape: &Shape, level: Level, tensors: &[(String, Vec<u64>)]) -> Vec<Choice> {
    let candidates: Vec<Candidate<'_>> = tensors
        .iter()
        .rev()
        .map(|(name, dimensions)| Candidate { name, dimensions, source_type: TensorType::F32 })
        .collect();
    let mut choices = choose(&shape.traits, level, &candidates).unwrap();
    choices.reverse();
    choices
}

/// The types of one kind of tensor over the blocks: `Q6_K*4,Q4_K*28`.
fn runs(text: &str) -> Vec<TensorType> {
    let run = |run: &str| {
        let (name, count) = run.split_once('*').unwrap();
        vec![name.parse::<TensorType>().unwrap(); count.parse().unwrap()]
    };
    text.split(',').flat_map(run).collect()
}

#[test]
fn every_level_chooses_as_llama_quantize_does() {
    let mut shapes = HashMap::new();
    let mut compared = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields[0] == "shape" {
            shapes.insert(fields[1], Shape::parse(&fields));
            continue;
        }
        let shape = &shapes[fields[0]];
        let level: Level = fields[1].parse().unwrap();
        let expected: HashMap<&str, Vec<TensorType>> = fields[2..]
            .iter()
            .map(|cell| cell.split_once('=').unwrap())
            .map(|(kind, each)| (kind, runs(each)))
            .collect();
        let tensors = shape.tensors();
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for ((name, dimensions), choice) in tensors.iter().zip(chosen(shape, level, &tensors)) {
            let kind = name.strip_suffix(".weight").unwrap().rsplit('.').next().unwrap();
            let index = seen.entry(kind).or_default();
            let is_kept = dimensions.len() < 2 || kind == "ffn_gate_inp";
            let wanted = match expected.get(kind) {
                Some(each) => each[*index],
                None if is_kept => TensorType::F32,
                None => level.base_type(),
            };
            *index += 1;
            assert_eq!(choice.tensor_type, wanted, "{} {level} {name}", fields[0]);
            compared += 1;
        }
    }
    assert!(compared > 50_000, "{compared}");
}

/// llama-quantize refuses Q2_K_S without an importance matrix wherever Q2_K itself would be
/// written.
#[test]
fn only_q2_k_s_wants_an_importance_matrix() {
    let dense = Shape::parse(&["", "", "llama", "32", "256", "768", "8", "8", "0", "0"]);
    let narrow = Shape::parse(&["", "", "llama", "5", "64", "192", "8", "4", "0", "0"]);
    let needy = |shape: &Shape, level: Level| {
        let tensors = shape.tensors();
        chosen(shape, level, &tensors).iter().filter(|choice| choice.needs_importance).count()
    };
    for level in Level::ALL {
        // 32 blocks of seven matrices, less the first eighth of ffn_down, which gets Q4_K
        let expected = if *level == Level::Q2_K_S { 32 * 7 - 4 } else { 0 };
        assert_eq!(needy(&dense, *level), expected, "{level}");
        assert_eq!(needy(&narrow, *level), 0, "{level}: every row of 64 falls back to Q4_0");
    }
}

/// Every fall-back names what was wanted; rows that not even 32 divides become F16.
#[test]
fn fall_backs_are_told() {
    let shape = Shape::parse(&["", "", "llama", "5", "64", "172", "8", "4", "0", "0"]);
    let tensors = shape.tensors();
    let told = |level: Level| {
        let choices = chosen(&shape, level, &tensors);
        let told = tensors.iter().zip(choices).filter_map(|((name, _), choice)| {
            Some((name.clone(), choice.wanted?, choice.tensor_type))
        });
        told.collect::<Vec<_>>()
    };
    let eight = told(Level::Q8_0);
    assert_eq!(eight.len(), 5, "{eight:?}");
    assert!(eight.iter().all(|(name, wanted, used)| {
        name.ends_with("ffn_down.weight") && (*wanted, *used) == (TensorType::Q8_0, TensorType::F16)
    }));
    let four = told(Level::Q4_K_M);
    assert_eq!(four.len(), 2 + 5 * 7, "{four:?}");
    assert!(four.contains(&("output.weight".into(), TensorType::Q6_K, TensorType::Q8_0)));
    assert!(told(Level::F16).is_empty());
}
