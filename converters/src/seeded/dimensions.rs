//! The numbers of the model to generate: those of `config.json`, Hugging Face's defaults where it
//! is silent, and the caller's overrides with what follows from them.

use serde_json::{Map, Value, json};

use super::{Overrides, SeededError, WeightType};
use crate::checkpoint::Config;

/// Beyond this a number is a mistake: no model comes near, and products stay within 64 bits.
const LAYERS_MAX: u64 = 1024;
const HIDDEN_MAX: u64 = 1 << 17;
const INTERMEDIATE_MAX: u64 = 1 << 20;
const HEADS_MAX: u64 = 1 << 12;
const HEAD_LENGTH_MAX: u64 = 1 << 12;
const EXPERTS_MAX: u64 = 1024;
const VOCABULARY_MAX: u64 = 1 << 22;
/// Tensors of one checkpoint; the reader has the same limit.
const TENSORS_MAX: u64 = crate::checkpoint::TENSORS_MAX as u64;

/// A feed-forward size that is scaled in proportion stays a multiple of this, so that every level
/// with blocks of 256 still divides it.
const INTERMEDIATE_STEP: u64 = 256;

/// The families that the generator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Mistral,
    Mixtral,
}

/// What Hugging Face's configuration classes assume where `config.json` is silent.
struct Defaults {
    architecture: &'static str,
    model_type: &'static str,
    intermediate: u64,
    kv_heads: Option<u64>,
    context: u64,
    norm_epsilon: f64,
    rope_theta: f64,
    sliding_window: Option<u64>,
}

impl Family {
    fn of(config: &Config) -> Result<Self, SeededError> {
        let architecture = config.optional_array("architectures")?.map(|_| config.architecture());
        let name = match architecture {
            Some(name) => name?,
            None => config.str("model_type")?,
        };
        match name {
            "LlamaForCausalLM" | "llama" => Ok(Self::Llama),
            "MistralForCausalLM" | "mistral" => Ok(Self::Mistral),
            "MixtralForCausalLM" | "mixtral" => Ok(Self::Mixtral),
            other => Err(SeededError::Family { found: other.to_owned() }),
        }
    }

    fn defaults(self) -> Defaults {
        match self {
            Self::Llama => Defaults {
                architecture: "LlamaForCausalLM",
                model_type: "llama",
                intermediate: 11_008,
                kv_heads: None,
                context: 2048,
                norm_epsilon: 1e-6,
                rope_theta: 10_000.0,
                sliding_window: None,
            },
            Self::Mistral => Defaults {
                architecture: "MistralForCausalLM",
                model_type: "mistral",
                intermediate: 14_336,
                kv_heads: Some(8),
                context: 131_072,
                norm_epsilon: 1e-6,
                rope_theta: 10_000.0,
                sliding_window: Some(4096),
            },
            Self::Mixtral => Defaults {
                architecture: "MixtralForCausalLM",
                model_type: "mixtral",
                intermediate: 14_336,
                kv_heads: Some(8),
                context: 131_072,
                norm_epsilon: 1e-5,
                rope_theta: 1_000_000.0,
                sliding_window: None,
            },
        }
    }
}

/// The numbers of the model to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dimensions {
    pub(super) family: Family,
    pub(super) layers: u64,
    pub(super) hidden: u64,
    pub(super) intermediate: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_length: u64,
    /// 0 when the model is dense.
    pub(super) experts: u64,
    pub(super) experts_used: u64,
    pub(super) vocabulary: u64,
    pub(super) is_tied: bool,
    pub(super) attention_bias: bool,
    pub(super) mlp_bias: bool,
}

impl Dimensions {
    pub(super) fn new(config: &Config, overrides: &Overrides) -> Result<Self, SeededError> {
        let family = Family::of(config)?;
        let defaults = family.defaults();
        let number = |key, default| -> Result<u64, SeededError> {
            Ok(config.optional_u64(key)?.unwrap_or(default))
        };
        let pick = |own: Option<u64>, what, default, max| -> Result<u64, SeededError> {
            let value = match own {
                Some(value) => value,
                None => number(what, default)?,
            };
            within(what, value, max)
        };
        let layers = pick(overrides.layers, "num_hidden_layers", 32, LAYERS_MAX)?;
        let vocabulary = pick(overrides.vocabulary, "vocab_size", 32_000, VOCABULARY_MAX)?;
        let full = within("hidden_size", number("hidden_size", 4096)?, HIDDEN_MAX)?;
        let hidden = within("hidden_size", overrides.hidden.unwrap_or(full), HIDDEN_MAX)?;
        let intermediate = match overrides.intermediate {
            Some(own) => own,
            None => in_proportion(
                within(
                    "intermediate_size",
                    number("intermediate_size", defaults.intermediate)?,
                    INTERMEDIATE_MAX,
                )?,
                hidden,
                full,
            ),
        };
        let intermediate = within("intermediate_size", intermediate, INTERMEDIATE_MAX)?;
        let (heads, kv_heads, head_length) = heads(config, overrides, (full, hidden), &defaults)?;
        let (experts, experts_used) = if family == Family::Mixtral {
            let experts = pick(overrides.experts, "num_local_experts", 8, EXPERTS_MAX)?;
            let used = match overrides.experts_used {
                Some(used) => within("num_experts_per_tok", used, experts)?,
                // Fewer experts than the model would use are all used.
                None => {
                    within("num_experts_per_tok", number("num_experts_per_tok", 2)?, EXPERTS_MAX)?
                        .min(experts)
                }
            };
            (experts, used)
        } else {
            refuse_experts(overrides)?;
            (0, 0)
        };
        let flag = |key| -> Result<bool, SeededError> {
            Ok(family == Family::Llama && config.optional_bool(key)?.unwrap_or(false))
        };
        let dimensions = Self {
            family,
            layers,
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_length,
            experts,
            experts_used,
            vocabulary,
            is_tied: config.optional_bool("tie_word_embeddings")?.unwrap_or(false),
            attention_bias: flag("attention_bias")?,
            mlp_bias: flag("mlp_bias")?,
        };
        let tensors = 3 + layers * (13 + 3 * experts);
        within("num_hidden_layers × num_local_experts × 3", tensors, TENSORS_MAX)?;
        Ok(dimensions)
    }

    /// `config.json` of the generated checkpoint: the given one with every number that the reader
    /// of a checkpoint may need, and without what no longer holds.
    pub(super) fn settings(&self, config: &Config, dtype: WeightType, is_made_up: bool) -> Value {
        let defaults = self.family.defaults();
        let mut entries = config.entries().clone();
        let mut set = |key: &str, value: Value| {
            entries.insert(key.to_owned(), value);
        };
        set("architectures", json!([defaults.architecture]));
        set("model_type", json!(defaults.model_type));
        set("num_hidden_layers", json!(self.layers));
        set("hidden_size", json!(self.hidden));
        set("intermediate_size", json!(self.intermediate));
        set("num_attention_heads", json!(self.heads));
        set("num_key_value_heads", json!(self.kv_heads));
        set("vocab_size", json!(self.vocabulary));
        set("tie_word_embeddings", json!(self.is_tied));
        set("torch_dtype", json!(dtype.torch_name()));
        if self.experts > 0 {
            set("num_local_experts", json!(self.experts));
            set("num_experts_per_tok", json!(self.experts_used));
        }
        if self.heads * self.head_length != self.hidden || config.value("head_dim").is_some() {
            set("head_dim", json!(self.head_length));
        }
        if is_made_up {
            set("bos_token_id", json!(1));
            set("eos_token_id", json!(2));
        }
        self.fill_in(&mut entries, &defaults);
        let mut stale = vec!["quantization_config", "compression_config", "auto_map", "dtype"];
        if is_made_up {
            stale.push("pad_token_id");
        }
        entries.retain(|key, _| !stale.contains(&key.as_str()));
        Value::Object(entries)
    }

    /// Numbers that no tensor's shape depends on, where the file is silent.
    fn fill_in(&self, entries: &mut Map<String, Value>, defaults: &Defaults) {
        let mut fill = |key: &str, value: Value| {
            entries.entry(key).or_insert(value);
        };
        fill("max_position_embeddings", json!(defaults.context));
        fill("rms_norm_eps", json!(defaults.norm_epsilon));
        fill("hidden_act", json!("silu"));
        if self.family != Family::Llama {
            fill("sliding_window", json!(defaults.sliding_window));
        }
        // Transformers 5 keeps the base of the rotation in `rope_parameters`.
        if !entries.contains_key("rope_parameters") {
            entries.entry("rope_theta").or_insert(json!(defaults.rope_theta));
        }
    }
}

/// Heads, key-value heads and the length of a head, for the `(full, wanted)` hidden sizes.
fn heads(
    config: &Config,
    overrides: &Overrides,
    (full, hidden): (u64, u64),
    defaults: &Defaults,
) -> Result<(u64, u64, u64), SeededError> {
    let full_heads = config.optional_u64("num_attention_heads")?.unwrap_or(32);
    let full_heads = within("num_attention_heads", full_heads, HEADS_MAX)?;
    let full_kv = config.optional_u64("num_key_value_heads")?.or(defaults.kv_heads);
    let full_kv = within("num_key_value_heads", full_kv.unwrap_or(full_heads), full_heads)?;
    let heads = overrides.heads.unwrap_or_else(|| (full_heads * hidden / full).max(1));
    let heads = within("num_attention_heads", heads, HEADS_MAX)?;
    let head_length = match config.optional_u64("head_dim")? {
        Some(length) => length,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let expected = format!("a multiple of the {heads} heads");
            return Err(SeededError::Number { what: "hidden_size", found: hidden, expected });
        }
    };
    let head_length = within("head_dim", head_length, HEAD_LENGTH_MAX)?;
    if !head_length.is_multiple_of(2) {
        let expected = "an even number, since heads are rotated in pairs".to_owned();
        return Err(SeededError::Number { what: "head_dim", found: head_length, expected });
    }
    let kv_heads = match overrides.kv_heads {
        Some(own) => own,
        None if heads == full_heads => full_kv,
        // In proportion, then down to the next divisor.
        None => (1..=(full_kv * heads / full_heads).max(1))
            .rev()
            .find(|&count| heads.is_multiple_of(count))
            .unwrap_or(1),
    };
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of the {heads} heads");
        return Err(SeededError::Number { what: "num_key_value_heads", found: kv_heads, expected });
    }
    Ok((heads, kv_heads, head_length))
}

fn within(what: &'static str, found: u64, max: u64) -> Result<u64, SeededError> {
    if (1..=max).contains(&found) {
        return Ok(found);
    }
    Err(SeededError::Number { what, found, expected: format!("1 to {max}") })
}

/// `size` times `hidden / full`, rounded to [`INTERMEDIATE_STEP`]; unchanged at the full size.
fn in_proportion(size: u64, hidden: u64, full: u64) -> u64 {
    if hidden == full {
        return size;
    }
    let scaled = size * hidden / full;
    ((scaled + INTERMEDIATE_STEP / 2) / INTERMEDIATE_STEP).max(1) * INTERMEDIATE_STEP
}

/// A dense model has no experts to override.
fn refuse_experts(overrides: &Overrides) -> Result<(), SeededError> {
    match overrides.experts.or(overrides.experts_used) {
        None => Ok(()),
        Some(found) => {
            let expected = "none, since this config.json is of a dense model".to_owned();
            Err(SeededError::Number { what: "experts", found, expected })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dimensions(value: Value, overrides: Overrides) -> Result<Dimensions, SeededError> {
        Dimensions::new(&Config::from_value(value).unwrap(), &overrides)
    }

    #[test]
    fn a_bare_config_gets_the_defaults_of_its_class() {
        let found = dimensions(json!({"model_type": "mixtral"}), Overrides::default()).unwrap();
        assert_eq!((found.layers, found.hidden, found.intermediate), (32, 4096, 14_336));
        assert_eq!((found.heads, found.kv_heads, found.head_length), (32, 8, 128));
        assert_eq!((found.experts, found.experts_used, found.vocabulary), (8, 2, 32_000));
        let found = dimensions(json!({"model_type": "llama"}), Overrides::default()).unwrap();
        assert_eq!((found.kv_heads, found.intermediate, found.experts), (32, 11_008, 0));
    }

    #[test]
    fn a_smaller_hidden_size_takes_heads_and_feed_forward_with_it() {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14_336,
            "num_attention_heads": 32, "num_key_value_heads": 8
        });
        let with = |hidden| Overrides { hidden: Some(hidden), ..Overrides::default() };
        let found = dimensions(config.clone(), with(1024)).unwrap();
        assert_eq!((found.heads, found.kv_heads, found.head_length), (8, 2, 128));
        assert_eq!(found.intermediate, 3584);
        let found = dimensions(config, with(64)).unwrap();
        assert_eq!((found.heads, found.kv_heads, found.head_length), (1, 1, 64));
        assert_eq!(found.intermediate, 256);
    }

    #[test]
    fn numbers_that_do_not_go_together_are_refused() {
        let config = json!({"model_type": "llama"});
        let check = |overrides, text: &str| {
            let error = dimensions(config.clone(), overrides).unwrap_err();
            assert_eq!(error.to_string(), text);
        };
        let none = Overrides::default();
        check(
            Overrides { heads: Some(7), ..none },
            "hidden_size: 4096, expected a multiple of the 7 heads",
        );
        check(
            Overrides { kv_heads: Some(5), ..none },
            "num_key_value_heads: 5, expected a divisor of the 32 heads",
        );
        check(
            Overrides { experts: Some(4), ..none },
            "experts: 4, expected none, since this config.json is of a dense model",
        );
        check(
            Overrides { layers: Some(1 << 40), ..none },
            "num_hidden_layers: 1099511627776, expected 1 to 1024",
        );
        check(Overrides { hidden: Some(0), ..none }, "hidden_size: 0, expected 1 to 131072");
    }

    #[test]
    fn another_family_is_refused_by_name() {
        let config = json!({"architectures": ["GPT2LMHeadModel"]});
        let error = dimensions(config, Overrides::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "architecture: \"GPT2LMHeadModel\", which the generator does not know"
        );
    }
}
