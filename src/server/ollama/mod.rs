//! Ollama's dialect: models by name, talk and texts as lines of JSON, and the management of the store.
//!
//! One file an endpoint. Where Ollama would drop a part of a prompt without a word, this refuses with the numbers; who asks
//! for it (`truncate`, `shift`) gets it, and is told.

mod about;
mod blobs;
mod chat;
mod cloud;
mod copy;
mod create;
mod delete;
mod embed;
mod generate;
mod list;
mod load;
mod model;
mod moment;
mod options;
mod progress;
mod ps;
mod pull;
mod push;
mod refuse;
mod replaced;
mod show;
mod talk;
mod terms;
mod wire;

use super::body;
use super::routes::{Access, Routes};

/// The routes.
pub(super) fn routes() -> Routes {
    asking().and(managing()).and(refused())
}

fn asking() -> Routes {
    use Access::{Infer, Open};
    Routes::new("Ollama", refuse::answer)
        .get("/api/version", Open, "The version of this program", about::version)
        .get("/api/status", Open, "Whether there is a cloud: there is none", about::status)
        .post("/api/generate", Infer, "Continues or answers a text", generate::generate)
        .takes::<wire::Generate>()
        .gives::<wire::Chunk>()
        .sends(body::NDJSON)
        .post("/api/chat", Infer, "Answers a conversation", chat::chat)
        .takes::<wire::Chat>()
        .gives::<wire::Chunk>()
        .sends(body::NDJSON)
        .post("/api/embed", Infer, "The embeddings of texts", embed::embed)
        .takes::<wire::Embed>()
        .gives::<wire::Embedded>()
        .post(
            "/api/embeddings",
            Infer,
            "The embedding of a text, as it was once asked for",
            embed::embeddings,
        )
        .takes::<wire::OldEmbed>()
        .gives::<wire::OldEmbedded>()
        .get("/api/tags", Infer, "The models of this machine", list::tags)
        .gives::<wire::Models<wire::Stored>>()
        .post("/api/show", Infer, "All that is known of a model", show::show)
        .takes::<wire::Named>()
        .gives::<wire::Shown>()
        .get("/api/ps", Infer, "The models that are loaded", ps::ps)
        .gives::<wire::Models<wire::Running>>()
}

fn managing() -> Routes {
    use Access::Manage;
    Routes::new("Ollama", refuse::answer)
        .post("/api/copy", Manage, "Gives a model a second name", copy::copy)
        .takes::<wire::Copy>()
        .delete("/api/delete", Manage, "Takes a name from a model", delete::delete)
        .takes::<wire::Named>()
        .post("/api/create", Manage, "Makes a model from another or from files", create::create)
        .takes::<wire::Create>()
        .gives::<wire::Status>()
        .sends(body::NDJSON)
        .head("/api/blobs/{digest}", Manage, "Whether content is there", blobs::has)
        .post("/api/blobs/{digest}", Manage, "Takes content in", blobs::put)
        .takes_bytes()
        .post("/api/pull", Manage, "Fetches a model", pull::pull)
        .takes::<wire::Named>()
        .gives::<wire::Status>()
        .sends(body::NDJSON)
        .post("/api/push", Manage, "Sends a model to a registry", push::push)
        .takes::<wire::Named>()
        .gives::<wire::Status>()
        .sends(body::NDJSON)
}

/// What belongs to a cloud.
fn refused() -> Routes {
    use Access::Infer;
    Routes::new("Ollama", refuse::answer)
        .post("/api/me", Infer, "Refused: there are no accounts", cloud::account)
        .post("/api/signout", Infer, "Refused: there are no accounts", cloud::account)
        .delete("/api/user/keys/{key}", Infer, "Refused: there are no accounts", cloud::account)
        .post("/api/web_search", Infer, "Refused: nothing leaves this machine", cloud::web_search)
        .post("/api/web_fetch", Infer, "Refused: nothing leaves this machine", cloud::web_fetch)
        .post(
            "/api/experimental/web_search",
            Infer,
            "Refused: nothing leaves this machine",
            cloud::web_search,
        )
        .post(
            "/api/experimental/web_fetch",
            Infer,
            "Refused: nothing leaves this machine",
            cloud::web_fetch,
        )
        .get(
            "/api/experimental/model-recommendations",
            Infer,
            "Refused: nothing leaves this machine",
            cloud::recommendations,
        )
}
