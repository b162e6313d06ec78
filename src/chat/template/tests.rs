//! Every template in use: the family of its calls, and that a call and a thought that it writes are read back.

use std::path::Path;

use nfl_models::template::ChatTemplate;
use serde_json::{Map, Value, json};

use super::{Setting, Template};
use crate::chat::form::Think;
use crate::chat::grammar_tests::accepted;
use crate::chat::request::{Message, Role};
use crate::chat::syntax::{Piece, Stream, Writer};
use crate::chat::tools::{Tool, ToolCall};

/// What became of something that a template was to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trip {
    /// It was read back as it was.
    Back,
    /// So it was when thinking was switched on.
    WhenOn,
    /// So it was in a turn that calls a tool.
    WithCall,
    /// The template leaves it out of earlier turns.
    Left,
    /// The model does not do such a thing.
    No,
}

use Trip::{Back, Left, No, WhenOn, WithCall};

/// Each template, the family of its calls (none: its model knows no tools), how a call fares and how a thought.
const TEMPLATES: &[(&str, &str, Trip, Trip)] = &[
    ("Apertus-8B-Instruct", "Apertus", Back, Left),
    ("Apriel-1.6-15b-Thinker-fixed", "Apriel", Back, Back),
    ("Bielik-11B-v3.0-Instruct", "Hermes", Back, Back),
    ("ByteDance-Seed-OSS", "Seed", Back, Back),
    ("Cohere2MoE", "Command R7B", Back, Back),
    ("CohereForAI-c4ai-command-r-plus-tool_use", "Command R+", Back, No),
    ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "Command R7B", Back, WithCall),
    ("GLM-4.6", "GLM 4", Back, Back),
    ("GLM-4.7-Flash", "GLM 4", Back, Back),
    ("GigaChat3-10B-A1.8B", "GigaChat 3", Back, No),
    ("GigaChat3.1-10B-A1.8B", "GigaChat 3.1", Back, No),
    ("HuggingFaceTB-SmolLM3-3B", "", Left, Left),
    ("Kimi-K2-Instruct", "Kimi K2", Back, No),
    ("Kimi-K2-Thinking", "Kimi K2", Back, Left),
    ("LFM2-8B-A1B", "LFM2", Back, No),
    ("LFM2.5-8B-A1B", "LFM2", Back, Back),
    ("LFM2.5-Instruct", "LFM2", Back, Left),
    ("MiMo-VL", "Hermes", Back, No),
    ("MiniMax-M2", "MiniMax M2", Back, Back),
    ("MiniMax-M3", "MiniMax M3", Back, Back),
    ("Mistral-Small-3.2-24B-Instruct-2506", "Mistral with identifiers", Back, No),
    ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "Qwen3 Coder", Back, Back),
    ("NVIDIA-Nemotron-Nano-v2", "Nemotron 2", Back, Left),
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "Hermes", Back, No),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "Hermes", Back, No),
    ("Qwen-QwQ-32B", "Hermes", Back, Left),
    ("Qwen-Qwen2.5-7B-Instruct", "Hermes", Back, No),
    ("Qwen-Qwen3-0.6B", "Hermes", Back, Back),
    ("Qwen3-Coder", "Qwen3 Coder", Back, No),
    ("Qwen3.5-4B", "Qwen3 Coder", Back, Back),
    ("Reka-Edge", "Hermes", Back, WhenOn),
    ("StepFun3.5-Flash", "Qwen3 Coder", Back, Back),
    ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "DeepSeek R1", Back, Left),
    ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "DeepSeek R1", Back, Left),
    ("deepseek-ai-DeepSeek-V3.1", "DeepSeek V3.1", Back, Left),
    ("deepseek-ai-DeepSeek-V3.2", "DeepSeek DSML", Back, WhenOn),
    ("deepseek-ai-DeepSeek-V4-Flash-0731", "DeepSeek V4", Back, WhenOn),
    ("deepseek-ai-DeepSeek-V4", "DeepSeek V4", Back, WhenOn),
    ("fireworks-ai-llama-3-firefunction-v2", "Firefunction", Back, No),
    ("google-gemma-2-2b-it", "", Left, No),
    ("google-gemma-4-31B-it-interleaved", "Gemma 4", Back, WithCall),
    ("google-gemma-4-31B-it", "Gemma 4", Back, WithCall),
    ("ibm-granite-granite-3.3-2B-Instruct", "Granite 3", Back, Left),
    ("ibm-granite-granite-4.0", "Hermes", Back, No),
    ("ibm-granite-granite-4.1", "Hermes", Back, No),
    ("llama-cpp-deepseek-r1", "DeepSeek R1", Back, Left),
    ("llama-cpp-rwkv-world", "", Left, Left),
    ("meetkai-functionary-medium-v3.1", "Functionary 3.1", Back, No),
    ("meetkai-functionary-medium-v3.2", "Functionary 3.2", Back, No),
    ("meta-llama-Llama-3.1-8B-Instruct", "Llama 3", Back, No),
    ("meta-llama-Llama-3.2-3B-Instruct", "Llama 3", Back, No),
    ("meta-llama-Llama-3.3-70B-Instruct", "Llama 3", Back, No),
    ("microsoft-Phi-3.5-mini-instruct", "", Left, No),
    ("mistralai-Ministral-3-14B-Reasoning-2512", "Mistral 11", Back, Back),
    ("mistralai-Mistral-Nemo-Instruct-2407", "Mistral Nemo", Back, No),
    ("moonshotai-Kimi-K2", "Kimi K2", Back, No),
    ("openai-gpt-oss-120b", "Harmony", Back, Back),
    ("openbmb-MiniCPM5-1B", "MiniCPM 5", Back, Back),
    ("poolside-Laguna-S-2.1", "GLM 4", Back, WhenOn),
    ("poolside-Laguna-XS-2.1", "GLM 4", Back, Back),
    ("poolside-Laguna-XS.2", "GLM 4", Back, Back),
    ("tencent-Hy3", "Hunyuan 3", Back, WhenOn),
    ("unsloth-Apriel-1.5", "Apriel", Back, Left),
    ("unsloth-mistral-Devstral-Small-2507", "Mistral 11", Back, No),
    ("upstage-Solar-Open-100B", "Solar", Back, Left),
];

fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.to_owned(),
        description: Some(format!("Does {name}.")),
        parameters,
    };
    // One name begins the other.
    let weather = json!({"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Where."},
        "days": {"type": "integer", "description": "How many.", "minimum": 1, "maximum": 7},
        "precise": {"type": "boolean", "description": "Whether so."}}});
    let get = json!({"type": "object", "required": ["numbers"], "properties": {
        "numbers": {"type": "array", "items": {"type": "number"}, "description": "Which."},
        "options": {"type": "object", "description": "How.", "additionalProperties": {"type": "string"},
            "properties": {"deep": {"type": "string"}, "flag": {"type": "boolean"}}}}});
    vec![tool("get_weather", weather), tool("get", get)]
}

fn called(calls: &[(&str, Value)]) -> Vec<ToolCall> {
    let call = |(index, (name, arguments)): (usize, &(&str, Value))| ToolCall {
        id: format!("00000000{index}"),
        name: (*name).to_owned(),
        arguments: arguments.as_object().unwrap().clone(),
    };
    calls.iter().enumerate().map(call).collect()
}

/// What the assistant's turn adds to the prompt before it; None when the template refuses.
fn turn(
    template: &Template,
    reply: &Message,
    tools: &[Tool],
    think: Think,
) -> Option<(String, String)> {
    let variables = Map::new();
    let setting = Setting { think, variables: &variables, begin: "<BOS>", end: "<EOS>" };
    let user = Message::new(Role::User, "What is it like?");
    let shown = template.tools(tools);
    let asked = template.messages(std::slice::from_ref(&user));
    let prompt = template.render(&asked, shown.clone(), &setting, true).ok()?;
    let whole = template.messages(&[user, reply.clone()]);
    let whole = template.render(&whole, shown, &setting, false).ok()?;
    let common = prompt.char_indices().zip(whole.chars());
    let common = common.take_while(|((_, one), other)| one == other).last();
    let common = common.map_or(0, |((place, letter), _)| place + letter.len_utf8());
    // A sign that both begin belongs to the turn.
    let cut = |place: &usize| !whole[*place..common].contains(['>', ']', '\n']);
    let back = whole[..common].rfind(['<', '[']).filter(cut).unwrap_or(common);
    Some((prompt, whole[back..].to_owned()))
}

fn read(
    template: &Template,
    prompt: &str,
    text: &str,
    tools: &[Tool],
) -> (String, String, Vec<(String, Value)>) {
    let mut stream = Stream::new(template.family, template.thinking, tools);
    let (mut thinking, mut said, mut calls) = (String::new(), String::new(), Vec::new());
    let mut hear = |piece| match piece {
        Piece::Thinking(text) => thinking.push_str(&text),
        Piece::Text(text) => said.push_str(&text),
        Piece::Call(_, name, arguments) => calls.push((name, Value::Object(arguments))),
    };
    let begun = template.thinking.filter(|_| template.has_begun_to_think(prompt));
    if let Some(thinking) = begun.filter(|thinking| !text.starts_with(thinking.open)) {
        stream.push(thinking.open, &mut hear);
    }
    let begun = template.family.map_or("", |family| family.begun);
    if !begun.is_empty() && prompt.ends_with(begun) {
        stream.push(begun, &mut hear);
    }
    stream.push(text, &mut hear);
    stream.finish(&mut hear);
    (thinking, said, calls)
}

fn call_trip(template: &Template) -> Trip {
    let tools = tools();
    let one = json!({"city": "Oslo", "days": 2, "precise": true});
    let two = json!({"numbers": [1, 2.5], "options": {"deep": "a<b\"c", "flag": false}});
    let mut wanted = vec![("get_weather", one), ("get", two)];
    if template.habits.one_call {
        wanted.pop();
    }
    let mut reply = Message::new(Role::Assistant, "");
    reply.tool_calls = called(&wanted);
    let Some((prompt, text)) = turn(template, &reply, &tools, Think::Default) else { return Left };
    let (_, said, calls) = read(template, &prompt, &text, &tools);
    let equal = calls
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .eq(wanted.iter().map(|(name, value)| (*name, value)));
    // What is left is the end of the turn.
    let is_end = !said.contains("Oslo") && !said.contains("get");
    if equal && is_end { Back } else { Left }
}

fn thought_trip(template: &Template) -> Trip {
    if template.thinking.is_none() {
        return No;
    }
    let mut reply = Message::new(Role::Assistant, "Fine weather.");
    reply.thinking = "I look\nout.".to_owned();
    let mut calling = Message::new(Role::Assistant, "");
    calling.thinking.clone_from(&reply.thinking);
    calling.tool_calls = called(&[("get_weather", json!({"city": "Oslo"}))]);
    let ways = [
        (Back, &reply, Think::Default, Vec::new()),
        (WhenOn, &reply, Think::On, Vec::new()),
        (WithCall, &calling, Think::On, tools()),
    ];
    for (trip, reply, think, tools) in ways {
        let Some((prompt, text)) = turn(template, reply, &tools, think) else { continue };
        let (thinking, said, calls) = read(template, &prompt, &text, &tools);
        if thinking == reply.thinking {
            assert!(said.starts_with(&reply.content), "{said}");
            assert_eq!(calls.len(), reply.tool_calls.len());
            return trip;
        }
    }
    Left
}

/// The grammar of a template's calls, waiting and at once, goes over the calls that the template writes, and over
/// none whose arguments are wrong.
fn check_grammar(template: &Template) {
    let Some(family) = template.family else { return };
    let tools = tools();
    let mut wanted = vec![
        ("get_weather", json!({"city": "Oslo", "days": 2})),
        ("get", json!({"numbers": [1, 3.5]})),
    ];
    if template.habits.one_call {
        wanted.pop();
    }
    let mut reply = Message::new(Role::Assistant, "");
    reply.tool_calls = called(&wanted);
    let (prompt, mut text) = turn(template, &reply, &tools, Think::Default).unwrap();
    if family.name == "Harmony" {
        // Calls are waited for where they come, behind thoughts.
        text.insert_str(0, "<|start|>assistant");
    }
    let marks = family.marks().chain(family.triggers.iter().copied());
    let begun = !family.begun.is_empty() && prompt.ends_with(family.begun);
    let start = marks.filter_map(|mark| text.find(mark)).min().unwrap();
    let start = if begun { 0 } else { start };
    let lazy =
        family.triggers.iter().filter_map(|trigger| text.find(trigger)).min().unwrap_or(start);
    for (waits, start) in [(true, lazy), (false, start)] {
        // The second way to write a call is read, and waited for, but not asked for. What has begun is not waited for.
        if (!waits && family.name == "Harmony") || (waits && begun) {
            continue;
        }
        let mut writer = Writer::new(&[]);
        let calls = writer.calls(family, &tools, (false, waits, begun)).unwrap();
        let grammar = writer.finish(&calls);
        let asked = &text[start..];
        let end = accepted(&grammar, asked).unwrap_or(0);
        let (_, _, read) = read(
            template,
            if begun { &prompt } else { "" },
            &text[..text.len() - asked.len() + end],
            &tools,
        );
        assert_eq!(read.len(), wanted.len(), "{}: {asked} {end}\n{grammar}", family.name);
        let wrong = asked[..end].replacen('2', "9", 1);
        assert!(
            accepted(&grammar, &wrong).is_none_or(|end| end < wrong.len()),
            "{}: {wrong}",
            family.name
        );
    }
}

#[test]
fn calls_and_thoughts_of_all_templates_are_read_back() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/material/chat-templates");
    if !directory.is_dir() {
        eprintln!("skipped: {} is absent", directory.display());
        return;
    }
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
    let jinja = files.filter(|name| name.to_string_lossy().ends_with(".jinja")).count();
    assert_eq!(jinja, TEMPLATES.len());
    let mut wrong = Vec::new();
    for (name, family, call, thought) in TEMPLATES {
        let source = std::fs::read_to_string(directory.join(format!("{name}.jinja"))).unwrap();
        let template = Template::new(ChatTemplate::parse(&source).unwrap());
        let found = template.family.map_or("", |family| family.name);
        let trips = (found, call_trip(&template), thought_trip(&template));
        if trips != (*family, *call, *thought) {
            wrong.push(format!("{name}: {trips:?} for {:?}", (family, call, thought)));
        }
        check_grammar(&template);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
