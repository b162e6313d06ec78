//! Real templates rendered as transformers renders them: `assets/golden/chat_templates.tsv` has the
//! hashes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::template::{ChatTemplate, Clock, Conversation};

/// Where we differ from transformers on purpose: template, case (a prefix of its name), reason.
const DIFFERENCES: [(&str, &str, &str); 0] = [];

fn at_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The fixture's conversation called `case` without its sign, rendered; "error" when it is refused.
fn digest(template: &ChatTemplate, fixture: &Json, case: &str) -> (String, String) {
    let name = case.trim_end_matches(['+', '-']);
    let conversation = &fixture["conversations"][name];
    let mut extra = conversation["extra"].as_object().cloned().unwrap_or_default();
    if name != case {
        extra.insert("enable_thinking".to_owned(), Json::Bool(case.ends_with('+')));
    }
    let conversation = Conversation {
        messages: conversation["messages"].as_array().unwrap(),
        tools: conversation["tools"].is_boolean().then(|| fixture["tools"].clone()),
        bos_token: fixture["bos_token"].as_str().unwrap(),
        eos_token: fixture["eos_token"].as_str().unwrap(),
        add_generation_prompt: conversation["add_generation_prompt"].as_bool().unwrap_or(true),
        extra,
        now: Clock {
            unix_seconds: fixture["now_unix_seconds"].as_i64().unwrap(),
            offset_seconds: 0,
        },
    };
    match template.render(&conversation) {
        Ok(text) => {
            let digest = Sha256::digest(text.as_bytes());
            let mut hexadecimal = String::new();
            for byte in &digest[..8] {
                write!(hexadecimal, "{byte:02x}").unwrap();
            }
            (hexadecimal, text)
        }
        Err(error) => ("error".to_owned(), error.to_string()),
    }
}

#[test]
fn real_templates_render_as_in_transformers() {
    let directory = at_root("../shared/material/chat-templates");
    if !directory.is_dir() {
        eprintln!("skipped: {} is absent", directory.display());
        return;
    }
    let golden = std::fs::read_to_string(at_root("assets/golden/chat_templates.tsv")).unwrap();
    let fixture =
        std::fs::read_to_string(at_root("assets/golden/chat_conversations.json")).unwrap();
    let fixture: Json = serde_json::from_str(&fixture).unwrap();
    let (mut equal, mut wrong) = (0, Vec::new());
    for line in golden.lines() {
        let mut columns = line.split('\t');
        let file = columns.next().unwrap();
        let template = std::fs::read_to_string(directory.join(file)).unwrap();
        let template = ChatTemplate::parse(&template).unwrap();
        for (case, expected) in columns.map(|column| column.split_once('=').unwrap()) {
            let (actual, text) = digest(&template, &fixture, case);
            if let Ok(target) = std::env::var("NFL_TEMPLATE_TEXTS") {
                let stem = file.trim_end_matches(".jinja");
                std::fs::write(Path::new(&target).join(format!("{stem}.{case}.txt")), &text)
                    .unwrap();
            }
            let differs = DIFFERENCES
                .iter()
                .any(|(name, prefix, _)| *name == file && case.starts_with(prefix));
            if (actual == expected) == differs {
                wrong.push(format!("{file} {case}: {actual} for {expected}"));
            } else {
                equal += 1;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        wrong.len() + equal,
        wrong.join("\n")
    );
}

/// Snippets where we differ from Python on purpose, with the reason.
const SNIPPET_DIFFERENCES: [(&str, &str); 4] = [
    ("{{ self.__init__ }}", "self has blocks to call, and prints as nothing else"),
    ("{{ 1 < 'a' }}", "minijinja computes constants while it compiles, by its own rules"),
    ("{{ 1 in 'a' }}", "minijinja computes constants while it compiles, by its own rules"),
    ("{{ words | groupby('x') | list | length }}", "Python cannot sort what has no attribute"),
];

#[test]
fn snippets_render_as_in_transformers() {
    let fixture = std::fs::read_to_string(at_root("assets/golden/chat_snippets.json")).unwrap();
    let fixture: Json = serde_json::from_str(&fixture).unwrap();
    let mut wrong = Vec::new();
    for (snippet, expected) in fixture["snippets"].as_object().unwrap() {
        let conversation = Conversation {
            messages: &[],
            tools: None,
            bos_token: "",
            eos_token: "",
            add_generation_prompt: false,
            extra: fixture["variables"].as_object().unwrap().clone(),
            now: Clock { unix_seconds: 1_767_323_045, offset_seconds: 0 },
        };
        let actual = ChatTemplate::parse(snippet).and_then(|parsed| parsed.render(&conversation));
        let differs = SNIPPET_DIFFERENCES.iter().any(|(known, _)| known == snippet);
        if (actual.as_deref().ok() == expected.as_str()) == differs {
            wrong.push(format!("{snippet}\n  expected {expected:?}\n  actual   {actual:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
