//! Where a reply begins: with a turn of its own, or within the conversation's last message.

use serde_json::Value;

use super::fields::Fields;
use super::messages::invalid;
use super::refusal::Answer;
use crate::chat::{Message, Role, Turn};

/// Takes `add_generation_prompt` and `continue_final_message`. As with llama-server, a last message of the assistant's goes
/// on unless the request says otherwise.
pub(super) fn read(fields: &mut Fields, messages: &[Message]) -> Answer<Turn> {
    let opens = fields.take::<bool>("add_generation_prompt")?;
    let goes_on = goes_on(fields, messages.last())?;
    let may_go_on = |last: &Message| last.role == Role::Assistant && last.tool_calls.is_empty();
    match (opens, goes_on) {
        (Some(true), Some(true)) => {
            let text = "a message cannot go on where add_generation_prompt opens another";
            Err(invalid("continue_final_message", text))
        }
        (_, Some(true)) => Ok(Turn::Same),
        (None | Some(false), None) if messages.last().is_some_and(may_go_on) => Ok(Turn::Same),
        (Some(false), _) => Ok(Turn::Unopened),
        _ => Ok(Turn::Next),
    }
}

/// Takes `continue_final_message`: a switch, or the part of the last message that goes on, which is what it ends with.
fn goes_on(fields: &mut Fields, last: Option<&Message>) -> Answer<Option<bool>> {
    const FIELD: &str = "continue_final_message";
    let says = last.is_some_and(|last| !last.content.is_empty());
    match fields.take::<Value>(FIELD)? {
        None => Ok(None),
        Some(Value::Bool(yes)) => Ok(Some(yes)),
        Some(Value::String(part)) if part == "content" || part == "reasoning_content" => {
            if says == (part == "content") {
                return Ok(Some(true));
            }
            Err(invalid(FIELD, &format!("the last message does not end with its {part}")))
        }
        Some(_) => Err(invalid(FIELD, "expected a boolean, content or reasoning_content")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(asked: &Value, last: &Message) -> Option<Turn> {
        let mut fields = Fields::of(asked.as_object().unwrap().clone());
        let turn = read(&mut fields, &[Message::new(Role::User, "Hi"), last.clone()]).ok();
        assert!(fields.finish().is_ok());
        turn
    }

    #[test]
    fn what_the_assistant_began_goes_on_unless_the_request_says_otherwise() {
        let said = Message::new(Role::Assistant, "Well");
        let thought =
            Message { thinking: "Hm".to_owned(), ..Message::new(Role::Assistant, String::new()) };
        let asked = Message::new(Role::User, "So?");
        let (same, next, unopened) = (Some(Turn::Same), Some(Turn::Next), Some(Turn::Unopened));
        for (fields, last, expected) in [
            (json!({}), &said, same),
            (json!({}), &asked, next),
            (json!({"add_generation_prompt": true}), &said, next),
            (json!({"add_generation_prompt": false}), &said, same),
            (json!({"add_generation_prompt": false}), &asked, unopened),
            (json!({"continue_final_message": false}), &said, next),
            (
                json!({"continue_final_message": false, "add_generation_prompt": false}),
                &said,
                unopened,
            ),
            (json!({"continue_final_message": true}), &said, same),
            (json!({"continue_final_message": "content"}), &said, same),
            (json!({"continue_final_message": "reasoning_content"}), &thought, same),
            (json!({"continue_final_message": "reasoning_content"}), &said, None),
            (json!({"continue_final_message": "content"}), &thought, None),
            (json!({"continue_final_message": 1}), &said, None),
            (json!({"continue_final_message": true, "add_generation_prompt": true}), &said, None),
        ] {
            assert_eq!(turn(&fields, last), expected, "{fields} {last:?}");
        }
    }
}
