//! `/api/chat`: a conversation is answered.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;

use super::super::body::{self, Raw};
use super::super::problem::{Kind, Problem};
use super::super::{Server, reply};
use super::generate::{refuse_images, request};
use super::model::Asked;
use super::talk::{self, Piece, Said, Talk};
use super::terms::Terms;
use super::wire::Chunk;
use super::{load, refuse, wire};
use crate::chat::pool::Lease;
use crate::chat::{Choice, Input, Message, Request, Role, Think, Tool, ToolCall, Tools};
use crate::store::Capability;

/// How much of what must go goes at a time: a share of characters is only about a share of tokens, and no message is to
/// go that might have stayed.
const CAUTION: f64 = 0.75;

/// Answers a conversation.
pub(super) async fn chat(State(server): State<Arc<Server>>, raw: Raw) -> Response {
    refuse::or(answer(&server, &raw).await)
}

async fn answer(server: &Arc<Server>, raw: &Raw) -> Result<Response, Problem> {
    let started = Instant::now();
    let request: wire::Chat = raw.parse()?;
    let terms = Terms::read(request.terms)?;
    if request.model.is_empty() {
        return Err(Problem::invalid("model is required"));
    }
    let asked = {
        let (server, name) = (Arc::clone(server), request.model.clone());
        reply::blocking(move || Asked::find(&server, &name)).await?
    };
    let ask = terms.ask(&asked)?;
    let sent = request.messages.unwrap_or_default();
    let tools = request.tools.unwrap_or_default();
    if !asked.can(Capability::Completion) {
        return Err(asked.cannot("chat"));
    }
    if !tools.is_empty() {
        asked.must(Capability::Tools)?;
    }
    let think = terms.think(&asked)?;
    for message in &sent {
        refuse_images(&asked, message.images.as_deref())?;
    }
    if sent.is_empty() {
        let chunk = load::load(server, &terms, ask, request.model).await?;
        let chunk = Chunk { message: Some(talk::message(Piece::default())), ..chunk };
        return Ok(body::json(200, &chunk));
    }
    let messages = sent.into_iter().map(message).collect::<Result<_, _>>()?;
    let said = Conversation { messages, tools: offered(tools), think };
    Talk { said, terms, ask, model: request.model, started }.answer(server).await
}

/// A turn as the models' templates know it.
fn message(sent: wire::Message) -> Result<Message, Problem> {
    let role = sent.role.to_lowercase();
    let role = Role::from_name(&role).ok_or_else(|| {
        let known = "must be one of system, user, assistant or tool";
        Problem::new(Kind::Invalid, format!("invalid role: {:?}; {known}", sent.role))
    })?;
    let call = |call: wire::ToolCall| ToolCall {
        id: call.id.unwrap_or_default(),
        name: call.function.name,
        arguments: call.function.arguments,
    };
    Ok(Message {
        thinking: sent.thinking,
        tool_calls: sent.tool_calls.unwrap_or_default().into_iter().map(call).collect(),
        tool_name: sent.tool_name,
        tool_call_id: sent.tool_call_id,
        ..Message::new(role, sent.content)
    })
}

/// Which of them is called is the model's choice: this dialect has no word about it.
fn offered(tools: Vec<wire::Tool>) -> Tools {
    let tool = |tool: wire::Tool| Tool {
        name: tool.function.name,
        description: tool.function.description,
        parameters: tool
            .function
            .parameters
            .unwrap_or_else(|| serde_json::json!({"type": "object"})),
    };
    Tools { list: tools.into_iter().map(tool).collect(), choice: Choice::Auto, one_call: false }
}

/// What is to be answered.
#[derive(Debug, Clone)]
struct Conversation {
    messages: Vec<Message>,
    tools: Tools,
    think: Think,
}

impl Said for Conversation {
    fn request(&self, lease: &Lease, terms: &Terms) -> Result<Request, Problem> {
        let has_system = self.messages.first().is_some_and(|first| first.role == Role::System);
        let system = lease.system().filter(|_| !has_system);
        let system = system.map(|text| Message::new(Role::System, text));
        let mut messages: Vec<Message> = system.into_iter().chain(lease.messages()).collect();
        messages.extend(self.messages.iter().cloned());
        Ok(request(Input::Conversation(messages), lease, terms, self.think)?
            .tools(self.tools.clone())?)
    }

    /// Leaves out the oldest messages but for instructions and the last one.
    fn shorter(&self, share: f64) -> Option<Self> {
        let length = |message: &Message| message.content.len() + message.thinking.len() + 1;
        let whole: usize = self.messages.iter().map(length).sum();
        let must_go = (whole as f64 * share * CAUTION) as usize;
        let last = self.messages.len() - 1;
        let (mut gone, mut shorter) = (0, self.clone());
        let mut index = 0;
        shorter.messages.retain(|message| {
            let may_go = index < last && message.role != Role::System;
            index += 1;
            if !may_go || (gone > 0 && gone >= must_go) {
                return true;
            }
            gone += length(message);
            false
        });
        (gone > 0).then_some(shorter)
    }

    fn write(piece: Piece, chunk: &mut Chunk) {
        chunk.message = Some(talk::message(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_messages_go_first_and_instructions_stay() {
        let message = |role, length| Message::new(role, "x".repeat(length));
        let mut said = Conversation {
            messages: vec![
                message(Role::System, 9),
                message(Role::User, 99),
                message(Role::Assistant, 99),
                message(Role::User, 9),
            ],
            tools: Tools::default(),
            think: Think::Default,
        };
        let roles = |said: &Conversation| -> Vec<Role> {
            said.messages.iter().map(|message| message.role).collect()
        };
        said = said.shorter(0.01).unwrap();
        assert_eq!(roles(&said), [Role::System, Role::Assistant, Role::User]);
        said = said.shorter(0.9).unwrap();
        assert_eq!(roles(&said), [Role::System, Role::User]);
        assert!(said.shorter(0.5).is_none());
    }
}
