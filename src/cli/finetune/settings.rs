//! The numbers of a run, from wherever they come: flags before a recipe, a recipe before a preset, a preset before what
//! is usual.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use nfl_models::Role;
use serde::{Deserialize, Serialize};

use crate::learn::Long;
use crate::training::block::Keep;
use crate::training::optimizer::Schedule;
use crate::training::targets::MAPS;

/// What changes the results of a run, and what does not but belongs to its recipe.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Examples that are not learned: their loss is told before, now and then, and at the end.
    #[arg(long, value_name = "FILE", conflicts_with = "eval_split")]
    pub(super) eval: Option<PathBuf>,
    /// Take this share of the examples for that instead, such as 0.1.
    #[arg(long, value_name = "X")]
    pub(super) eval_split: Option<f64>,
    /// Leave examples out that make no sense, and say how many.
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    pub(super) skip_bad: bool,
    /// What becomes of examples longer than --length [default: cut].
    #[arg(long, value_enum)]
    pub(super) too_long: Option<TooLong>,
    /// Learn which of two answers is better (DPO), from prompt, chosen and rejected.
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    pub(super) dpo: bool,
    /// How strongly --dpo holds to the model as it was [default: 0.1].
    #[arg(long, value_name = "X")]
    pub(super) beta: Option<f64>,
    /// Rank of the adapters [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) rank: Option<u16>,
    /// Strength of the adapters: their scale is alpha/rank [default: 32].
    #[arg(long, value_name = "X")]
    pub(super) alpha: Option<f64>,
    /// Scale by alpha/√rank instead (rsLoRA).
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    pub(super) rslora: bool,
    /// Which linear maps get adapters [default: all].
    #[arg(long, value_enum)]
    pub(super) targets: Option<Targets>,
    /// Steps of the optimiser [default: 100].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) steps: Option<u64>,
    /// Tokens of a micro-batch: examples are packed into it whole [default: 512].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=1 << 20))]
    pub(super) length: Option<u32>,
    /// Micro-batches of a step; pairs of it with --dpo [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) batch: Option<u32>,
    /// Learning rate [default: 2e-4; 5e-6 with --dpo].
    #[arg(long, value_name = "X")]
    pub(super) rate: Option<f64>,
    /// How the rate changes [default: cosine].
    #[arg(long, value_enum)]
    pub(super) schedule: Option<ScheduleChoice>,
    /// Steps in which the rate rises to its full height [default: 5].
    #[arg(long, value_name = "N")]
    pub(super) warmup: Option<u64>,
    /// Share of the weights, times the rate, that goes with each step [default: 0.01].
    #[arg(long, value_name = "X")]
    pub(super) weight_decay: Option<f64>,
    /// Length that gradients are shortened to; 0 leaves them [default: 1].
    #[arg(long, value_name = "X")]
    pub(super) clip: Option<f64>,
    /// Noise on embeddings (NEFTune) of this strength, such as 5 [default: 0].
    #[arg(long, value_name = "X")]
    pub(super) neftune: Option<f64>,
    /// End when so many looks at the evaluation examples in a row were no better than the best one, whose adapter is
    /// kept.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) patience: Option<u64>,
    /// Where all random numbers start [default: 3407].
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Steps between checkpoints [default: 50].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) save_every: Option<u64>,
    /// Steps between looks at the evaluation examples [default: 50].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) eval_every: Option<u64>,
    /// What is kept of each block between the two ways through it: less memory costs time [default: selective].
    #[arg(long, value_enum)]
    pub(super) keep: Option<KeepChoice>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What becomes of examples that are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum TooLong {
    /// They are learned in parts, of which none sees another.
    Cut,
    /// They are left out.
    Skip,
    /// They are refused.
    Refuse,
}

/// Which linear maps get adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Targets {
    /// Those of attention and of the feed-forward part.
    All,
    /// Those of attention.
    Attention,
    /// Those of the feed-forward part.
    Mlp,
}

/// How the rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ScheduleChoice {
    /// It stays.
    Constant,
    /// It falls in a straight line.
    Linear,
    /// It falls along half a cosine.
    Cosine,
}

/// What is kept of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum KeepChoice {
    /// All that the way back reads.
    All,
    /// What matrix products made.
    Selective,
    /// What goes in.
    Boundary,
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// How things are said: rank 8, alpha 16, NEFTune 5.
    Style,
    /// What is known: rank 64, alpha 16, rsLoRA, rate 1e-4, 10 steps of warm-up, 4 micro-batches a step.
    Knowledge,
    /// Calls of tools: rank 16, alpha 32, rate 1e-4, 2048 tokens, 4 micro-batches a step.
    Tools,
}

impl Preset {
    fn settings(self) -> Settings {
        let none = Settings::default();
        match self {
            Self::Style => {
                Settings { rank: Some(8), alpha: Some(16.0), neftune: Some(5.0), ..none }
            }
            Self::Knowledge => Settings {
                rank: Some(64),
                alpha: Some(16.0),
                rslora: true,
                rate: Some(1e-4),
                warmup: Some(10),
                batch: Some(4),
                ..none
            },
            Self::Tools => Settings {
                rank: Some(16),
                alpha: Some(32.0),
                rate: Some(1e-4),
                length: Some(2048),
                batch: Some(4),
                ..none
            },
        }
    }
}

impl Targets {
    pub(super) fn roles(self) -> Vec<Role> {
        let (attention, feed_forward) = MAPS.split_at(4);
        let maps = match self {
            Self::All => &MAPS[..],
            Self::Attention => attention,
            Self::Mlp => feed_forward,
        };
        maps.iter().map(|(role, _)| *role).collect()
    }
}

impl From<ScheduleChoice> for Schedule {
    fn from(choice: ScheduleChoice) -> Self {
        match choice {
            ScheduleChoice::Constant => Self::Constant,
            ScheduleChoice::Linear => Self::Linear,
            ScheduleChoice::Cosine => Self::Cosine,
        }
    }
}

impl From<KeepChoice> for Keep {
    fn from(choice: KeepChoice) -> Self {
        match choice {
            KeepChoice::All => Self::All,
            KeepChoice::Selective => Self::Selective,
            KeepChoice::Boundary => Self::Boundary,
        }
    }
}

impl From<TooLong> for Long {
    fn from(choice: TooLong) -> Self {
        match choice {
            TooLong::Cut => Self::Cut,
            TooLong::Skip => Self::Skip,
            TooLong::Refuse => Self::Refuse,
        }
    }
}

impl Settings {
    /// What is usual. What has no usual value is not there.
    fn usual(dpo: bool) -> Self {
        Self {
            too_long: Some(TooLong::Cut),
            beta: dpo.then_some(0.1),
            rank: Some(16),
            alpha: Some(32.0),
            targets: Some(Targets::All),
            steps: Some(100),
            length: Some(512),
            batch: Some(1),
            rate: Some(if dpo { 5e-6 } else { 2e-4 }),
            schedule: Some(ScheduleChoice::Cosine),
            warmup: Some(5),
            weight_decay: Some(0.01),
            clip: Some(1.0),
            neftune: Some(0.0),
            seed: Some(3407),
            save_every: Some(50),
            eval_every: Some(50),
            keep: Some(KeepChoice::Selective),
            ..Self::default()
        }
    }

    /// These before those of a recipe, those before a preset's, and what is usual for the rest.
    pub(super) fn complete(
        &self,
        recipe: &Self,
        preset: Option<Preset>,
    ) -> Result<Self, toml::ser::Error> {
        let preset = preset.map(Preset::settings).unwrap_or_default();
        let usual = Self::usual(self.dpo || recipe.dpo);
        let mut all = toml::Table::new();
        for layer in [&usual, &preset, recipe, self] {
            let layer = toml::Table::try_from(layer)?;
            // The two ways to say what is looked at are one setting.
            if layer.contains_key("eval") || layer.contains_key("eval-split") {
                all.remove("eval");
                all.remove("eval-split");
            }
            all.extend(layer);
        }
        Ok(all.try_into().expect("settings that were written can be read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_recipes_and_recipes_before_presets() {
        let flags = Settings { rank: Some(3), eval_split: Some(0.5), ..Settings::default() };
        let recipe = Settings {
            rank: Some(4),
            steps: Some(7),
            eval: Some("e".into()),
            ..Settings::default()
        };
        let all = flags.complete(&recipe, Some(Preset::Knowledge)).unwrap();
        assert_eq!((all.rank, all.steps, all.batch), (Some(3), Some(7), Some(4)));
        assert_eq!((all.alpha, all.rslora, all.clip), (Some(16.0), true, Some(1.0)));
        assert_eq!((all.eval, all.eval_split), (None, Some(0.5)));
        let dpo = Settings { dpo: true, ..Settings::default() };
        let all = dpo.complete(&Settings::default(), None).unwrap();
        assert_eq!((all.beta, all.rate), (Some(0.1), Some(5e-6)));
    }
}
