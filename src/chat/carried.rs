//! What a stored model carries besides its weights, in the words of requests: sampling, limits, first turns.
//!
//! Parameters have Ollama's names. What the planner decides better for each machine (layers on GPUs, threads, batches) is
//! left to it.

use super::request::{Message, Role};
use crate::engine::options::{Mirostat, Sampling};
use crate::engine::steering::{AdapterUse, Steering};
use crate::store::{Parameters, Resolved};

/// The sampling that a model carries, over the one that its file recommends.
pub fn sampling(parameters: &Parameters, recommended: &Sampling) -> Sampling {
    let sampling = overlaid(parameters, recommended);
    // Parameters that make no sense are no reason to refuse every request.
    if sampling.check().is_ok() { sampling } else { recommended.clone() }
}

fn overlaid(parameters: &Parameters, recommended: &Sampling) -> Sampling {
    let float = |name: &str, otherwise: f32| parameters.float(name).unwrap_or(otherwise);
    Sampling {
        temperature: float("temperature", recommended.temperature),
        top_k: count(parameters, "top_k").unwrap_or(recommended.top_k),
        top_p: float("top_p", recommended.top_p),
        min_p: float("min_p", recommended.min_p),
        typical_p: float("typical_p", recommended.typical_p),
        repeat_penalty: float("repeat_penalty", recommended.repeat_penalty),
        frequency_penalty: float("frequency_penalty", recommended.frequency_penalty),
        presence_penalty: float("presence_penalty", recommended.presence_penalty),
        penalty_tokens: match parameters.integer("repeat_last_n") {
            // The whole context.
            Some(count) if count < 0 => None,
            Some(count) => u32::try_from(count).ok(),
            None => recommended.penalty_tokens,
        },
        mirostat: match parameters.integer("mirostat") {
            Some(1) => Mirostat::One,
            Some(2) => Mirostat::Two,
            _ => recommended.mirostat,
        },
        mirostat_tau: float("mirostat_tau", recommended.mirostat_tau),
        mirostat_eta: float("mirostat_eta", recommended.mirostat_eta),
        // Negative: a seed of its own each time.
        seed: count(parameters, "seed").or(recommended.seed),
        ..recommended.clone()
    }
}

/// The texts before which a reply ends.
pub fn stop(parameters: &Parameters) -> Vec<String> {
    parameters.texts("stop")
}

/// The most tokens of a reply.
pub fn tokens_max(parameters: &Parameters) -> Option<u32> {
    count(parameters, "num_predict").filter(|count| *count > 0)
}

/// Tokens of context.
pub fn context_tokens(parameters: &Parameters) -> Option<u32> {
    count(parameters, "num_ctx").filter(|count| *count > 0)
}

/// How a conversation begins: with the instructions that were asked for, else the model's own, and its first turns.
pub fn opening(resolved: &Resolved, system: Option<&str>) -> Vec<Message> {
    let system = system.or(resolved.system.as_deref());
    let system = system.map(|text| Message::new(Role::System, text));
    system.into_iter().chain(turns(resolved)).collect()
}

/// The turns that a conversation begins with, without instructions.
pub fn turns(resolved: &Resolved) -> impl Iterator<Item = Message> + '_ {
    resolved.messages.iter().map(|(role, content)| {
        let role = match role.as_str() {
            "system" => Role::System,
            "assistant" => Role::Assistant,
            _ => Role::User,
        };
        Message::new(role, content.as_str())
    })
}

/// The adapters that belong to the model.
pub fn steering(resolved: &Resolved) -> Steering {
    let adapters = resolved.adapters.iter();
    Steering {
        adapters: adapters.map(|path| AdapterUse { path: path.clone(), scale: 1.0 }).collect(),
        ..Steering::default()
    }
}

fn count(parameters: &Parameters, name: &str) -> Option<u32> {
    parameters.integer(name).and_then(|count| u32::try_from(count).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_stands_over_what_is_recommended() {
        let json = r#"{"temperature": 0.2, "top_k": 7, "seed": -1, "mirostat": 2, "stop": ["a", "b"],
            "num_predict": -1, "num_ctx": 2048, "top_p": "no number", "repeat_last_n": -1}"#;
        let parameters = Parameters::from_json(json).unwrap();
        let recommended = Sampling { top_p: 0.7, seed: Some(3), ..Sampling::default() };
        let found = sampling(&parameters, &recommended);
        let expected = Sampling {
            temperature: 0.2,
            top_k: 7,
            mirostat: Mirostat::Two,
            penalty_tokens: None,
            ..recommended.clone()
        };
        assert_eq!(found, expected);
        let nonsense = Parameters::from_json(r#"{"temperature": -3, "top_k": 7}"#).unwrap();
        assert_eq!(sampling(&nonsense, &recommended), recommended);
        assert_eq!(stop(&parameters), ["a", "b"]);
        assert_eq!((tokens_max(&parameters), context_tokens(&parameters)), (None, Some(2048)));
    }

    #[test]
    fn a_conversation_opens_with_what_the_model_brings() {
        let resolved = Resolved {
            system: Some("Be kind.".to_owned()),
            messages: vec![
                ("user".to_owned(), "Hi".to_owned()),
                ("assistant".to_owned(), "Ho".to_owned()),
            ],
            ..Resolved::default()
        };
        let said = |system| -> Vec<(Role, String)> {
            let messages = opening(&resolved, system).into_iter();
            messages.map(|message| (message.role, message.content)).collect()
        };
        let of = |system: &str| {
            vec![
                (Role::System, system.to_owned()),
                (Role::User, "Hi".to_owned()),
                (Role::Assistant, "Ho".to_owned()),
            ]
        };
        assert_eq!(said(None), of("Be kind."));
        assert_eq!(said(Some("Be short.")), of("Be short."));
    }
}
