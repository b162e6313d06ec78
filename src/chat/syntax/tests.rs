//! Replies cut anywhere, broken anywhere.

use proptest::prelude::*;
use serde_json::json;

use super::{FAMILIES, Family, GENERIC, Piece, Stream, THINKING, Thinking};
use crate::chat::tools::Tool;

fn tools() -> Vec<Tool> {
    let parameters = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]});
    ["get", "get_weather"]
        .map(|name| Tool {
            name: name.to_owned(),
            description: None,
            parameters: parameters.clone(),
        })
        .to_vec()
}

fn family(name: &str) -> &'static Family {
    FAMILIES.iter().find(|family| family.name == name).unwrap()
}

fn think() -> &'static Thinking {
    THINKING.iter().find(|thinking| thinking.open == "<think>").unwrap()
}

/// What comes out of pieces, neighbours of one kind put together.
fn pieces(
    family: Option<&'static Family>,
    thinking: Option<&'static Thinking>,
    parts: &[&str],
) -> Vec<Piece> {
    let mut stream = Stream::new(family, thinking, &tools());
    let mut found: Vec<Piece> = Vec::new();
    let mut hear = |piece| match (found.last_mut(), piece) {
        (Some(Piece::Text(all)), Piece::Text(more))
        | (Some(Piece::Thinking(all)), Piece::Thinking(more)) => all.push_str(&more),
        (_, piece) => found.push(piece),
    };
    for part in parts {
        stream.push(part, &mut hear);
    }
    stream.finish(&mut hear);
    found
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn call(name: &str, arguments: &serde_json::Value) -> Piece {
    Piece::Call(None, name.to_owned(), arguments.as_object().unwrap().clone())
}

/// Replies of all kinds: thoughts, calls, texts that only look like them.
const REPLIES: &[(&str, &str)] = &[
    (
        "Hermes",
        "<think>\nSo <tool_call> it is.\n</think>\n\nI look. \n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Os}lo\"}}\n</tool_call>\n<tool_call>{\"name\": \"get\", \"arguments\": {\"city\": \"a\\\"]\"}}</tool_call> Done.",
    ),
    (
        "Hermes",
        "A <tool_call> is a tag, <tool_call>{\"name\": \"nobody\"}</tool_call> too, and <tool_cal",
    ),
    ("Hermes", "   leading, <think>not a thought</think> trailing  \n"),
    (
        "Qwen3 Coder",
        "</think>\nWell.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nA\nB\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
    ),
    (
        "Harmony",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>analysis<|message|>So.<|end|><|start|>assistant<|channel|>commentary to=functions.get <|constrain|>json<|message|>{\"city\": \"Oslo\"}",
    ),
    (
        "Mistral Nemo",
        "[TOOL_CALLS] [{\"name\": \"get\", \"arguments\": {\"city\": \"x\"}, \"id\": \"abcdefghi\"}, {\"name\": \"get_weather\", \"arguments\": {}}]",
    ),
    (
        "LFM2",
        "<|tool_call_start|>[get(city='it\\'s', days=2), get_weather(city=\"b\")]<|tool_call_end|>Fine.",
    ),
    ("Gemma 4", "<|tool_call>call:get{city:<|\"|>a, b}<|\"|>,days:2}<tool_call|>"),
    (
        "MiniMax M3",
        "]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name=\"get\">]<]minimax[>[<city>A]<]minimax[>[</city>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>",
    ),
    ("Llama 3", "{\"name\": \"get\", \"parameters\": {\"city\": \"Oslo\"}}"),
    ("Llama 3", "{\"no\": 1} and {\"name\": \"get\", \"parameters\": {}}"),
    (
        "Functionary 3.2",
        ">>>all\nHello >> there.>>>get\n{\"city\": \"Oslo\"}>>>get_weather\n{\"city\": \"b\"}",
    ),
    (
        "DeepSeek V3.1",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get<｜tool▁sep｜>{\"city\": \"日\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
];

fn thinking_of(name: &str) -> &'static Thinking {
    if name == "Harmony" { &THINKING[0] } else { think() }
}

proptest! {
    #[test]
    fn wherever_a_reply_is_cut_the_same_comes_out(
        reply in 0..REPLIES.len(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        removed in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let (name, text) = REPLIES[reply];
        // With a letter missing, it is broken somewhere.
        let mut letters: Vec<char> = text.chars().collect();
        if let Some(removed) = removed {
            letters.remove(removed.index(letters.len()));
        }
        let text: String = letters.into_iter().collect();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        places.retain(|place| text.is_char_boundary(*place));
        places.extend([0, text.len()]);
        places.sort_unstable();
        let parts: Vec<&str> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let (family, thinking) = (Some(family(name)), Some(thinking_of(name)));
        prop_assert_eq!(pieces(family, thinking, &parts), pieces(family, thinking, &[&text]));
    }

    #[test]
    fn no_text_is_an_error_and_without_notation_it_passes_unchanged(text in ".{0,80}", number in 0..FAMILIES.len()) {
        let _ = pieces(Some(&FAMILIES[number]), Some(think()), &[&text]);
        let said = if text.is_empty() { Vec::new() } else { vec![Piece::Text(text.clone())] };
        prop_assert_eq!(pieces(None, None, &[&text]), said);
    }
}

#[test]
fn thoughts_calls_and_texts_come_apart() {
    let (name, reply) = REPLIES[0];
    assert_eq!(
        pieces(Some(family(name)), Some(think()), &[reply]),
        [
            Piece::Thinking("So <tool_call> it is.".to_owned()),
            text("I look."),
            call("get_weather", &json!({"city": "Os}lo"})),
            call("get", &json!({"city": "a\"]"})),
            text("Done."),
        ]
    );
    let (name, reply) = REPLIES[4];
    assert_eq!(
        pieces(Some(family(name)), Some(thinking_of(name)), &[reply]),
        [
            Piece::Thinking("Hm.".to_owned()),
            text("I look."),
            Piece::Thinking("So.".to_owned()),
            call("get", &json!({"city": "Oslo"})),
        ]
    );
}

#[test]
fn what_is_no_call_stays_text() {
    for (name, reply) in [REPLIES[1], REPLIES[2], REPLIES[10]] {
        assert_eq!(pieces(Some(family(name)), Some(think()), &[reply]), [text(reply)]);
    }
    // A reply that was cut off within a call.
    let cut = "<tool_call>\n{\"name\": \"get\", \"argum";
    assert_eq!(pieces(Some(family("Hermes")), None, &[cut]), [text(cut)]);
    let half = "<think>and then";
    assert_eq!(pieces(None, Some(think()), &[half]), [Piece::Thinking("and then".to_owned())]);
}

#[test]
fn only_what_may_be_a_sign_is_held_back() {
    let mut stream = Stream::new(Some(family("Hermes")), Some(think()), &tools());
    let mut heard = Vec::new();
    for part in ["I look", " at <b", "> and <tool", "ing"] {
        stream.push(part, &mut |piece| heard.push(piece));
    }
    assert_eq!(heard, ["I look", " at <b", "> and", " <tooling"].map(text));
    // However much comes at once, and however much white space may stand before a sign.
    let (long, space) = ("x".repeat(10_000), "\n".repeat(10_000));
    for parts in [[&*long, "y"], [&*space, "y"]] {
        let mut stream = Stream::new(Some(family("Hermes")), Some(think()), &tools());
        let mut heard = String::new();
        for part in parts {
            stream.push(part, &mut |piece| match piece {
                Piece::Text(text) => heard += &text,
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(heard, parts.concat());
    }
}

#[test]
fn the_registry_is_sound() {
    for family in FAMILIES.iter().chain([&GENERIC]) {
        assert!(!family.calls.is_empty() && !family.name.is_empty(), "{}", family.name);
        assert!(family.marks().all(|mark| !mark.is_empty()), "{}", family.name);
        assert!(family.is_bare || !family.texts().is_empty(), "{}", family.name);
        let same = FAMILIES.iter().filter(|other| other.name == family.name);
        assert!(same.count() <= 1, "{} stands twice", family.name);
    }
    for thinking in THINKING {
        assert!(!thinking.open.is_empty() && !thinking.close.is_empty());
    }
}
