//! Anthropic's dialect: messages and the counting of their tokens.
//!
//! Which version a client speaks (`anthropic-version`) and which features it would try (`anthropic-beta`) change nothing.

mod billing;
mod blocks;
mod convert;
mod failure;
mod ids;
mod messages;
mod wire;

use super::body;
use super::routes::{Access, Routes};

/// The routes.
pub(super) fn routes() -> Routes {
    use Access::Infer;
    Routes::new("Anthropic", failure::response)
        .post("/v1/messages", Infer, "Answers a conversation", messages::messages)
        .takes::<wire::Request>()
        .gives::<wire::Given>()
        .sends(body::EVENTS)
        .post("/v1/messages/count_tokens", Infer, "Counts its tokens", messages::count_tokens)
        .takes::<wire::Request>()
        .gives::<wire::Counted>()
}
