//! What there is to learn: examples as tokens, with what was dropped on the way and how long they are.

use std::path::Path;

use super::data::{Data, DataError, Example};
use super::error::LearnError;
use super::order::{Contents, Lengths, Long, Order};
use super::spans::Tokenizer;
use crate::training::samples::{Sample, pack};

/// Examples as tokens.
#[derive(Debug, Default)]
pub(super) struct Material {
    /// Documents.
    pub(super) samples: Vec<Sample>,
    /// A better and a worse answer each, where preferences are learned.
    pub(super) pairs: Vec<[Sample; 2]>,
    /// What is said of them.
    pub(super) contents: Contents,
}

/// The material of an order: what is learned, and what is only looked at.
pub(super) fn read(
    order: &Order,
    tokenizer: &Tokenizer<'_>,
) -> Result<(Material, Material), LearnError> {
    let mut data = Data::read(&order.data, order.skip_bad)?;
    let held_out = match order.evaluation_share {
        Some(share) => {
            let mut random = crate::training::random::Random::new(order.seed);
            data.split(share, |numbers| random.shuffle(numbers))?
        }
        None => Vec::new(),
    };
    let evaluation = match &order.evaluation {
        Some(path) => material(order, path, Data::read(path, order.skip_bad)?, tokenizer)?,
        None if held_out.is_empty() => Material::default(),
        None => {
            let data = Data { examples: held_out, ..Data::default() };
            material(order, &order.data, data, tokenizer)?
        }
    };
    let learned = material(order, &order.data, data, tokenizer)?;
    Ok((learned, evaluation))
}

/// The examples of a file as tokens.
fn material(
    order: &Order,
    path: &Path,
    data: Data,
    tokenizer: &Tokenizer<'_>,
) -> Result<Material, LearnError> {
    let Data { examples, forms, duplicates, mut bad } = data;
    let total = examples.len() + bad.count;
    let before = bad.count;
    let mut material = Material::default();
    let mut lengths = Vec::new();
    for (place, example) in &examples {
        match add(order, tokenizer, example, &mut material)? {
            Ok(tokens) => lengths.push(tokens),
            Err(reason) => bad.add(|| place.clone(), reason),
        }
    }
    if bad.count > before && !order.skip_bad {
        return Err(DataError::Bad { path: path.to_owned(), bad, total }.into());
    }
    let all = || material.samples.iter().chain(material.pairs.iter().flatten());
    if all().next().is_none() {
        return Err(LearnError::NothingLearned(examples.len()));
    }
    material.contents = Contents {
        examples: examples.len(),
        forms,
        duplicates,
        bad,
        lengths: Lengths::of(lengths),
        tokens: all().map(|sample| sample.tokens.len()).sum(),
        learned: all().flat_map(|sample| &sample.learned).filter(|yes| **yes).count(),
        batches: material.pairs.len() + pack(&material.samples, order.length).len(),
        ..material.contents
    };
    Ok(material)
}

/// Adds an example; gives its length in tokens, or why it cannot be learned.
fn add(
    order: &Order,
    tokenizer: &Tokenizer<'_>,
    example: &Example,
    material: &mut Material,
) -> Result<Result<usize, String>, LearnError> {
    let is_taught = |sample: &Sample| sample.learned.contains(&true);
    if order.preference.is_some() {
        let pair = tokenizer.pair(example)?;
        let longest = pair.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0);
        if !pair.iter().all(is_taught) {
            return Ok(Err("an answer has no token".to_owned()));
        }
        if longest > order.length {
            material.contents.long += 1;
            if order.long != Long::Skip {
                // A comparison of parts would be none of the answers.
                return Ok(Err(format!("{longest} tokens, {} fit (--length)", order.length)));
            }
        } else {
            material.pairs.push(pair);
        }
        return Ok(Ok(longest));
    }
    let samples = tokenizer.samples(example)?;
    let longest = samples.iter().map(|sample| sample.tokens.len()).max().unwrap_or(0);
    if !samples.iter().any(is_taught) {
        return Ok(Err(format!("none of its {longest} tokens is to be learned")));
    }
    if longest > order.length {
        material.contents.long += 1;
        match order.long {
            Long::Skip => return Ok(Ok(longest)),
            Long::Refuse => {
                return Ok(Err(format!("{longest} tokens, {} fit (--length)", order.length)));
            }
            Long::Cut => {}
        }
    }
    material.contents.rewritten += usize::from(samples.len() > 1);
    material.samples.extend(samples.iter().flat_map(|sample| sample.cut(order.length)));
    Ok(Ok(longest))
}
