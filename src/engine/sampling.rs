//! What may be asked of the choice of tokens: samplers with their numbers, biases, constraints.
//!
//! Names and defaults are llama.cpp's, so that a recipe written for it means the same here.

use serde::{Deserialize, Serialize};

use super::options::OptionError;

/// Tokens whose logits one request may change.
pub const LOGIT_BIASES_MAX: usize = 4096;

/// Sequence breakers of DRY; each costs a walk over the whole vocabulary.
pub const BREAKERS_MAX: usize = 16;

/// Bytes of one sequence breaker: llama.cpp cuts longer ones.
pub const BREAKER_BYTES_MAX: usize = 40;

/// Candidates that the fill-in-the-middle sampler may be handed: it compares each with each.
pub const INFILL_CANDIDATES_MAX: u32 = 1024;

/// One step of the choice; each is neutral until its numbers say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SamplerKind {
    /// Repeat, frequency and presence penalties.
    Penalties,
    /// Penalty on tokens that would continue a repetition ("don't repeat yourself").
    Dry,
    /// Keep logits within so many standard deviations of the largest.
    TopNSigma,
    /// Keep so many of the likeliest.
    TopK,
    /// Keep tokens of typical surprise.
    Typical,
    /// Keep the likeliest that together reach a probability.
    TopP,
    /// Keep what reaches a share of the likeliest one's probability.
    MinP,
    /// Exclude top choices: drop all but the least likely of those above a threshold, now and then.
    Xtc,
    /// Divide the logits.
    Temperature,
    /// Gather tokens with a common beginning; for fill-in-the-middle models.
    Infill,
    /// Choose near a target probability; draws the token itself.
    AdaptiveP,
}

impl SamplerKind {
    /// Every kind with its name on the command line and in requests.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Penalties, "penalties"),
        (Self::Dry, "dry"),
        (Self::TopNSigma, "top_n_sigma"),
        (Self::TopK, "top_k"),
        (Self::Typical, "typ_p"),
        (Self::TopP, "top_p"),
        (Self::MinP, "min_p"),
        (Self::Xtc, "xtc"),
        (Self::Temperature, "temperature"),
        (Self::Infill, "infill"),
        (Self::AdaptiveP, "adaptive_p"),
    ];

    /// llama.cpp's order.
    pub const DEFAULT_ORDER: [Self; 9] = [
        Self::Penalties,
        Self::Dry,
        Self::TopNSigma,
        Self::TopK,
        Self::Typical,
        Self::TopP,
        Self::MinP,
        Self::Xtc,
        Self::Temperature,
    ];

    /// The kind of a name; hyphens are as good as underscores.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.replace('-', "_");
        let name = match name.as_str() {
            "typical" | "typical_p" => "typ_p",
            "temp" => "temperature",
            other => other,
        };
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// Which Mirostat steers the surprise of the text; it takes the place of all samplers but biases,
/// penalties and temperature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mirostat {
    /// None.
    #[default]
    Off,
    /// The first version, which estimates Zipf's exponent.
    One,
    /// The second version.
    Two,
}

/// What a reply must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// A text of this grammar (GBNF, from its rule `root`).
    Grammar(String),
    /// A JSON text that is valid for this JSON Schema.
    JsonSchema(String),
    /// A JSON object.
    Json,
}

/// What a constraint that does not hold from the beginning waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// What starts the constraint.
    pub what: TriggerWhat,
    /// Whether it belongs to the constrained text.
    pub place: TriggerPlace,
}

/// What starts a constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerWhat {
    /// These characters anywhere in the reply.
    Word(String),
    /// This token.
    Token(i32),
}

/// Where a constraint starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TriggerPlace {
    /// With the trigger: the grammar describes it too.
    With,
    /// Behind the trigger.
    After,
}

/// Triggers of one constraint.
pub const TRIGGERS_MAX: usize = 64;

/// Bytes of one trigger word.
pub const TRIGGER_BYTES_MAX: usize = 256;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divisor of the logits; 0 takes the likeliest token always.
    pub temperature: f32,
    /// How far the temperature moves to either side with the entropy of the choice; 0 keeps it.
    pub dynamic_temperature_range: f32,
    /// How entropy becomes temperature within that range.
    pub dynamic_temperature_exponent: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens that reach this share of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Keep tokens of typical surprise that together reach this probability; 1 keeps all.
    pub typical_p: f32,
    /// Keep logits within this many standard deviations of the largest; 0 or less keeps all.
    pub top_n_sigma: f32,
    /// How often top choices are excluded; 0 never.
    pub xtc_probability: f32,
    /// The probability from which a token is a top choice; above 0.5 there are never two.
    pub xtc_threshold: f32,
    /// Tokens that a truncating sampler leaves at least.
    pub keep_min: u32,
    /// Divisor for logits of tokens seen lately; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Subtracted from a logit once per recent occurrence; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Subtracted from a logit when the token occurred lately; 0 changes nothing.
    pub presence_penalty: f32,
    /// How many tokens "lately" means; None means the whole context.
    pub penalty_tokens: Option<u32>,
    /// Strength of the penalty on repetitions; 0 is none.
    pub dry_multiplier: f32,
    /// By how much that penalty grows with each repeated token.
    pub dry_base: f32,
    /// Repetitions up to this many tokens go unpunished.
    pub dry_allowed_tokens: u32,
    /// How far back repetitions are sought; None means the whole context.
    pub dry_tokens: Option<u32>,
    /// Texts at which a repetition ends.
    pub dry_breakers: Vec<String>,
    /// Which Mirostat chooses.
    pub mirostat: Mirostat,
    /// The surprise that Mirostat aims at, in bits.
    pub mirostat_tau: f32,
    /// How fast Mirostat learns.
    pub mirostat_eta: f32,
    /// The probability that adaptive-p aims at; None switches it off.
    pub adaptive_target: Option<f32>,
    /// How much of its history adaptive-p keeps with each token.
    pub adaptive_decay: f32,
    /// The order of the samplers; kinds that are left out do not act.
    pub samplers: Vec<SamplerKind>,
    /// Added to the logits of tokens; minus infinity forbids one.
    pub logit_bias: Vec<(i32, f32)>,
    /// What the reply must be.
    pub constraint: Option<Constraint>,
    /// When the constraint begins; at once when there is none of them.
    pub triggers: Vec<Trigger>,
    /// Where the random numbers start; None takes another start each time.
    pub seed: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            dynamic_temperature_range: 0.0,
            dynamic_temperature_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            keep_min: 0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_tokens: Some(64),
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_tokens: 2,
            dry_tokens: Some(64),
            dry_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
            mirostat: Mirostat::Off,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            adaptive_target: None,
            adaptive_decay: 0.9,
            samplers: SamplerKind::DEFAULT_ORDER.to_vec(),
            logit_bias: Vec::new(),
            constraint: None,
            triggers: Vec::new(),
            seed: None,
        }
    }
}

impl Sampling {
    /// The likeliest token always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Whether a kind of sampler is asked for.
    pub fn uses(&self, kind: SamplerKind) -> bool {
        self.samplers.contains(&kind)
    }

    /// Whether recent tokens change the logits.
    pub fn has_penalties(&self) -> bool {
        self.penalty_tokens != Some(0)
            && self.uses(SamplerKind::Penalties)
            && !(is(self.repeat_penalty, 1.0)
                && is(self.frequency_penalty, 0.0)
                && is(self.presence_penalty, 0.0))
    }

    /// Whether repetitions are punished.
    pub fn has_dry(&self) -> bool {
        self.uses(SamplerKind::Dry) && !is(self.dry_multiplier, 0.0) && self.dry_tokens != Some(0)
    }

    /// Whether the likeliest token is taken always, so that no sampler need be asked. Samplers that
    /// can drop the likeliest token, or move logits out of turn, say no.
    pub fn is_greedy(&self) -> bool {
        let likeliest_only = (self.temperature <= 0.0 && self.uses(SamplerKind::Temperature))
            || (self.top_k == 1 && self.keep_min <= 1 && self.uses(SamplerKind::TopK));
        let steered = self.mirostat != Mirostat::Off && self.temperature > 0.0;
        let drops_likeliest = (self.uses(SamplerKind::Xtc) && self.xtc_probability > 0.0)
            || (self.uses(SamplerKind::Typical) && self.typical_p < 1.0)
            || self.uses(SamplerKind::Infill)
            || (self.uses(SamplerKind::AdaptiveP) && self.adaptive_target.is_some());
        let penalties_later =
            self.has_penalties() && self.samplers.first() != Some(&SamplerKind::Penalties);
        likeliest_only && !steered && !drops_likeliest && !penalties_later && !self.has_dry()
    }

    /// Whether every number is in its range and the samplers go together.
    pub fn check(&self) -> Result<(), OptionError> {
        for (what, value, least, most) in self.ranges() {
            if !(least..=most).contains(&value) {
                let least =
                    if least.is_subnormal() || least.to_bits() == f32::MIN_POSITIVE.to_bits() {
                        "above 0".to_owned()
                    } else {
                        least.to_string()
                    };
                let range = format!("{least} to {most}");
                return Err(OptionError::OutOfRange { what, value: value.to_string(), range });
            }
        }
        for (what, value, most) in [
            ("DRY allowed length", self.dry_allowed_tokens, 1 << 16),
            ("tokens to keep", self.keep_min, 1 << 16),
        ] {
            if value > most {
                let range = format!("0 to {most}");
                return Err(OptionError::OutOfRange { what, value: value.to_string(), range });
            }
        }
        self.check_lists()
    }

    fn ranges(&self) -> [(&'static str, f32, f32, f32); 18] {
        let adaptive_target = self.adaptive_target.unwrap_or(0.0);
        [
            ("temperature", self.temperature, 0.0, 100.0),
            ("dynamic temperature range", self.dynamic_temperature_range, 0.0, 100.0),
            ("dynamic temperature exponent", self.dynamic_temperature_exponent, 0.0, 100.0),
            ("top-p", self.top_p, 0.0, 1.0),
            ("min-p", self.min_p, 0.0, 1.0),
            ("typical-p", self.typical_p, 0.0, 1.0),
            ("top-n-sigma", self.top_n_sigma, -1.0, 100.0),
            ("XTC probability", self.xtc_probability, 0.0, 1.0),
            ("XTC threshold", self.xtc_threshold, 0.0, 1.0),
            ("repeat penalty", self.repeat_penalty, f32::MIN_POSITIVE, 100.0),
            ("frequency penalty", self.frequency_penalty, -100.0, 100.0),
            ("presence penalty", self.presence_penalty, -100.0, 100.0),
            ("DRY multiplier", self.dry_multiplier, 0.0, 100.0),
            ("DRY base", self.dry_base, 1.0, 100.0),
            ("Mirostat tau", self.mirostat_tau, 0.0, 100.0),
            ("Mirostat eta", self.mirostat_eta, 0.0, 1.0),
            ("adaptive-p target", adaptive_target, 0.0, 1.0),
            ("adaptive-p decay", self.adaptive_decay, 0.0, 0.99),
        ]
    }

    fn check_lists(&self) -> Result<(), OptionError> {
        let refuse = |reason: String| Err(OptionError::Sampling(reason));
        for (index, kind) in self.samplers.iter().enumerate() {
            if self.samplers[..index].contains(kind) {
                return refuse(format!("samplers: {} is named twice", kind.name()));
            }
        }
        if self.uses(SamplerKind::AdaptiveP) && self.adaptive_target.is_none() {
            return refuse("samplers: adaptive_p has no target probability".to_owned());
        }
        if let Some(place) = self.samplers.iter().position(|kind| *kind == SamplerKind::Infill) {
            let few = (1..=INFILL_CANDIDATES_MAX).contains(&self.top_k)
                && self.samplers[..place].contains(&SamplerKind::TopK);
            if !few {
                let most = INFILL_CANDIDATES_MAX;
                return refuse(format!("samplers: infill needs top_k of 1 to {most} in front"));
            }
        }
        if self.logit_bias.len() > LOGIT_BIASES_MAX {
            let (count, most) = (self.logit_bias.len(), LOGIT_BIASES_MAX);
            return refuse(format!("logit bias: {count} tokens, {most} are the most"));
        }
        for (token, bias) in &self.logit_bias {
            let allowed = *bias == f32::NEG_INFINITY || bias.abs() <= 1e6;
            if !allowed {
                return refuse(format!(
                    "logit bias of token {token}: {bias} is outside -1e6 to 1e6"
                ));
            }
        }
        self.check_texts()
    }

    fn check_texts(&self) -> Result<(), OptionError> {
        let refuse = |reason: String| Err(OptionError::Sampling(reason));
        if self.dry_breakers.len() > BREAKERS_MAX {
            let (count, most) = (self.dry_breakers.len(), BREAKERS_MAX);
            return refuse(format!("DRY sequence breakers: {count}, {most} are the most"));
        }
        for breaker in &self.dry_breakers {
            if breaker.is_empty() || breaker.len() > BREAKER_BYTES_MAX || breaker.contains('\0') {
                let most = BREAKER_BYTES_MAX;
                return refuse(format!("DRY sequence breaker {breaker:?}: not 1 to {most} bytes"));
            }
        }
        if self.triggers.len() > TRIGGERS_MAX {
            let (count, most) = (self.triggers.len(), TRIGGERS_MAX);
            return refuse(format!("triggers of the constraint: {count}, {most} are the most"));
        }
        if self.constraint.is_none() && !self.triggers.is_empty() {
            return refuse("triggers: there is no constraint that they could start".to_owned());
        }
        for trigger in &self.triggers {
            if let TriggerWhat::Word(word) = &trigger.what
                && !(1..=TRIGGER_BYTES_MAX).contains(&word.len())
            {
                let most = TRIGGER_BYTES_MAX;
                return refuse(format!("trigger {word:?}: not 1 to {most} bytes"));
            }
        }
        Ok(())
    }
}

/// Whether a setting is at its neutral value.
fn is(value: f32, neutral: f32) -> bool {
    (value - neutral).abs() < f32::EPSILON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_meet_their_ranges() {
        assert_eq!(Sampling::default().check(), Ok(()));
        let default = Sampling::default;
        for sampling in [
            Sampling { temperature: -1.0, ..default() },
            Sampling { temperature: f32::NAN, ..default() },
            Sampling { top_p: 1.5, ..default() },
            Sampling { repeat_penalty: 0.0, ..default() },
            Sampling { presence_penalty: f32::INFINITY, ..default() },
            Sampling { dry_base: 0.5, ..default() },
            Sampling { dry_allowed_tokens: u32::MAX, ..default() },
            Sampling { dry_breakers: vec![String::new()], ..default() },
            Sampling { dry_breakers: vec!["a\0b".to_owned()], ..default() },
            Sampling { xtc_threshold: f32::NAN, ..default() },
            Sampling { adaptive_decay: 1.0, ..default() },
            Sampling { samplers: vec![SamplerKind::TopK, SamplerKind::TopK], ..default() },
            Sampling { samplers: vec![SamplerKind::AdaptiveP], ..default() },
            Sampling { samplers: vec![SamplerKind::Infill], ..default() },
            Sampling { logit_bias: vec![(0, f32::NAN)], ..default() },
            Sampling { logit_bias: vec![(0, f32::INFINITY)], ..default() },
            Sampling { logit_bias: vec![(0, 0.0); LOGIT_BIASES_MAX + 1], ..default() },
        ] {
            assert!(sampling.check().is_err(), "{sampling:?}");
        }
        let banned = Sampling { logit_bias: vec![(0, f32::NEG_INFINITY)], ..default() };
        assert_eq!(banned.check(), Ok(()));
    }

    #[test]
    fn penalties_count_only_when_they_change_something() {
        assert!(!Sampling::default().has_penalties());
        assert!(Sampling { repeat_penalty: 1.1, ..Sampling::default() }.has_penalties());
        let none = Sampling { repeat_penalty: 1.1, penalty_tokens: Some(0), ..Sampling::default() };
        assert!(!none.has_penalties());
    }

    #[test]
    fn greedy_is_only_what_always_takes_the_likeliest() {
        assert!(Sampling::greedy().is_greedy());
        assert!(Sampling { mirostat: Mirostat::Two, ..Sampling::greedy() }.is_greedy());
        assert!(Sampling { top_k: 1, ..Sampling::default() }.is_greedy());
        assert!(!Sampling::default().is_greedy());
        for sampling in [
            Sampling { xtc_probability: 0.5, ..Sampling::greedy() },
            Sampling { typical_p: 0.5, ..Sampling::greedy() },
            Sampling { dry_multiplier: 0.8, ..Sampling::greedy() },
            Sampling { samplers: vec![SamplerKind::TopP], ..Sampling::greedy() },
        ] {
            assert!(!sampling.is_greedy(), "{sampling:?}");
        }
    }

    #[test]
    fn names_lead_to_kinds_and_back() {
        for (kind, name) in SamplerKind::ALL {
            assert_eq!(SamplerKind::from_name(name), Some(kind));
            assert_eq!(kind.name(), name);
        }
        assert_eq!(SamplerKind::from_name("top-k"), Some(SamplerKind::TopK));
        assert_eq!(SamplerKind::from_name("nucleus"), None);
    }
}
