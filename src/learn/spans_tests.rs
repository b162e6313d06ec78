//! What is learned of conversations, against transformers' masks (`tests/golden/chat_spans.py`).

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::engine::fake::Fake;

const JUDGE: &str = include_str!("../../tests/golden/chat_spans.json");

fn talk(messages: &Value) -> Example {
    let messages = messages.as_array().unwrap().clone();
    Example::Conversation(Talk { messages, tools: None })
}

/// A sample as text with what is learned in brackets. A token of the fake runner is a byte or a special token.
fn shown(tokenizer: &Tokenizer<'_>, sample: &Sample) -> String {
    let mut bytes = Vec::new();
    let mut open = false;
    for (token, learned) in sample.tokens.iter().zip(&sample.learned) {
        if *learned != open {
            bytes.push(if *learned { b'[' } else { b']' });
            open = *learned;
        }
        bytes.extend(tokenizer.piece(token.cast_signed()).unwrap());
    }
    bytes.extend(open.then_some(b']'));
    String::from_utf8(bytes).unwrap()
}

/// Without the line that has the date of today.
fn undated(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.starts_with("Today Date")).collect()
}

#[test]
fn the_assistants_words_are_those_that_transformers_marks() {
    let judge: Value = serde_json::from_str(JUDGE).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/material/chat-templates");
    for case in judge["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let Ok(source) = fs::read_to_string(folder.join(format!("{name}.jinja"))) else {
            eprintln!("skipped: no template {name}");
            continue;
        };
        let template = ChatTemplate::parse(&source).unwrap();
        let text = |place: &Value| place.as_str().unwrap().to_owned();
        let (begin, end) = (text(&case["begin"]), text(&case["end"]));
        let fake = match begin.as_str() {
            "" => Fake::new(&["<none>", &end]).with_info(|info| info.begin = None),
            begin => Fake::new(&[begin, &end]),
        };
        let tokenizer = Tokenizer::new(&fake, Some(&template));
        let samples = tokenizer.samples(&talk(&judge["messages"])).unwrap();
        assert_eq!(samples.len(), 1, "{name}");
        let parts = case["given"].as_array().unwrap().iter().zip(case["said"].as_array().unwrap());
        let parts = parts.map(|(given, said)| format!("{}[{}]", text(given), text(said)));
        let expected = parts.collect::<String>() + case["rest"].as_str().unwrap();
        assert_eq!(undated(&shown(&tokenizer, &samples[0])), undated(&expected), "{name}");
    }
}

/// A template that drops what earlier turns thought, and opens a thought before a reply.
const THINKER: &str = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last and m.reasoning_content \
                       %}(think){{ m.reasoning_content }}(/think){% endif %}{{ m.content }}<e>\n{% endfor %}\
                       {% if add_generation_prompt %}<assistant>(think){% endif %}";

#[test]
fn conversations_whose_turns_are_rewritten_are_learned_turn_by_turn() {
    let template = ChatTemplate::parse(THINKER).unwrap();
    let fake = Fake::new(&["<none>", "<e>"]).with_info(|info| info.begin = None);
    let tokenizer = Tokenizer::new(&fake, Some(&template));
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "t"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]);
    let samples = tokenizer.samples(&talk(&messages)).unwrap();
    let texts: Vec<String> = samples.iter().map(|sample| shown(&tokenizer, sample)).collect();
    assert_eq!(
        texts,
        [
            "<user>a<e>\n<assistant>(think)[t(/think)b<e>]\n",
            "<user>a<e>\n<assistant>b<e>\n<user>c<e>\n<assistant>[d<e>]\n",
        ]
    );
}

#[test]
fn completions_and_preferences_are_learned_behind_their_prompt() {
    let template = ChatTemplate::parse(THINKER).unwrap();
    let fake = Fake::new(&["<s>", "<e>"]);
    let tokenizer = Tokenizer::new(&fake, Some(&template));
    let completion = Example::Completion { prompt: "<s> is ".into(), completion: "ü.".into() };
    let sample = &tokenizer.samples(&completion).unwrap()[0];
    // The text of a special token in what was written is text.
    assert_eq!(shown(&tokenizer, sample), "<s><s> is [ü.<e>]");
    assert_eq!(sample.tokens[0], 256);
    assert_eq!(sample.tokens[1], u32::from(b'<'));

    let turns =
        |role: &str, text: &str| Answer::Turns(vec![json!({"role": role, "content": text})]);
    let [prompt, chosen, rejected] =
        [turns("user", "a"), turns("assistant", "b"), turns("assistant", "c")];
    let preference = Example::Preference { prompt, chosen, rejected };
    let pair = tokenizer.pair(&preference).unwrap();
    let texts = pair.each_ref().map(|sample| shown(&tokenizer, sample));
    let answer = |text: &str| format!("<s><user>a<e>\n<assistant>[{text}<e>]\n");
    assert_eq!(texts, [answer("b"), answer("c")]);
    assert!(matches!(tokenizer.samples(&preference), Err(LearnError::Preferences)));
}
