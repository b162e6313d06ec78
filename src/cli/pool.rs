//! How `nfl serve` keeps models, as flags and environment say it.

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::placement::{CacheTypes, cache_types};
use crate::chat::pool::{KeepAlive, PoolOptions};
use crate::engine::options::{Speculation, StateOptions};
use crate::engine::plan::Wishes;
use crate::settings;
use crate::term::Printer;

/// Bytes of saved states, of all models together.
const STATES_BYTES_MAX: u64 = 4 << 30;

/// What is not given comes from the environment, `NFL_` and then `OLLAMA_` before the name in capitals.
#[derive(Debug, Args)]
#[command(next_help_heading = "Models")]
pub(super) struct PoolArguments {
    /// How long models stay after their last use: 30s, 5m, 0 unloads at once, below zero is until their memory is needed
    /// [default: KEEP_ALIVE, else 5m]. What a request asks for counts more.
    #[arg(long, value_name = "TIME", value_parser = keep_alive, allow_hyphen_values = true)]
    keep_alive: Option<KeepAlive>,
    /// Models at the same time [default: MAX_LOADED_MODELS, else as many as memory holds].
    #[arg(long, value_name = "N")]
    models_max: Option<u32>,
    /// Context in tokens of models that do not say and are not asked for another [default: CONTEXT_LENGTH, else what fits:
    /// 4096, and more while its cache is small beside the weights].
    #[arg(long = "ctx", visible_alias = "context", value_name = "N")]
    context: Option<u32>,
    /// Conversations of one model that are computed side by side, each with the whole context [default: NUM_PARALLEL, else
    /// up to 4 that fit].
    #[arg(long, value_name = "N")]
    parallel: Option<u32>,
    /// Requests that may wait; more are refused with status 503 [default: MAX_QUEUE, else 512].
    #[arg(long, value_name = "N")]
    queue_max: Option<u32>,
    /// How long loading may stand still before it is given up; 0 is for ever [default: LOAD_TIMEOUT, else 5m].
    #[arg(long, value_name = "TIME", value_parser = keep_alive, allow_hyphen_values = true)]
    load_timeout: Option<KeepAlive>,
    /// Type of the cache: f16, q8_0 …; KEYS,VALUES for one each [default: KV_CACHE_TYPE, else f16, or q8_0 where memory is
    /// short].
    #[arg(long, value_name = "TYPE", value_parser = cache_types)]
    kv: Option<CacheTypes>,
    /// Compute attention in separate steps instead of one fused pass (FLASH_ATTENTION=0).
    #[arg(long)]
    no_flash_attention: bool,
    /// Guess tokens ahead and check several at once: replies are the same, and come sooner where they repeat something.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Guessing::Auto)]
    spec: Guessing,
    /// Forget conversations when their model is unloaded, instead of saving up to 4 GiB of what was computed of them.
    #[arg(long)]
    no_keep_state: bool,
}

/// Where guesses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Guessing {
    /// Nowhere: one token after the other.
    Off,
    /// Prompt, reply and the model's own layer for it, as long as it pays.
    Auto,
    /// Prompt and reply.
    Ngram,
}

impl PoolArguments {
    /// What is meant, flags before environment.
    pub(super) fn read(&self, home: &Path, printer: &Printer) -> Result<PoolOptions, Failure> {
        let usual = PoolOptions::default();
        let is = Environment { printer };
        let count = |given: Option<u32>, name: &str| -> Result<Option<u32>, Failure> {
            // In Ollama's settings 0 leaves it open.
            Ok(is.or(given, name, whole_number)?.filter(|count| *count > 0))
        };
        let types = is.or(self.kv, "KV_CACHE_TYPE", cache_types)?;
        let fused = is.or(self.no_flash_attention.then_some(false), "FLASH_ATTENTION", truth)?;
        let load_timeout = is.or(self.load_timeout, "LOAD_TIMEOUT", keep_alive)?;
        let keep_alive = is.or(self.keep_alive, "KEEP_ALIVE", keep_alive)?;
        let states = StateOptions { directory: home.join("states"), bytes_max: STATES_BYTES_MAX };
        Ok(PoolOptions {
            keep_alive: keep_alive.unwrap_or(usual.keep_alive),
            models_max: count(self.models_max, "MAX_LOADED_MODELS")?.map(|count| count as usize),
            sequences: count(self.parallel, "NUM_PARALLEL")?,
            queue_max: count(self.queue_max, "MAX_QUEUE")?.unwrap_or(usual.queue_max),
            wishes: Wishes {
                context_tokens: count(self.context, "CONTEXT_LENGTH")?,
                key_type: types.map(|types| types.key),
                value_type: types.map(|types| types.value),
                no_fused_attention: fused == Some(false),
                ..Wishes::default()
            },
            load_timeout: match load_timeout {
                Some(KeepAlive::Forever | KeepAlive::For(Duration::ZERO)) => None,
                Some(KeepAlive::For(time)) => Some(time),
                None => usual.load_timeout,
            },
            states: (!self.no_keep_state).then_some(states),
            speculation: match self.spec {
                Guessing::Off => Speculation::Off,
                Guessing::Auto => Speculation::Auto,
                Guessing::Ngram => Speculation::Ngram,
            },
        })
    }
}

/// The environment, and where to say that a value of it means nothing.
struct Environment<'a> {
    printer: &'a Printer,
}

impl Environment<'_> {
    /// What was given, else what the environment says. Another program's setting that means nothing here is told and passed
    /// over; one of ours is a mistake.
    fn or<T>(
        &self,
        given: Option<T>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        let setting = settings::serving(name).filter(|_| given.is_none());
        let Some(setting) = setting else { return Ok(given) };
        match parse(&setting.text) {
            Ok(value) => Ok(Some(value)),
            Err(reason) if setting.is_foreign() => {
                self.printer.warn(&format!("{} is passed over: {reason}", setting.variable));
                Ok(None)
            }
            Err(reason) => {
                let hint = format!("correct it, or leave it out: unset {}", setting.variable);
                Err(Failure::usage(format!("{}: {reason}", setting.variable), &hint))
            }
        }
    }
}

fn keep_alive(text: &str) -> Result<KeepAlive, String> {
    KeepAlive::from_setting(text)
        .map_err(|_| format!("{text:?} is no time; write 30s, 5m or 1h30m, or a number of seconds"))
}

fn whole_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number from 0 on"))
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "yes" => Ok(true),
        "0" | "f" | "false" | "off" | "no" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}
