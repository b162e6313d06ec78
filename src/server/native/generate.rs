//! POST `/generate`: a reply with how sure the model is of it.
//!
//! `confidence` is the geometric mean of the probabilities that the model itself gave the tokens of the answer, thinking
//! left out: exp(Σ ln p / n). It says how expected the words are, not whether they are true. Below
//! [`CONFIDENT`] the answer comes with a few short others that the model might have given as well.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::{failure, wire};
use crate::chat::pool::Lease;
use crate::chat::{Event, Input, Message, Request, Role};
use crate::engine::options::Sampling;
use crate::server::Server;
use crate::server::body::Raw;
use crate::server::problem::Problem;
use crate::server::reply::{Reply, Step, blocking};
use crate::server::which::{self, Named};

/// The confidence from which on an answer stands alone.
const CONFIDENT: f64 = 0.7;

/// Other answers, when nobody says how many.
const ALTERNATIVES: u32 = 2;

/// The most other answers.
const ALTERNATIVES_MAX: u32 = 3;

/// Tokens of one of them.
const ALTERNATIVE_TOKENS: u32 = 64;

/// Tokens of an answer when nobody says how many.
const TOKENS: u32 = 512;

/// The temperature of an answer when nobody says which.
const TEMPERATURE: f32 = 0.7;

pub(super) async fn generate(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    let result = match raw.parse::<wire::Generate>() {
        Ok(asked) => answer(&server, asked).await,
        Err(problem) => Err(problem),
    };
    failure::answer(result)
}

async fn answer(server: &Arc<Server>, asked: wire::Generate) -> Result<Value, Problem> {
    if asked.stream {
        return Err(Problem {
            hint: Some("/v1/chat/completions and /api/generate stream".to_owned()),
            ..Problem::invalid("stream: confidence is known at the end only")
        });
    }
    let others = asked.alternatives.unwrap_or(ALTERNATIVES);
    if others > ALTERNATIVES_MAX {
        let text = format!("alternatives: {others}, {ALTERNATIVES_MAX} are the most");
        return Err(Problem::invalid(text));
    }
    let pool = Arc::clone(server);
    let model = asked.model.clone();
    let model = blocking(move || which::named(&pool.pool, model.as_deref())).await?;
    let asked = Arc::new(asked);
    let first = collect(start(server, &model, &asked, 0)).await?;
    let mut tokens_used = first.tokens;
    let confidence = first.confidence();
    let mut alternatives = None;
    if confidence < CONFIDENT {
        let replies: Vec<Reply> =
            (1..=others).map(|copy| start(server, &model, &asked, copy)).collect();
        let mut texts: Vec<String> = Vec::new();
        for reply in replies {
            let other = collect(reply).await?;
            tokens_used += other.generated;
            let text = other.text.trim().to_owned();
            if text != first.text.trim() && !texts.contains(&text) && !text.is_empty() {
                texts.push(text);
            }
        }
        alternatives = Some(texts);
    }
    Ok(json!({
        "text": first.text,
        "confidence": confidence,
        "reasoning_steps": steps(&first.thinking),
        "alternatives": alternatives,
        "tokens_used": tokens_used,
        "model": model.asked,
    }))
}

/// Asks for the answer (`copy` 0) or for one of the others.
fn start(server: &Arc<Server>, model: &Named, asked: &Arc<wire::Generate>, copy: u32) -> Reply {
    let asked = Arc::clone(asked);
    Reply::start(server, model.ask(), move |lease| request(lease, &asked, copy))
}

fn request(lease: &Lease, asked: &wire::Generate, copy: u32) -> Result<Request, Problem> {
    let base = lease.sampling();
    let temperature = asked.temperature.unwrap_or(TEMPERATURE);
    let is_other = copy > 0;
    let sampling = Sampling {
        // Without chance all answers were the same.
        temperature: if is_other { temperature.max(TEMPERATURE) } else { temperature },
        top_p: asked.top_p.unwrap_or(base.top_p),
        seed: asked.seed.or(base.seed).map(|seed| seed.wrapping_add(copy)),
        ..base
    };
    let input = if lease.has_template() {
        Input::Conversation(vec![Message::new(Role::User, asked.prompt.as_str())])
    } else {
        Input::Text(asked.prompt.clone())
    };
    let tokens = asked.max_tokens.unwrap_or(TOKENS);
    let tokens = if is_other { tokens.min(ALTERNATIVE_TOKENS) } else { tokens };
    Ok(Request::new(input, sampling, lease.stop(), Some(tokens))?.logprobs(Some(0))?)
}

/// A reply, complete.
#[derive(Debug, Default)]
struct Answer {
    text: String,
    thinking: String,
    /// Natural logarithms of the probabilities of the answer's tokens: their sum and number.
    logprobs: (f64, u32),
    generated: u32,
    /// All tokens, those of the prompt included.
    tokens: u32,
}

impl Answer {
    fn confidence(&self) -> f64 {
        let (sum, count) = self.logprobs;
        if count == 0 { 0.0 } else { (sum / f64::from(count)).exp() }
    }
}

async fn collect(mut reply: Reply) -> Result<Answer, Problem> {
    let mut answer = Answer::default();
    // A token comes before its text, which says whether it belongs to the answer.
    let mut waiting = (0.0, 0);
    while let Some(step) = reply.next().await {
        let Step::Event(event) = step? else { continue };
        match event {
            Event::Token(chances) => {
                waiting = (waiting.0 + f64::from(chances.chosen.logprob), waiting.1 + 1);
            }
            Event::Thinking(text) => {
                answer.thinking.push_str(&text);
                waiting = (0.0, 0);
            }
            Event::Text(text) => {
                answer.text.push_str(&text);
                let (sum, count) = std::mem::take(&mut waiting);
                answer.logprobs = (answer.logprobs.0 + sum, answer.logprobs.1 + count);
            }
            Event::Done(done) => {
                answer.generated = done.generated_tokens;
                answer.tokens = done.prompt_tokens + done.generated_tokens;
            }
            _ => {}
        }
    }
    Ok(answer)
}

/// The steps of what the model thought: its paragraphs, or its lines where it is one paragraph; None when it did not think.
fn steps(thinking: &str) -> Option<Vec<&str>> {
    let parts = |separator: &str| -> Vec<&str> {
        thinking.split(separator).map(str::trim).filter(|part| !part.is_empty()).collect()
    };
    match parts("\n\n") {
        none if none.is_empty() => None,
        one if one.len() == 1 => Some(parts("\n")),
        several => Some(several),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_paragraphs_or_lines() {
        assert_eq!(steps(" \n"), None);
        assert_eq!(steps("a\nb\n\nc\n"), Some(vec!["a\nb", "c"]));
        assert_eq!(steps("a\nb\n"), Some(vec!["a", "b"]));
    }

    #[test]
    fn confidence_is_the_geometric_mean() {
        let logprobs = (0.5_f64.ln() + 0.125_f64.ln(), 2);
        let answer = Answer { logprobs, ..Answer::default() };
        assert!((answer.confidence() - 0.25).abs() < 1e-12);
    }
}
