//! The variables by which a template lets thinking be chosen, found by what changes when they are set.

use nfl_models::template::ChatTemplate;
use serde_json::{Map, Value, json};

use super::probe::{render, user};
use crate::chat::form::{Effort, Think};

/// A variable with the values for thinking and for not thinking.
#[derive(Debug, Clone, PartialEq)]
struct Switch {
    name: &'static str,
    on: Value,
    off: Value,
}

/// The variable of degrees.
const EFFORT: &str = "reasoning_effort";

/// What a template reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Switches {
    switch: Option<Switch>,
    /// The values for little, usual and much thinking.
    effort: Option<[Value; 3]>,
}

impl Switches {
    pub(super) fn of(template: &ChatTemplate) -> Self {
        let candidates = [
            ("enable_thinking", json!(true), json!(false)),
            ("thinking", json!(true), json!(false)),
            ("thinking_mode", json!("enabled"), json!("disabled")),
            ("thinking_budget", json!(-1), json!(0)),
            ("reasoning", json!(true), json!(false)),
            (EFFORT, json!("high"), json!("no_think")),
            (EFFORT, json!("high"), json!("minimal")),
        ];
        let effort = efforts(template);
        let switch = candidates
            .into_iter()
            .map(|(name, on, off)| Switch { name, on, off })
            .filter(|switch| template.source().contains(switch.name))
            // A template that writes any word of effort out does not switch anything by it.
            .filter(|switch| switch.name != EFFORT || !echoes(template))
            .find(|switch| {
                let on = with(template, switch.name, &switch.on);
                let off = with(template, switch.name, &switch.off);
                on.is_some() && off.is_some() && on != off
            });
        Self { switch, effort }
    }

    pub(super) fn has_switch(&self) -> bool {
        self.switch.is_some()
    }

    pub(super) fn has_effort(&self) -> bool {
        self.effort.is_some()
    }

    /// The variables that a wish sets.
    pub(super) fn variables(&self, think: Think) -> Map<String, Value> {
        let mut variables = Map::new();
        let mut set = |name: &str, value: &Value| variables.insert(name.to_owned(), value.clone());
        match (think, &self.switch) {
            (Think::On | Think::Effort(_), Some(switch)) => set(switch.name, &switch.on),
            (Think::Off, Some(switch)) => set(switch.name, &switch.off),
            _ => None,
        };
        if let (Think::Effort(effort), Some([low, medium, high])) = (think, &self.effort) {
            let value = match effort {
                Effort::Low => low,
                Effort::Medium => medium,
                Effort::High => high,
            };
            set(EFFORT, value);
        }
        variables
    }
}

fn with(template: &ChatTemplate, name: &str, value: &Value) -> Option<String> {
    let mut extra = Map::new();
    extra.insert(name.to_owned(), value.clone());
    render(template, &[user()], None, extra, true)
}

fn echoes(template: &ChatTemplate) -> bool {
    let word = "probe_word";
    with(template, EFFORT, &json!(word)).is_some_and(|text| text.contains(word))
}

/// The degrees that a template knows. A word that it refuses gives way to the next higher one.
fn efforts(template: &ChatTemplate) -> Option<[Value; 3]> {
    if !template.source().contains(EFFORT) {
        return None;
    }
    let switched = |value: &Value| {
        // Some heed it only while they think.
        let mut extra = Map::new();
        extra.insert(EFFORT.to_owned(), value.clone());
        extra.insert("enable_thinking".to_owned(), json!(true));
        render(template, &[user()], None, extra, true)
    };
    let high = json!("high");
    let known = |name: &str| {
        let value = json!(name);
        if switched(&value).is_some() { value } else { high.clone() }
    };
    let (low, medium) = (known("low"), known("medium"));
    let differ = switched(&low) != switched(&high);
    differ.then_some([low, medium, high])
}
