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
mod forms;
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
    conversations().and(vectors()).and(rankings()).and(facts()).and(responses::routes())
}

fn conversations() -> Routes {
    use Access::Infer;
    let answers = "Answers a conversation";
    let counts = "The tokens of a conversation as the model would read it";
    Routes::new("OpenAI", refusal::response)
        .post("/v1/chat/completions", Infer, answers, chat::create)
        .takes::<forms::Chat>()
        .gives::<wire::Chat>()
        .sends(body::EVENTS)
        .post("/chat/completions", Infer, answers, chat::create)
        .takes::<forms::Chat>()
        .gives::<wire::Chat>()
        .sends(body::EVENTS)
        .post("/v1/chat/completions/input_tokens", Infer, counts, chat::count)
        .takes::<forms::Chat>()
        .gives::<wire::InputTokens>()
        .post("/chat/completions/input_tokens", Infer, counts, chat::count)
        .takes::<forms::Chat>()
        .gives::<wire::InputTokens>()
        .post("/apply-template", Infer, "A conversation as the model would read it", chat::template)
        .takes::<forms::Chat>()
        .gives::<wire::Prompt>()
        .post("/v1/completions", Infer, "Continues texts", completion::create)
        .takes::<forms::Completion>()
        .gives::<wire::Completion>()
        .sends(body::EVENTS)
}

fn vectors() -> Routes {
    use Access::Infer;
    let legacy = "The embeddings of texts, as llama-server gives them";
    Routes::new("OpenAI", refusal::response)
        .post("/v1/embeddings", Infer, "The embeddings of texts", embeddings::create)
        .takes::<forms::Embedding>()
        .gives::<wire::Embeddings>()
        .post("/embeddings", Infer, legacy, embeddings::create_legacy)
        .takes::<forms::LegacyEmbedding>()
        .gives::<Vec<wire::Legacy>>()
        .post("/embedding", Infer, legacy, embeddings::create_legacy)
        .takes::<forms::LegacyEmbedding>()
        .gives::<Vec<wire::Legacy>>()
}

fn rankings() -> Routes {
    let paths = ["/v1/rerank", "/v1/reranking", "/rerank", "/reranking"];
    let summary = "Ranks documents by how well they answer a query";
    paths.into_iter().fold(Routes::new("OpenAI", refusal::response), |routes, path| {
        let routes = routes.post(path, Access::Infer, summary, rerank::create);
        routes.takes::<forms::Rerank>().gives::<wire::Rankings>()
    })
}

fn facts() -> Routes {
    use Access::Infer;
    Routes::new("OpenAI", refusal::response)
        .get("/v1/models", Infer, "The models of this machine", models::list)
        .gives::<wire::Models>()
        .get("/models", Infer, "The models of this machine", models::list)
        .gives::<wire::Models>()
        .get("/v1/models/{*name}", Infer, "A model of this machine", models::show)
        .gives::<wire::Model>()
}
