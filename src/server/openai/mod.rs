//! OpenAI's dialect, with llama-server's further routes and fields.
//!
//! ```text
//! fields ─► chat::Request ─► choices: one reply or several ─► chat::Event ─► wire, whole or in pieces
//! ```
//!
//! Nothing that was asked for is passed over in silence: a field that cannot be honoured is refused by its name.

mod asked;
mod chat;
mod choices;
mod completion;
mod echo;
mod embeddings;
mod fields;
mod finish;
mod format;
mod ids;
mod logprobs;
mod messages;
mod models;
mod prompt;
mod refusal;
mod rerank;
mod responses;
mod sampling;
mod stream;
mod timings;
mod tools;
mod turn;
mod wire;

use super::body;
use super::routes::{Access, Routes};

/// The routes.
pub(super) fn routes() -> Routes {
    conversations().and(texts()).and(facts()).and(responses::routes())
}

fn conversations() -> Routes {
    use Access::Infer;
    let answers = "Answers a conversation";
    let counts = "The tokens of a conversation as the model would read it";
    Routes::new("OpenAI", refusal::response)
        .post("/v1/chat/completions", Infer, answers, chat::create)
        .sends(body::EVENTS)
        .post("/chat/completions", Infer, answers, chat::create)
        .sends(body::EVENTS)
        .post("/v1/chat/completions/input_tokens", Infer, counts, chat::count)
        .post("/chat/completions/input_tokens", Infer, counts, chat::count)
        .post("/apply-template", Infer, "A conversation as the model would read it", chat::template)
        .post("/v1/completions", Infer, "Continues texts", completion::create)
        .sends(body::EVENTS)
}

fn texts() -> Routes {
    use Access::Infer;
    let ranks = "Ranks documents by how well they answer a query";
    Routes::new("OpenAI", refusal::response)
        .post("/v1/embeddings", Infer, "The embeddings of texts", embeddings::create)
        .post(
            "/embeddings",
            Infer,
            "The embeddings of texts, as llama-server gives them",
            embeddings::create_legacy,
        )
        .post(
            "/embedding",
            Infer,
            "The embeddings of texts, as llama-server gives them",
            embeddings::create_legacy,
        )
        .post("/v1/rerank", Infer, ranks, rerank::create)
        .post("/v1/reranking", Infer, ranks, rerank::create)
        .post("/rerank", Infer, ranks, rerank::create)
        .post("/reranking", Infer, ranks, rerank::create)
}

fn facts() -> Routes {
    use Access::Infer;
    Routes::new("OpenAI", refusal::response)
        .get("/v1/models", Infer, "The models of this machine", models::list)
        .get("/models", Infer, "The models of this machine", models::list)
        .get("/v1/models/{*name}", Infer, "A model of this machine", models::show)
}
