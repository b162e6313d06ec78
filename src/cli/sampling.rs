//! The flags that say how tokens are chosen.

use clap::Args;

use super::failure::Failure;
use crate::engine::options::{Mirostat, SamplerKind, Sampling};

/// Unset values come from the model's own recommendation, then from our defaults.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArguments {
    /// 0 takes the likeliest token always [default: the model's, else 0.8].
    #[arg(short, long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among this many of the likeliest tokens; 0: all [default: the model's, else 40].
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the likeliest tokens that together reach this probability [default: the model's, else 0.95].
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Choose among tokens with at least this share of the likeliest one's probability [default: the model's, else 0.05].
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make recent tokens less likely: above 1 [default: the model's, else 1, off].
    #[arg(long, value_name = "R")]
    repeat_penalty: Option<f32>,
    /// How many tokens are recent [default: 64].
    #[arg(long, value_name = "N")]
    repeat_last: Option<u32>,
    /// Lower a token's logit by this much for each recent occurrence.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Lower a token's logit by this much when it occurred lately.
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Punish what would repeat the last tokens: strength of DRY, 0.8 is usual [default: 0, off].
    #[arg(long, value_name = "F")]
    dry_multiplier: Option<f32>,
    /// By how much DRY grows with each repeated token [default: 1.75].
    #[arg(long, value_name = "F")]
    dry_base: Option<f32>,
    /// Repetitions up to this many tokens go unpunished by DRY [default: 2].
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<u32>,
    /// How many tokens back DRY looks [default: 64].
    #[arg(long, value_name = "N")]
    dry_last: Option<u32>,
    /// Text at which a repetition ends for DRY; may be given several times, and replaces the four usual ones.
    #[arg(long, value_name = "TEXT")]
    dry_breaker: Vec<String>,
    /// Choose among logits within this many standard deviations of the largest.
    #[arg(long, value_name = "N")]
    top_n_sigma: Option<f32>,
    /// Choose among tokens of typical surprise that together reach this probability.
    #[arg(long, value_name = "P")]
    typical_p: Option<f32>,
    /// How often to leave the top choices out (XTC).
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,
    /// From which probability on a token is a top choice for XTC [default: 0.1].
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,
    /// Let the temperature move by this much to either side, with how sure the model is.
    #[arg(long, value_name = "T")]
    dynamic_temperature: Option<f32>,
    /// Keep the surprise of the text steady: Mirostat 1 or 2, in place of the samplers that choose among the likeliest.
    #[arg(long, value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2))]
    mirostat: Option<u8>,
    /// The surprise that Mirostat aims at [default: 5].
    #[arg(long, value_name = "BITS")]
    mirostat_tau: Option<f32>,
    /// How fast Mirostat learns [default: 0.1].
    #[arg(long, value_name = "F")]
    mirostat_eta: Option<f32>,
    /// Choose tokens near this probability (adaptive-p).
    #[arg(long, value_name = "P")]
    adaptive_target: Option<f32>,
    /// How much of its history adaptive-p keeps with each token [default: 0.9].
    #[arg(long, value_name = "F")]
    adaptive_decay: Option<f32>,
    /// The samplers and their order, separated by commas; those left out do not act [default: penalties, dry,
    /// top_n_sigma, top_k, typ_p, top_p, min_p, xtc, temperature].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = sampler)]
    samplers: Vec<SamplerKind>,
    /// Add a number to a token's logit: TOKEN=NUMBER, -inf forbids it; may be given several times.
    #[arg(long, value_name = "TOKEN=N", value_parser = bias, allow_hyphen_values = true)]
    logit_bias: Vec<(i32, f32)>,
    /// Where the random numbers start; the same seed gives the same reply.
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
}

impl SamplingArguments {
    /// What was asked over what the model recommends.
    pub(super) fn over(&self, base: &Sampling) -> Result<Sampling, Failure> {
        let or = |asked: Option<f32>, base: f32| asked.unwrap_or(base);
        let mut sampling = Sampling {
            temperature: or(self.temperature, base.temperature),
            dynamic_temperature_range: or(self.dynamic_temperature, base.dynamic_temperature_range),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: or(self.top_p, base.top_p),
            min_p: or(self.min_p, base.min_p),
            typical_p: or(self.typical_p, base.typical_p),
            top_n_sigma: or(self.top_n_sigma, base.top_n_sigma),
            xtc_probability: or(self.xtc_probability, base.xtc_probability),
            xtc_threshold: or(self.xtc_threshold, base.xtc_threshold),
            repeat_penalty: or(self.repeat_penalty, base.repeat_penalty),
            frequency_penalty: or(self.frequency_penalty, base.frequency_penalty),
            presence_penalty: or(self.presence_penalty, base.presence_penalty),
            penalty_tokens: self.repeat_last.or(base.penalty_tokens),
            dry_multiplier: or(self.dry_multiplier, base.dry_multiplier),
            dry_base: or(self.dry_base, base.dry_base),
            dry_allowed_tokens: self.dry_allowed_length.unwrap_or(base.dry_allowed_tokens),
            dry_tokens: self.dry_last.or(base.dry_tokens),
            mirostat_tau: or(self.mirostat_tau, base.mirostat_tau),
            mirostat_eta: or(self.mirostat_eta, base.mirostat_eta),
            adaptive_target: self.adaptive_target.or(base.adaptive_target),
            adaptive_decay: or(self.adaptive_decay, base.adaptive_decay),
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.or(base.seed),
            ..base.clone()
        };
        if let Some(version) = self.mirostat {
            sampling.mirostat = if version == 1 { Mirostat::One } else { Mirostat::Two };
        }
        if !self.dry_breaker.is_empty() {
            sampling.dry_breakers.clone_from(&self.dry_breaker);
        }
        if !self.samplers.is_empty() {
            sampling.samplers.clone_from(&self.samplers);
        } else if self.adaptive_target.is_some() {
            // It draws the token, so that it stands last whatever the list says.
            sampling.samplers.push(SamplerKind::AdaptiveP);
        }
        if self.adaptive_target.is_some() && !sampling.uses(SamplerKind::AdaptiveP) {
            let hint = "add adaptive_p to --samplers";
            return Err(Failure::usage("--adaptive-target: the sampler is not in the list", hint));
        }
        Ok(sampling)
    }
}

fn sampler(name: &str) -> Result<SamplerKind, String> {
    let name = name.trim();
    SamplerKind::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = SamplerKind::ALL.iter().map(|(_, name)| *name).collect();
        format!("there is no sampler {name}; there are {}", names.join(", "))
    })
}

fn bias(text: &str) -> Result<(i32, f32), String> {
    let parsed = text.split_once('=').and_then(|(token, number)| {
        Some((token.trim().parse().ok()?, number.trim().parse().ok()?))
    });
    parsed.ok_or_else(|| "TOKEN=NUMBER is expected, such as 1234=-5".to_owned())
}
