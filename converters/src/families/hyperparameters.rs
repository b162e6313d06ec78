//! The numbers of `config.json` that a decoder is built from, and how upstream's converter writes
//! them.

use crate::checkpoint::{CheckpointError, Config};
use nfl_models::gguf::Metadata;
use nfl_models::shape::{BLOCKS_MAX, CONTEXT_TOKENS_MAX, EXPERTS_MAX, LENGTH_MAX};

/// What Hugging Face's own classes assume where `config.json` is silent.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `max_position_embeddings`
    pub context: u64,
    /// `num_key_value_heads`; `None`: as many as there are query heads.
    pub heads_kv: Option<u64>,
    /// Whether the head dimension is written when it is not given.
    pub head_dimension: HeadDimension,
    /// `rms_norm_eps`
    pub norm_epsilon: f64,
    /// `rope_theta`
    pub rope_theta: f64,
    /// `num_local_experts` and `num_experts_per_tok` of a family with experts.
    pub experts: Option<(u64, u64)>,
}

/// Whether a family's configuration always has a head dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadDimension {
    /// It is computed when not given, and written either way.
    Derived,
    /// It is written only when given.
    AsGiven,
}

/// The numbers of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Hyperparameters {
    /// Number of blocks.
    pub blocks: u64,
    /// Longest context in training, in tokens.
    pub context: u64,
    /// Width of the residual stream.
    pub embedding: u64,
    /// Width of a feed-forward network, or of one expert.
    pub feed_forward: u64,
    /// Query heads.
    pub heads: u64,
    /// Key-value heads.
    pub heads_kv: u64,
    /// Values a head, as `key_length` and `value_length` write it.
    pub head_length: Option<u64>,
    /// Values a head that are rotated.
    pub rope_dimensions: u64,
    /// Rotary embedding.
    pub rope: Rope,
    /// Epsilon of the RMS norms.
    pub norm_epsilon: f64,
    /// Experts, and those used for each token.
    pub expert_counts: Option<(u64, u64)>,
    /// Tokens in the vocabulary.
    pub vocabulary: u64,
    /// Tokens that attention looks back, when limited.
    pub sliding_window: Option<u64>,
    /// Whether the embedding may serve as output matrix.
    pub tied_output: bool,
    /// Whether the projections of attention have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward networks have biases.
    pub mlp_bias: bool,
}

/// Rotary embedding: its base, and the entries of `rope_parameters` or `rope_scaling`.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// `rope_theta`
    pub theta: f64,
    /// How it is stretched beyond the context it was trained with.
    pub scaling: RopeScaling,
}

/// How rotary embedding is stretched.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency by one factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// YaRN: optional numbers by the end of their GGUF key, in order.
    Yarn {
        /// The factor.
        factor: f64,
        /// Context of the training before it, in tokens.
        original_context: u64,
        /// `(key, value)` of those that are given.
        details: Vec<(&'static str, f64)>,
    },
    /// LongRoPE, whose factors are tensors.
    Long,
    /// Llama 3.1: by frequency, written as the tensor `rope_freqs.weight`.
    Llama3 {
        /// Factor of the low frequencies.
        factor: f64,
        /// Below it, a frequency is low: original context over wavelength.
        low: f64,
        /// Above it, a frequency is high.
        high: f64,
        /// Context of the training before it, in tokens.
        original_context: f64,
    },
    /// Not known here.
    Unknown(String),
}

impl Hyperparameters {
    /// Reads them; what must be there and is not, or is out of range, is an error.
    pub fn read(config: &Config, defaults: &Defaults) -> Result<Self, CheckpointError> {
        let count = |key: &str| config.within(key, 1..=LENGTH_MAX);
        let optional = |key: &str, most: u64| match config.value(key) {
            Some(_) => config.within(key, 1..=most).map(Some),
            None => Ok(None),
        };
        let flag = |key: &str| Ok(config.optional_bool(key)?.unwrap_or(false));
        let embedding = count("hidden_size")?;
        let heads = count("num_attention_heads")?;
        let given = optional("head_dim", LENGTH_MAX)?;
        let rope_dimensions = given.unwrap_or(embedding / heads);
        let derived = defaults.head_dimension == HeadDimension::Derived;
        let expert_counts = match defaults.experts {
            None => None,
            Some((all, used)) => {
                let all = optional("num_local_experts", EXPERTS_MAX)?.unwrap_or(all);
                let used = optional("num_experts_per_tok", all)?.unwrap_or(used.min(all));
                Some((all, used))
            }
        };
        Ok(Self {
            blocks: config.within("num_hidden_layers", 1..=BLOCKS_MAX)?,
            context: optional("max_position_embeddings", CONTEXT_TOKENS_MAX)?
                .unwrap_or(defaults.context),
            embedding,
            feed_forward: count("intermediate_size")?,
            heads,
            heads_kv: optional("num_key_value_heads", LENGTH_MAX)?
                .or(defaults.heads_kv)
                .unwrap_or(heads),
            head_length: given.or(derived.then_some(rope_dimensions)),
            rope_dimensions,
            rope: Rope::read(config, defaults)?,
            norm_epsilon: config.optional_f64("rms_norm_eps")?.unwrap_or(defaults.norm_epsilon),
            expert_counts,
            vocabulary: count("vocab_size")?,
            sliding_window: optional("sliding_window", u64::MAX)?,
            tied_output: flag("tie_word_embeddings")?,
            attention_bias: flag("attention_bias")?,
            mlp_bias: flag("mlp_bias")?,
        })
    }

    /// Number of experts; 0 without.
    pub fn experts(&self) -> u64 {
        self.expert_counts.map_or(0, |(all, _)| all)
    }

    /// Appends them to the metadata in upstream's order and types.
    pub fn describe(
        &self,
        architecture: &str,
        metadata: &mut Metadata,
        warnings: &mut Vec<String>,
    ) {
        let key = |suffix: &str| format!("{architecture}.{suffix}");
        // every count was checked against a limit far below 32 bits
        let mut count = |suffix: &str, value: u64| metadata.set(key(suffix), value as u32);
        count("block_count", self.blocks);
        count("context_length", self.context);
        count("embedding_length", self.embedding);
        count("feed_forward_length", self.feed_forward);
        count("attention.head_count", self.heads);
        count("attention.head_count_kv", self.heads_kv);
        self.rope.describe(architecture, metadata, warnings);
        metadata.set(key("attention.layer_norm_rms_epsilon"), self.norm_epsilon as f32);
        let mut count = |suffix: &str, value: u64| metadata.set(key(suffix), value as u32);
        if let Some((all, used)) = self.expert_counts {
            count("expert_count", all);
            count("expert_used_count", used);
        }
        if let Some(length) = self.head_length {
            count("attention.key_length", length);
            count("attention.value_length", length);
        }
        metadata.set("general.file_type", 0_u32);
        let mut count = |suffix: &str, value: u64| metadata.set(key(suffix), value as u32);
        count("vocab_size", self.vocabulary);
        count("rope.dimension_count", self.rope_dimensions);
    }

    /// The factors of `rope_freqs.weight` for rotary scaling as in Llama 3.1: one for each rotated
    /// pair.
    ///
    /// Computed in `f32` step by step as PyTorch does it for upstream's converter (a number divided
    /// by a tensor is its reciprocal times the number), so that the bytes agree.
    pub fn rope_factors(&self) -> Option<Vec<f32>> {
        let RopeScaling::Llama3 { factor, low, high, original_context } = self.rope.scaling else {
            return None;
        };
        let dimensions = self.rope_dimensions as f32;
        let low_wavelength = (original_context / low) as f32;
        let high_wavelength = (original_context / high) as f32;
        let factors = (0..self.rope_dimensions).step_by(2).map(|dimension| {
            let exponent = dimension as f32 / dimensions;
            let frequency = 1.0 / (self.rope.theta.powf(f64::from(exponent)) as f32);
            let wavelength = frequency.recip() * std::f32::consts::TAU;
            if wavelength < high_wavelength {
                1.0
            } else if wavelength > low_wavelength {
                factor as f32
            } else {
                let turns = wavelength.recip() * original_context as f32;
                let smooth = (turns - low as f32) / ((high - low) as f32);
                1.0 / ((1.0 - smooth) / factor as f32 + smooth)
            }
        });
        Some(factors.collect())
    }
}

impl Rope {
    fn read(config: &Config, defaults: &Defaults) -> Result<Self, CheckpointError> {
        let object = match config.optional_object("rope_parameters")? {
            Some(object) => Some(object),
            None => config.optional_object("rope_scaling")?,
        };
        let theta = match &object {
            Some(object) => object.optional_f64("rope_theta")?,
            None => None,
        };
        let theta = match theta {
            Some(theta) => theta,
            None => config.optional_f64("rope_theta")?.unwrap_or(defaults.rope_theta),
        };
        let scaling = match &object {
            Some(object) => RopeScaling::read(object, config)?,
            None => RopeScaling::None,
        };
        Ok(Self { theta, scaling })
    }

    fn describe(&self, architecture: &str, metadata: &mut Metadata, warnings: &mut Vec<String>) {
        let key = |suffix: &str| format!("{architecture}.rope.{suffix}");
        match &self.scaling {
            RopeScaling::None | RopeScaling::Llama3 { .. } => {}
            RopeScaling::Linear { factor } => {
                metadata.set(key("scaling.type"), "linear");
                metadata.set(key("scaling.factor"), *factor as f32);
            }
            RopeScaling::Yarn { factor, original_context, details } => {
                metadata.set(key("scaling.type"), "yarn");
                metadata.set(key("scaling.factor"), *factor as f32);
                metadata.set(key("scaling.original_context_length"), *original_context as u32);
                for (suffix, value) in details {
                    metadata.set(key(suffix), *value as f32);
                }
            }
            RopeScaling::Long => metadata.set(key("scaling.type"), "longrope"),
            RopeScaling::Unknown(name) => warnings.push(format!(
                "rotary scaling {name:?}: not expressed in GGUF; contexts beyond the trained \
                 length will suffer"
            )),
        }
        metadata.set(key("freq_base"), self.theta as f32);
    }
}

impl RopeScaling {
    fn read(object: &Config, config: &Config) -> Result<Self, CheckpointError> {
        let name = match object.optional_str("rope_type")? {
            Some(name) => name,
            None => object.optional_str("type")?.unwrap_or("default"),
        };
        let factor = object.optional_f64("factor")?;
        let original = "original_max_position_embeddings";
        Ok(match (name.to_lowercase().as_str(), factor) {
            ("default", _) => Self::None,
            ("linear", Some(factor)) => Self::Linear { factor },
            ("yarn", Some(factor)) => Self::Yarn {
                factor,
                original_context: match config.value(original) {
                    Some(_) if object.value(original).is_none() => config,
                    _ => object,
                }
                .within(original, 1..=CONTEXT_TOKENS_MAX)?,
                details: yarn_details(object)?,
            },
            ("su" | "longrope", _) => Self::Long,
            ("llama3", _) => Self::Llama3 {
                factor: factor.unwrap_or(8.0),
                low: object.optional_f64("low_freq_factor")?.unwrap_or(1.0),
                high: object.optional_f64("high_freq_factor")?.unwrap_or(4.0),
                original_context: object.optional_f64(original)?.unwrap_or(8192.0),
            },
            _ => Self::Unknown(name.to_owned()),
        })
    }
}

fn yarn_details(object: &Config) -> Result<Vec<(&'static str, f64)>, CheckpointError> {
    let attention = match object.optional_f64("attention_factor")? {
        Some(factor) => Some(factor),
        None => object.optional_f64("attn_factor")?,
    };
    let all = [
        ("scaling.yarn_ext_factor", object.optional_f64("extrapolation_factor")?),
        ("scaling.yarn_attn_factor", attention),
        ("scaling.yarn_beta_fast", object.optional_f64("beta_fast")?),
        ("scaling.yarn_beta_slow", object.optional_f64("beta_slow")?),
    ];
    Ok(all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}
