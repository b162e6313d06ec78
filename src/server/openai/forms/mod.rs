//! The forms of OpenAI's requests: which fields a body may have, and what stands in them.
//!
//! These types are never filled: they are the OpenAPI document's word on a body, and the names in them are all that
//! [`Fields`](super::fields::Fields) lets in. So the two cannot part: a field that is read but not listed here never
//! arrives, and one that is listed but read nowhere is refused when somebody uses it.

#![expect(dead_code, reason = "forms are described, never filled")]
#![expect(clippy::struct_field_names, reason = "the names are OpenAI's and llama-server's")]

mod parts;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

use self::parts::{
    Choice, Continued, Document, Effort, Format, Harmless, Included, Input, Instance, LogitBias,
    Message, Modality, Normalization, Prompts, ReasoningFormat, Samplers, Stop, TextOptions, Tool,
    Truncation, VectorKind,
};

/// The names that a form has.
pub(super) type Names = LazyLock<BTreeSet<String>>;

pub(super) static CHAT: Names = LazyLock::new(names::<Chat>);
pub(super) static COMPLETION: Names = LazyLock::new(names::<Completion>);
pub(super) static EMBEDDING: Names = LazyLock::new(names::<Embedding>);
pub(super) static LEGACY_EMBEDDING: Names = LazyLock::new(names::<LegacyEmbedding>);
pub(super) static RERANK: Names = LazyLock::new(names::<Rerank>);
pub(super) static RESPONSE: Names = LazyLock::new(names::<Response>);

fn names<T: JsonSchema>() -> BTreeSet<String> {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>();
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(Map::keys).cloned().collect()
}

/// A conversation to answer.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiChat")]
pub(super) struct Chat {
    messages: Vec<Message>,
    modalities: Option<[Modality; 1]>,
    /// Whether to tell how likely each token was.
    logprobs: Option<bool>,
    /// Likeliest tokens at each place; goes with `logprobs`.
    #[schemars(range(min = 0, max = 128))]
    top_logprobs: Option<u32>,
    /// llama-server's name for `logprobs` and `top_logprobs` at once.
    #[schemars(range(min = 0, max = 128))]
    n_probs: Option<u32>,
    /// Whether a turn of the assistant's is opened for the reply.
    add_generation_prompt: Option<bool>,
    /// Whether the reply goes on within the last message; the default where that is the assistant's.
    continue_final_message: Option<Continued>,
    /// Whether to tell the prompt as the model reads it.
    verbose: Option<bool>,
    #[schemars(flatten)]
    tools: Tools,
    #[schemars(flatten)]
    form: Form,
    #[schemars(flatten)]
    thinking: Thinking,
    #[schemars(flatten)]
    reply: Reply,
}

/// Texts to continue as they stand.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiCompletion")]
pub(super) struct Completion {
    prompt: Prompts,
    /// The text behind the gap that is to be filled.
    suffix: Option<String>,
    /// Whether the prompt comes back before the reply.
    echo: Option<bool>,
    /// Likeliest tokens to tell at each place.
    #[schemars(range(min = 0, max = 128))]
    logprobs: Option<u32>,
    /// llama-server's name for `logprobs`.
    #[schemars(range(min = 0, max = 128))]
    n_probs: Option<u32>,
    /// Replies that are made, of which the `n` likeliest are given.
    #[schemars(range(min = 1, max = 128))]
    best_of: Option<u32>,
    #[schemars(flatten)]
    form: Form,
    #[schemars(flatten)]
    reply: Reply,
}

/// An answer, which may be kept and continued.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiResponse")]
pub(super) struct Response {
    input: Input,
    instructions: Option<String>,
    /// The kept answer that this one continues.
    previous_response_id: Option<String>,
    store: Option<bool>,
    /// Whether to answer at once and work later.
    background: Option<bool>,
    include: Option<Vec<Included>>,
    #[schemars(range(min = 0, max = 128))]
    top_logprobs: Option<u32>,
    #[schemars(range(min = 0))]
    max_output_tokens: Option<u32>,
    /// Changes nothing: no tool runs on this server.
    max_tool_calls: Option<u32>,
    text: Option<TextOptions>,
    truncation: Option<Truncation>,
    #[schemars(flatten)]
    tools: Tools,
    #[schemars(flatten)]
    form: Form,
    #[schemars(flatten)]
    thinking: Thinking,
    #[schemars(flatten)]
    reply: Reply,
}

/// Texts to embed.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiEmbedding")]
pub(super) struct Embedding {
    input: Prompts,
    #[schemars(flatten)]
    vectors: Vectors,
}

/// Texts to embed, in `content` or in `input`.
#[derive(JsonSchema)]
#[schemars(rename = "LlamaServerEmbedding")]
pub(super) struct LegacyEmbedding {
    content: Option<Prompts>,
    input: Option<Prompts>,
    #[schemars(flatten)]
    vectors: Vectors,
}

/// How embeddings are given.
#[derive(JsonSchema)]
struct Vectors {
    /// The model; the only one that is loaded or stored when it is missing.
    model: Option<String>,
    encoding_format: Option<VectorKind>,
    /// Numbers of each vector that are given; all when it is missing.
    #[schemars(range(min = 1))]
    dimensions: Option<u32>,
    embd_normalize: Option<Normalization>,
    #[schemars(flatten)]
    harmless: Harmless,
}

/// Documents to rank by a query: in `documents`, or in `texts` as Text Embeddings Inference has them.
#[derive(JsonSchema)]
pub(super) struct Rerank {
    /// The model; the only one that is loaded or stored when it is missing.
    model: Option<String>,
    query: String,
    documents: Option<Vec<Document>>,
    texts: Option<Vec<Document>>,
    /// Documents that are given, the most relevant first; all when it is missing.
    top_n: Option<u32>,
    return_documents: Option<bool>,
    return_text: Option<bool>,
    #[schemars(flatten)]
    harmless: Harmless,
}

/// What all requests for replies have.
#[derive(JsonSchema)]
struct Reply {
    /// The model; the only one that is loaded or stored when it is missing.
    model: Option<String>,
    stop: Option<Stop>,
    /// The most tokens of a reply; -1 is as many as fit.
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    max_tokens: Option<i64>,
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    max_completion_tokens: Option<i64>,
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    n_predict: Option<i64>,
    /// Goes on when the model would end.
    ignore_eos: Option<bool>,
    /// Replies to each prompt.
    #[schemars(range(min = 1, max = 128))]
    n: Option<u32>,
    #[schemars(range(min = 1, max = 128))]
    n_cmpl: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<Map<String, Value>>,
    /// Whether each piece of a stream has an account of the time.
    timings_per_token: Option<bool>,
    /// Whether a stream says how much of the prompt is read.
    return_progress: Option<bool>,
    /// Seconds of silence after which a stream says that it is alive; below 1 it never does.
    sse_ping_interval: Option<i64>,
    parse_tool_calls: Option<bool>,
    add_generation_prompt: Option<bool>,
    #[schemars(flatten)]
    sampling: Sampling,
    #[schemars(flatten)]
    harmless: Harmless,
}

/// How tokens are chosen. What is missing is as the model has it.
#[derive(JsonSchema)]
struct Sampling {
    #[schemars(range(min = 0, max = 100))]
    temperature: Option<f32>,
    dynatemp_range: Option<f32>,
    dynatemp_exponent: Option<f32>,
    /// -1 and 0 are all tokens.
    top_k: Option<i64>,
    #[schemars(range(min = 0, max = 1))]
    top_p: Option<f32>,
    #[schemars(range(min = 0, max = 1))]
    min_p: Option<f32>,
    typical_p: Option<f32>,
    top_n_sigma: Option<f32>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
    repeat_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    mirostat_tau: Option<f32>,
    mirostat_eta: Option<f32>,
    adaptive_decay: Option<f32>,
    /// Below 0 it is off.
    adaptive_target: Option<f32>,
    min_keep: Option<u32>,
    dry_allowed_length: Option<u32>,
    /// Tokens; -1 is the whole context.
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    repeat_last_n: Option<i64>,
    /// Tokens; -1 is the whole context.
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    dry_penalty_last_n: Option<i64>,
    dry_sequence_breakers: Option<Vec<String>>,
    #[schemars(range(min = 0, max = 2))]
    mirostat: Option<u8>,
    samplers: Option<Samplers>,
    /// Below 0 it is chosen at random.
    seed: Option<i64>,
    logit_bias: Option<LogitBias>,
}

/// Tools on offer.
#[derive(JsonSchema)]
struct Tools {
    #[schemars(length(max = 256))]
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Choice>,
    parallel_tool_calls: Option<bool>,
}

/// The form of a reply, of which there may be one.
#[derive(JsonSchema)]
struct Form {
    response_format: Option<Format>,
    /// A JSON Schema.
    json_schema: Option<Instance>,
    /// A grammar in GBNF.
    grammar: Option<String>,
}

/// How much the model thinks before it answers.
#[derive(JsonSchema)]
struct Thinking {
    reasoning_effort: Option<Effort>,
    reasoning: Option<Map<String, Value>>,
    reasoning_format: Option<ReasoningFormat>,
    /// Variables for the chat template; `enable_thinking` is one.
    chat_template_kwargs: Option<Map<String, Value>>,
    enable_thinking: Option<bool>,
    /// -1 is as the model likes, 0 is none.
    #[schemars(range(min = -1, max = 0))]
    reasoning_budget: Option<i64>,
    #[schemars(range(min = -1, max = 0))]
    reasoning_budget_tokens: Option<i64>,
    #[schemars(range(min = -1, max = 0))]
    thinking_budget_tokens: Option<i64>,
}
