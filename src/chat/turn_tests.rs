//! Replies that begin within the conversation's last message.

use std::ops::ControlFlow;
use std::path::Path;

use nfl_models::template::ChatTemplate;
use serde_json::json;

use super::{
    ChatError, Choice, Event, Format, Input, Message, Request, RequestError, Responder, Role,
    Think, Tool, Tools, Turn,
};
use crate::engine::fake::Fake;
use crate::engine::options::Sampling;
use crate::engine::runner::Cancel;

/// A template whose model thinks and calls tools, and which trims what is said.
const HERMES: &str = "{% if tools %}<tools>{{ tools | tojson }}</tools><tool_call>{\"name\": …}</tool_call>{% endif %}\
{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.reasoning_content %}<think>\n\
{{ message.reasoning_content }}\n</think>\n\n{% endif %}{{ message.content | trim }}<|im_end|>\n{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}\
<think>\n\n</think>\n\n{% endif %}{% endif %}";

fn responder(template: &str) -> (Fake, Responder) {
    let fake = Fake::new(&["<|im_start|>", "<|im_end|>"]).with_info(|info| info.begin = None);
    let template = ChatTemplate::parse(template).unwrap();
    let runner = Box::new(fake.clone());
    (fake, Responder::with(runner, Some(template), Sampling::greedy()))
}

fn ending(last: Message, turn: Turn) -> Result<Request, RequestError> {
    let messages = vec![Message::new(Role::User, "How is it?"), last];
    let input = Input::Conversation(messages);
    Request::new(input, Sampling::greedy(), Vec::new(), None)?.turn(turn)
}

fn said(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn thought(text: &str) -> Message {
    Message { thinking: text.to_owned(), ..said("") }
}

fn tools(choice: Choice) -> Tools {
    let parameters = json!({"type": "object", "properties": {}});
    let tool = Tool { name: "look".to_owned(), description: None, parameters };
    Tools { list: vec![tool], choice, one_call: false }
}

fn ask(responder: &Responder, request: &Request) -> Result<Vec<Event>, ChatError> {
    let mut events = Vec::new();
    responder.reply(request, &Cancel::default(), &mut |event| {
        if !matches!(event, Event::Done(_) | Event::Read { .. }) {
            events.push(event);
        }
        ControlFlow::Continue(())
    })?;
    Ok(events)
}

#[test]
fn what_was_said_goes_on_as_the_template_writes_it() {
    let (fake, responder) = responder(HERMES);
    let head = "<|im_start|>user\nHow is it?<|im_end|>\n<|im_start|>assistant\n";
    let written = |last: Message, turn: Turn| {
        responder
            .render(&ending(last, turn).unwrap())
            .unwrap()
            .strip_prefix(head)
            .map(str::to_owned)
    };
    let is = |text: &str| Some(text.to_owned());
    // White space at the end stays, although the template trims.
    assert_eq!(written(said("Well, "), Turn::Same), is("Well, "));
    let both = Message { thinking: "Hm.".to_owned(), ..said("Well") };
    assert_eq!(written(both, Turn::Same), is("<think>\nHm.\n</think>\n\nWell"));
    assert_eq!(written(thought("Hm"), Turn::Same), is("<think>\nHm"));
    assert_eq!(written(said(""), Turn::Same), is(""));
    assert_eq!(written(said("Well"), Turn::Unopened), is("Well<|im_end|>\n"));
    let next = is("Well<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(written(said("Well"), Turn::Next), next);
    // Texts of special tokens stay texts.
    let request = ending(said("a<|im_end|>"), Turn::Same).unwrap();
    assert!(responder.render(&request).unwrap().ends_with("a<|im_end|>"));
    let tokens = responder.prompt_tokens(&request).unwrap();
    assert_eq!(tokens.iter().filter(|token| **token == 257).count(), 1);
    // A thought cannot begin where something was said, and it goes on where one was begun.
    fake.says(&["<think>", "no", "</think>"]);
    let spoken = ask(&responder, &ending(said("Well"), Turn::Same).unwrap()).unwrap();
    assert!(spoken.iter().all(|event| matches!(event, Event::Text(_))), "{spoken:?}");
    fake.says(&["m.", "</think>", "\n\nYes"]);
    let spoken = ask(&responder, &ending(thought("H"), Turn::Same).unwrap()).unwrap();
    assert_eq!(spoken, [Event::Thinking("m.".to_owned()), Event::Text("Yes".to_owned())]);
}

#[test]
fn what_cannot_go_on_is_refused() {
    let refused = |request: Result<Request, RequestError>| request.unwrap_err().to_string();
    let user = Message::new(Role::User, "So?");
    let words = "the last message cannot be continued: ";
    assert_eq!(refused(ending(user, Turn::Same)), format!("{words}it is not the model's own"));
    let input = Input::Conversation(vec![said("a"), said("b")]);
    let twice = Request::new(input, Sampling::greedy(), Vec::new(), None).unwrap();
    let reason = "the one before it is the model's own, too";
    assert_eq!(refused(twice.turn(Turn::Same)), format!("{words}{reason}"));
    let (_, responder) = responder(HERMES);
    let refused = |request: Request| ask(&responder, &request).unwrap_err().to_string();
    let begun = || ending(said("Well"), Turn::Same).unwrap();
    let forced = begun().tools(tools(Choice::Required)).unwrap();
    assert_eq!(refused(forced), "tools: the reply has begun as a text");
    let formed = begun().format(Format::Json).unwrap();
    assert_eq!(refused(formed), "format: the reply has begun without one");
    let silent = ending(thought("Hm"), Turn::Same).unwrap().think(Think::Off);
    assert!(refused(silent).starts_with("thinking: the last message is a thought"));
    // Calls may follow a text.
    assert!(responder.render(&begun().tools(tools(Choice::Auto)).unwrap()).is_ok());
}

#[test]
fn all_templates_write_the_beginning_of_a_message_like_the_whole() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/material/chat-templates");
    if !directory.is_dir() {
        eprintln!("skipped: {} is absent", directory.display());
        return;
    }
    let (mut wrong, mut alike) = (Vec::new(), 0);
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "jinja") {
            continue;
        }
        let (_, responder) = responder(&std::fs::read_to_string(&path).unwrap());
        let begun = responder.render(&ending(said("Well, I"), Turn::Same).unwrap());
        let whole = responder.render(&ending(said("Well, I think so."), Turn::Unopened).unwrap());
        let (begun, whole) = match (begun, whole) {
            (Ok(begun), Ok(whole)) => (begun, whole),
            // It cannot do without tools.
            (Err(ChatError::Template(_)), Err(_)) => continue,
            other => panic!("{}: {other:?}", path.display()),
        };
        alike += 1;
        if !whole.starts_with(&format!("{begun} think so.")) {
            wrong.push(format!("{}: {begun:?} {whole:?}", path.display()));
        }
        let is_thinker = responder.capabilities().is_some_and(|able| able.thinking);
        let thinks = responder.render(&ending(thought("I see"), Turn::Same).unwrap());
        if is_thinker && !thinks.as_ref().is_ok_and(|text| text.ends_with("I see")) {
            wrong.push(format!("{}: {thinks:?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(alike >= 62, "{alike}");
}
