//! The counters as Prometheus reads them (text format 0.0.4).
//!
//! Where llama-server has a counter for the same thing, its name is used, so that dashboards made for it work.

use std::fmt::{Display, Write};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use super::Metrics;
use crate::chat::pool::LoadedModel;

/// What is not counted but is so now.
#[derive(Debug, Default)]
pub(in crate::server) struct Now {
    /// The models that are loaded.
    pub(in crate::server) models: Vec<LoadedModel>,
    /// Batches that their workers computed.
    pub(in crate::server) steps: u64,
}

/// The text that is being written.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

impl Metrics {
    /// All of it.
    pub(in crate::server) fn page(&self, now: &Now) -> String {
        let mut page = Page::default();
        self.requests(&mut page);
        self.counters(&mut page, now);
        self.gauges(&mut page, now);
        models(&mut page, &now.models);
        for (name, help, histogram) in [
            (
                "nfl_time_to_first_token_seconds",
                "From a request to the first piece of its reply, loading and waiting included.",
                &self.first_token,
            ),
            (
                "nfl_token_gap_seconds",
                "Between two pieces of a reply; a piece is a token or, where text has to be held back, several.",
                &self.gap,
            ),
            (
                "nfl_model_load_seconds",
                "Until a model was there that had to be loaded.",
                &self.load,
            ),
        ] {
            page.head(name, "histogram", help);
            histogram.write(name, &mut page.0);
        }
        page.0
    }

    fn requests(&self, page: &mut Page) {
        let name = "nfl_http_requests_total";
        page.head(name, "counter", "Answered requests by route, method and status.");
        for (answered, count) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let route = label(&answered.route);
            let method = label(&answered.method);
            let status = answered.status;
            let _ = writeln!(
                page.0,
                "{name}{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            );
        }
    }

    fn counters(&self, page: &mut Page, now: &Now) {
        let seconds = |counter: &AtomicU64| load(counter) as f64 / 1e6;
        let mut counter = |name: &str, help: &str, value: f64| {
            page.one(name, "counter", help, value);
        };
        let mut count = |name: &str, help: &str, value: &AtomicU64| {
            counter(&format!("llamacpp:{name}"), help, load(value) as f64);
        };
        count("prompt_tokens_total", "Tokens of prompts that were read.", &self.prompt_tokens);
        count(
            "prompt_tokens_cached_total",
            "Tokens of prompts that were known already.",
            &self.cached_tokens,
        );
        count("tokens_predicted_total", "Tokens of replies.", &self.generated_tokens);
        count(
            "n_tokens_max",
            "Tokens of the longest prompt with its reply so far.",
            &self.longest_tokens,
        );
        count("spec_decode_num_drafts_total", "Steps that computed guessed tokens.", &self.drafts);
        count(
            "spec_decode_num_draft_tokens_total",
            "Guessed tokens that were computed.",
            &self.drafted_tokens,
        );
        count(
            "spec_decode_num_accepted_tokens_total",
            "Guessed tokens that held.",
            &self.accepted_tokens,
        );
        counter(
            "llamacpp:prompt_seconds_total",
            "Time for reading prompts.",
            seconds(&self.prompt_microseconds),
        );
        counter(
            "llamacpp:tokens_predicted_seconds_total",
            "Time for making replies, from their first token on.",
            seconds(&self.decode_microseconds),
        );
        counter(
            "llamacpp:n_decode_total",
            "Batches computed by the models that are loaded now.",
            now.steps as f64,
        );
        counter(
            "nfl_worker_deaths_total",
            "Replies that ended because the process of their model died.",
            load(&self.worker_deaths) as f64,
        );
    }

    fn gauges(&self, page: &mut Page, now: &Now) {
        let rate = |tokens: &AtomicU64, microseconds: &AtomicU64| match load(microseconds) {
            0 => 0.0,
            us => load(tokens) as f64 * 1e6 / us as f64,
        };
        let mut gauge = |name: &str, help: &str, value: f64| page.one(name, "gauge", help, value);
        gauge(
            "llamacpp:prompt_tokens_seconds",
            "Tokens a second while prompts are read, on average.",
            rate(&self.prompt_tokens, &self.prompt_microseconds),
        );
        gauge(
            "llamacpp:predicted_tokens_seconds",
            "Tokens a second of one reply after its first token, on average.",
            rate(&self.decoded_tokens, &self.decode_microseconds),
        );
        gauge(
            "llamacpp:requests_processing",
            "Replies that are being made.",
            load(&self.busy) as f64,
        );
        gauge(
            "llamacpp:requests_deferred",
            "Requests that wait for a model or for their turn.",
            load(&self.waiting) as f64,
        );
        gauge(
            "llamacpp:n_busy_slots_per_decode",
            "Tokens of replies computed in one batch, on average.",
            load(&self.decoded_tokens) as f64 / (now.steps.max(1)) as f64,
        );
        gauge("nfl_models_loaded", "Models that are loaded.", now.models.len() as f64);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge(
            "process_start_time_seconds",
            "When the server started, in seconds since 1970.",
            started.as_secs_f64(),
        );
    }
}

/// What each loaded model takes.
fn models(page: &mut Page, models: &[LoadedModel]) {
    type Value = fn(&LoadedModel) -> u64;
    let gauges: [(&str, &str, Value); 4] = [
        ("nfl_model_bytes", "Memory of a loaded model.", |model| model.bytes),
        ("nfl_model_gpu_bytes", "Memory of a loaded model on GPUs.", |model| model.gpu_bytes),
        ("nfl_model_busy", "Replies of a model that are being made.", |model| model.busy.into()),
        ("nfl_model_waiting", "Requests that wait for a model.", |model| model.waiting.into()),
    ];
    for (name, help, value) in gauges {
        page.head(name, "gauge", help);
        for model in models {
            let _ = writeln!(page.0, "{name}{{model=\"{}\"}} {}", label(&model.name), value(model));
        }
    }
}

/// A label's value: without what would end it.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
