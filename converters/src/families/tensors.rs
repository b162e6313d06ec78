//! From the names in a checkpoint to the tensors of the output: which are used, how they are
//! stacked, what is ignored.

use super::Family;
use super::hyperparameters::Hyperparameters;
use crate::checkpoint::{Checkpoint, SourceTensor};
use crate::error::ConvertError;
use crate::reshape::RowOrder;
use std::collections::{BTreeMap, HashSet};

/// How one kind of tensor is renamed.
///
/// `{block}` stands for the number of a block on both sides; `{expert}` on the source's side for
/// that of an expert: the experts of a block are stacked into one tensor. The last part of a name
/// (`weight`, `bias`) is carried over.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The name in the checkpoint, without `.weight` or `.bias`.
    pub source: &'static str,
    /// The name in GGUF, without `.weight` or `.bias`.
    pub target: &'static str,
    /// Whose heads its rows belong to.
    pub rows: Rows,
}

/// Whose heads a projection's rows belong to, when they are reordered for rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// No heads: rows stay as they are.
    Stored,
    /// Query heads.
    Query,
    /// Key-value heads.
    Key,
}

impl Rule {
    /// A rule that leaves the rows as they are.
    pub const fn stored(source: &'static str, target: &'static str) -> Self {
        Self { source, target, rows: Rows::Stored }
    }

    /// A rule for a projection whose rows are reordered.
    pub const fn rotary(source: &'static str, target: &'static str, rows: Rows) -> Self {
        Self { source, target, rows }
    }

    fn is_stacked(&self) -> bool {
        self.source.contains("{expert}")
    }
}

/// One tensor of the output, and where its values come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// GGUF name.
    pub name: String,
    /// ggml order: the row length first.
    pub dimensions: Vec<u64>,
    /// Where its values come from.
    pub content: Content,
}

/// Where a tensor's values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// From tensors of the checkpoint, one after the other, each with its rows in `order`.
    Parts {
        /// Names in the checkpoint, all of one shape.
        parts: Vec<String>,
        /// The order of the rows within each part.
        order: RowOrder,
    },
    /// Computed.
    Values(Vec<f32>),
}

impl Recipe {
    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }
}

/// Endings of tensors that hold nothing to convert: buffers that are computed again, and scales
/// that were applied when the tensor they belong to was decoded.
const IGNORED_ENDINGS: [&str; 3] =
    [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"];

/// What a name means under a rule.
struct Match<'a> {
    rule: usize,
    block: Option<u32>,
    expert: Option<u32>,
    suffix: &'a str,
}

/// The experts of one block as they come in: for each stacked rule, their sources by number.
type Stacks<'a> = BTreeMap<(usize, &'a str), BTreeMap<u32, &'a SourceTensor>>;

/// Plans every tensor of the output from those of the checkpoint, in upstream's order.
///
/// Upstream's converter walks the shards in the order of their names and the tensors of each by
/// name; the experts of a block appear where the last of them was seen.
pub fn plan(
    checkpoint: &Checkpoint,
    family: &Family,
    hyperparameters: &Hyperparameters,
) -> Result<Vec<Recipe>, ConvertError> {
    let mut planner = Planner {
        family,
        hyperparameters,
        stacks: BTreeMap::new(),
        seen: HashSet::new(),
        recipes: Vec::new(),
    };
    let mut sources: Vec<&SourceTensor> = checkpoint.tensors().collect();
    sources.sort_by(|a, b| (a.shard(), &a.name).cmp(&(b.shard(), &b.name)));
    for source in sources {
        planner.take(source)?;
    }
    planner.finish()
}

struct Planner<'a> {
    family: &'a Family,
    hyperparameters: &'a Hyperparameters,
    stacks: BTreeMap<u32, Stacks<'a>>,
    seen: HashSet<String>,
    recipes: Vec<Recipe>,
}

impl<'a> Planner<'a> {
    fn take(&mut self, source: &'a SourceTensor) -> Result<(), ConvertError> {
        let unknown = || ConvertError::UnknownTensor { name: source.name.clone() };
        if IGNORED_ENDINGS.iter().any(|ending| source.name.ends_with(ending)) {
            return Ok(());
        }
        let found = matching(self.family.rules, &source.name).ok_or_else(unknown)?;
        let Some(expert) = found.expert else {
            let recipe = self.recipe(&found, &[source])?;
            return self.add(recipe);
        };
        let block = found.block.ok_or_else(unknown)?;
        if u64::from(expert) >= self.hyperparameters.experts() {
            return Err(unknown());
        }
        let stacks = self.stacks.entry(block).or_default();
        if stacks.entry((found.rule, found.suffix)).or_default().insert(expert, source).is_some() {
            return Err(ConvertError::DuplicateTensor { name: source.name.clone() });
        }
        self.emit_complete(block)
    }

    /// Adds the stacks of a block once every expert has every part.
    fn emit_complete(&mut self, block: u32) -> Result<(), ConvertError> {
        let experts = self.hyperparameters.experts();
        let rules = self.family.rules.iter().filter(|rule| rule.is_stacked()).count();
        let stacks = &self.stacks[&block];
        let complete = stacks.values().all(|stack| stack.len() as u64 == experts);
        if stacks.len() < rules || !complete {
            return Ok(());
        }
        let stacks = self.stacks.remove(&block).unwrap_or_default();
        for ((rule, suffix), stack) in stacks {
            let found = Match { rule, block: Some(block), expert: None, suffix };
            let sources: Vec<&SourceTensor> = stack.into_values().collect();
            let recipe = self.recipe(&found, &sources)?;
            self.add(recipe)?;
        }
        Ok(())
    }

    fn recipe(&self, found: &Match<'_>, parts: &[&SourceTensor]) -> Result<Recipe, ConvertError> {
        let rule = &self.family.rules[found.rule];
        let first = parts[0];
        if let Some(other) = parts.iter().find(|part| part.shape != first.shape) {
            return Err(ConvertError::Dimensions {
                name: other.name.clone(),
                found: other.shape.clone(),
                expected: first.shape.clone(),
            });
        }
        let mut dimensions: Vec<u64> = first.shape.iter().rev().copied().collect();
        if rule.is_stacked() {
            dimensions.push(parts.len() as u64);
        }
        let order = match rule.rows {
            Rows::Stored => RowOrder::Stored,
            Rows::Query => RowOrder::Rotary { heads: self.hyperparameters.heads },
            Rows::Key => RowOrder::Rotary { heads: self.hyperparameters.heads_kv },
        };
        if !order.fits(first.shape.first().copied().unwrap_or(1)) {
            return Err(ConvertError::Heads {
                name: first.name.clone(),
                shape: first.shape.clone(),
            });
        }
        let target = match found.block {
            Some(block) => rule.target.replace("{block}", &block.to_string()),
            None => rule.target.to_owned(),
        };
        Ok(Recipe {
            name: format!("{target}.{}", found.suffix),
            dimensions,
            content: Content::Parts {
                parts: parts.iter().map(|part| part.name.clone()).collect(),
                order,
            },
        })
    }

    fn add(&mut self, recipe: Recipe) -> Result<(), ConvertError> {
        if !self.seen.insert(recipe.name.clone()) {
            return Err(ConvertError::DuplicateTensor { name: recipe.name });
        }
        self.recipes.push(recipe);
        Ok(())
    }

    /// The recipes, unless experts are missing: then the first that is.
    fn finish(self) -> Result<Vec<Recipe>, ConvertError> {
        let Some((block, stacks)) = self.stacks.iter().next() else {
            return Ok(self.recipes);
        };
        let empty = BTreeMap::new();
        for (index, rule) in self.family.rules.iter().enumerate() {
            let stack = stacks.get(&(index, "weight")).unwrap_or(&empty);
            let missing = (0..self.hyperparameters.experts() as u32)
                .find(|expert| rule.is_stacked() && !stack.contains_key(expert));
            if let Some(expert) = missing {
                let name = rule.source.replace("{block}", &block.to_string());
                let name = format!("{}.weight", name.replace("{expert}", &expert.to_string()));
                return Err(ConvertError::MissingTensor { name });
            }
        }
        Err(ConvertError::MissingTensor { name: format!("experts of block {block}") })
    }
}

/// The rule that a checkpoint's tensor name falls under.
fn matching<'a>(rules: &[Rule], name: &'a str) -> Option<Match<'a>> {
    let name = name.strip_prefix("language_model.").unwrap_or(name);
    let (stem, suffix) = name.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    rules.iter().enumerate().find_map(|(rule, candidate)| {
        let (block, expert) = captures(candidate.source, stem)?;
        Some(Match { rule, block, expert, suffix })
    })
}

/// The numbers that stand for `{block}` and `{expert}` when `name` has the form of `pattern`.
fn captures(pattern: &str, name: &str) -> Option<(Option<u32>, Option<u32>)> {
    let (mut block, mut expert) = (None, None);
    let mut parts = name.split('.');
    for expected in pattern.split('.') {
        let part = parts.next()?;
        match expected {
            "{block}" => block = Some(number(part)?),
            "{expert}" => expert = Some(number(part)?),
            _ if expected == part => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some((block, expert))
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_capture_numbers() {
        let pattern = "model.layers.{block}.block_sparse_moe.experts.{expert}.w1";
        let found = captures(pattern, "model.layers.12.block_sparse_moe.experts.7.w1");
        assert_eq!(found, Some((Some(12), Some(7))));
        assert_eq!(captures(pattern, "model.layers.12.block_sparse_moe.experts.x.w1"), None);
        assert_eq!(captures(pattern, "model.layers.12.block_sparse_moe.experts.7.w1.w1"), None);
        assert_eq!(captures("lm_head", "lm_head"), Some((None, None)));
        assert_eq!(captures("model.layers.{block}.a", "model.layers.+1.a"), None);
    }
}
