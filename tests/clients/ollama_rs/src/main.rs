//! The real Rust client of Ollama against `nfl serve`.
//!
//! An opt-in job, since it needs the network once:
//!
//! ```sh
//! python3 tests/clients/served.py NFL STORIES.gguf \
//!     cargo run --manifest-path tests/clients/ollama_rs/Cargo.toml --target-dir target/ollama_rs
//! ```

use std::error::Error;

use ollama_rs::Ollama;
use ollama_rs::coordinator::Coordinator;
use ollama_rs::error::OllamaError;
use ollama_rs::generation::chat::request::ChatMessageRequest;
use ollama_rs::generation::chat::{ChatMessage, MessageRole};
use ollama_rs::generation::completion::request::GenerationRequest;
use ollama_rs::generation::embeddings::request::{EmbeddingsInput, GenerateEmbeddingsRequest};
use ollama_rs::generation::parameters::{FormatType, JsonSchema, JsonStructure, KeepAlive};
use ollama_rs::generation::tools::{ToolCall, ToolCallFunction};
use ollama_rs::models::ModelOptions;
use ollama_rs::models::create::CreateModelRequest;
use serde::Deserialize;
use tokio_stream::StreamExt;

type Checked = Result<(), Box<dyn Error + Send + Sync>>;

/// What a reply is to be.
#[derive(Debug, Deserialize, JsonSchema)]
struct Pet {
    kind: Kind,
    tame: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum Kind {
    Cat,
    Dog,
}

/// Halves a number.
///
/// * number - What is to be halved.
#[ollama_rs::function]
async fn half(number: i32) -> Result<String, Box<dyn Error + Send + Sync>> {
    Ok((number / 2).to_string())
}

fn greedy(tokens: i32) -> ModelOptions {
    ModelOptions::default().temperature(0.0).seed(1).num_predict(tokens)
}

fn ask() -> Vec<ChatMessage> {
    vec![ChatMessage::user("Tell me a story.".to_owned())]
}

fn chat(model: &str) -> ChatMessageRequest {
    ChatMessageRequest::new(model.to_owned(), ask()).options(greedy(12))
}

async fn generates(client: &Ollama) -> Checked {
    let request = || {
        GenerationRequest::new("stories".to_owned(), "Once upon a time")
            .raw(true)
            .options(greedy(12))
    };
    let whole = client.generate(request()).await?;
    assert!(
        whole.done && whole.eval_count == Some(12) && whole.prompt_eval_count == Some(5),
        "{whole:?}"
    );
    let mut text = String::new();
    let mut stream = client.generate_stream(request()).await?;
    while let Some(pieces) = stream.next().await {
        text.extend(pieces?.into_iter().map(|piece| piece.response));
    }
    assert_eq!(text, whole.response);
    Ok(())
}

async fn chats(client: &Ollama) -> Checked {
    let whole = client.send_chat_messages(chat("chatty")).await?;
    assert_eq!(whole.message.role, MessageRole::Assistant);
    let mut text = String::new();
    let mut last = None;
    let mut stream = client.send_chat_messages_stream(chat("chatty")).await?;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|()| "a piece is not understood")?;
        text += &piece.message.content;
        last = Some(piece);
    }
    assert_eq!(text, whole.message.content);
    let done = last.and_then(|piece| piece.final_data).ok_or("no account at the end")?;
    assert_eq!(done.eval_count, 12);
    let mut history = Vec::new();
    client.send_chat_messages_with_history(&mut history, chat("chatty")).await?;
    assert_eq!(history.len(), 2);
    Ok(())
}

async fn keeps_a_form(client: &Ollama) -> Checked {
    let format = FormatType::StructuredJson(Box::new(JsonStructure::new::<Pet>()));
    let request = chat("chatty").format(format).options(greedy(100));
    let said = client.send_chat_messages(request).await?.message.content;
    let pet: Pet = serde_json::from_str(&said)?;
    assert!(matches!(pet.kind, Kind::Cat | Kind::Dog) && (pet.tame || !pet.tame), "{pet:?}");
    Ok(())
}

async fn offers_tools(client: &Ollama) -> Checked {
    let plain = client.send_chat_messages(chat("chatty")).await?;
    let mut called = ChatMessage::assistant(String::new());
    let arguments = serde_json::json!({"number": 4});
    called.tool_calls =
        vec![ToolCall { function: ToolCallFunction { name: "half".to_owned(), arguments } }];
    let turns = [ask(), vec![called, ChatMessage::tool("2".to_owned())]].concat();
    let request =
        ChatMessageRequest::new("chatty".to_owned(), turns).options(greedy(12)).add_tool(half);
    let offered = client.send_chat_messages(request).await?;
    let read = |reply: &ollama_rs::generation::chat::ChatMessageResponse| {
        reply.final_data.as_ref().map_or(0, |data| data.prompt_eval_count)
    };
    assert!(read(&offered) > read(&plain), "the tool is not in the prompt");
    let mut coordinator = Coordinator::new(client.clone(), "chatty".to_owned(), Vec::new())
        .options(greedy(12))
        .add_tool(half);
    assert!(coordinator.chat(ask()).await?.done);
    Ok(())
}

async fn embeds(client: &Ollama) -> Checked {
    let input =
        EmbeddingsInput::Multiple(vec!["The dog ran.".to_owned(), "The cat sat.".to_owned()]);
    let request = GenerateEmbeddingsRequest::new("stories".to_owned(), input);
    let found = client.generate_embeddings(request).await?.embeddings;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64]);
    let length: f32 = found[0].iter().map(|number| number * number).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    Ok(())
}

async fn manages_models(client: &Ollama) -> Checked {
    let made = CreateModelRequest::new("brief".to_owned())
        .from_model("stories".to_owned())
        .system("Be brief.".to_owned());
    assert_eq!(client.create_model(made).await?.message, "success");
    client.copy_model("brief".to_owned(), "other".to_owned()).await?;
    let mut names: Vec<String> =
        client.list_local_models().await?.into_iter().map(|model| model.name).collect();
    names.sort();
    assert_eq!(names, ["brief:latest", "chatty:latest", "other:latest", "stories:latest"]);
    let shown = client.show_model_info("brief".to_owned()).await?;
    assert_eq!(shown.model_info["general.architecture"], "llama");
    assert!(shown.modelfile.contains("Be brief."), "{}", shown.modelfile);
    client.delete_model("other".to_owned()).await?;
    let unload =
        GenerationRequest::new("stories".to_owned(), "").keep_alive(KeepAlive::UnloadOnCompletion);
    assert!(client.generate(unload).await?.done);
    Ok(())
}

async fn refuses(client: &Ollama) -> Checked {
    let without_tools = chat("stories").add_tool(half);
    for (error, words) in [
        (client.send_chat_messages(chat("none")).await.err(), "model 'none' not found"),
        (client.send_chat_messages_stream(chat("none")).await.err(), "model 'none' not found"),
        (client.send_chat_messages(without_tools).await.err(), "does not support tools"),
        (client.delete_model("none".to_owned()).await.err(), "not found"),
        (client.show_model_info("none".to_owned()).await.err(), "not found"),
    ] {
        let text = match error.ok_or("nothing was refused")? {
            OllamaError::InternalError(error) => error.message,
            OllamaError::Other(text) => text,
            other => return Err(other.into()),
        };
        assert!(text.contains(words), "{text}");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Checked {
    let client = Ollama::try_new(std::env::var("URL")?)?;
    generates(&client).await?;
    chats(&client).await?;
    keeps_a_form(&client).await?;
    offers_tools(&client).await?;
    embeds(&client).await?;
    refuses(&client).await?;
    manages_models(&client).await?;
    println!("all passed");
    Ok(())
}
