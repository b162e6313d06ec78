//! What a model's file says about it, kept in its manifest so that a list need not open files of many gigabytes.

use nfl_models::gguf::{Gguf, Metadata, TensorInfo};
use nfl_models::{Level, template};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is known of a model. Everything may be missing: a file that our reader refuses still has its manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `llama`, `qwen3moe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// How many weights it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// What it is quantised to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The context that it was trained for, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// The length of a token's vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<u64>,
    /// What it can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a model can do; the words are Ollama's, because its clients ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Continues texts, and answers where it has a chat template.
    Completion,
    /// Calls tools.
    Tools,
    /// Fills gaps.
    Insert,
    /// Sees images.
    Vision,
    /// Hears sounds.
    Audio,
    /// Turns texts into vectors.
    Embedding,
    /// Thinks before it answers.
    Thinking,
    /// One that a newer version knows.
    #[serde(other)]
    Unknown,
}

impl Capability {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Tools => "tools",
            Self::Insert => "insert",
            Self::Vision => "vision",
            Self::Audio => "audio",
            Self::Embedding => "embedding",
            Self::Thinking => "thinking",
            Self::Unknown => "unknown",
        }
    }
}

impl Facts {
    /// What a model's file says. `projector` is that of its mmproj, when it has one; `template` the text of a chat
    /// template that stands in for its own.
    pub fn of(gguf: &Gguf, projector: Option<&Gguf>, template: Option<&str>) -> Self {
        let metadata = gguf.metadata();
        let architecture = metadata.architecture().map(str::to_owned);
        let number = |key: &str| {
            let architecture = architecture.as_deref()?;
            metadata.u64(&format!("{architecture}.{key}"))
        };
        let level = metadata.u32("general.file_type").and_then(Level::from_file_type);
        Self {
            parameters: Some(gguf.tensors().iter().map(TensorInfo::elements).sum()),
            level: level.map(|level| level.name().to_owned()),
            context: number("context_length"),
            embedding: number("embedding_length"),
            capabilities: capabilities(metadata, projector, template),
            architecture: architecture.clone(),
            rest: Map::new(),
        }
    }
}

fn capabilities(
    metadata: &Metadata,
    projector: Option<&Gguf>,
    template: Option<&str>,
) -> Vec<Capability> {
    let mut found = Vec::new();
    let architecture = metadata.architecture().unwrap_or_default();
    let embeds = metadata.get(&format!("{architecture}.pooling_type")).is_some();
    found.push(if embeds { Capability::Embedding } else { Capability::Completion });
    let own = metadata.text(template::METADATA_KEY);
    for text in own.iter().chain(&template) {
        // Jinja names the variable `tools`, Go's templates the field `.Tools`.
        if ["tools", ".Tools"].iter().any(|word| text.contains(word)) {
            found.push(Capability::Tools);
        }
        if ["<think>", "enable_thinking", ".Thinking", "reasoning_effort"]
            .iter()
            .any(|word| text.contains(word))
        {
            found.push(Capability::Thinking);
        }
    }
    let gap = ["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"];
    if gap.iter().any(|key| metadata.u32(key).is_some()) {
        found.push(Capability::Insert);
    }
    if let Some(projector) = projector {
        let has = |key: &str| projector.metadata().get(key).is_some();
        if has("clip.has_audio_encoder") {
            found.push(Capability::Audio);
        }
        if has("clip.has_vision_encoder") || !has("clip.has_audio_encoder") {
            found.push(Capability::Vision);
        }
    }
    found.sort();
    found.dedup();
    found
}
