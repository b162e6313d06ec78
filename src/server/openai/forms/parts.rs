//! What stands in the fields of a form.

#![expect(dead_code, reason = "forms are described, never filled")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::server::openai::fields::HARMLESS;

/// Fields that clients send and that change nothing here.
pub(super) struct Harmless;

impl JsonSchema for Harmless {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Harmless".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let field = |name: &&str| ((*name).to_owned(), json!({"description": "Changes nothing."}));
        json_schema!({
            "type": "object",
            "properties": HARMLESS.iter().map(field).collect::<Map<String, Value>>(),
        })
    }
}

/// A turn of a conversation.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiMessage")]
pub(super) struct Message {
    role: Role,
    /// Needed, but for an assistant that calls tools or refuses.
    content: Option<Content>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ToolCall>>,
    /// Which call a tool's result is of.
    tool_call_id: Option<String>,
    name: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiRole", rename_all = "snake_case")]
pub(super) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// A text, or parts that are texts: no model sees or hears here.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiContent", untagged)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiPart", tag = "type", rename_all = "snake_case")]
pub(super) enum Part {
    Text { text: String },
    InputText { text: String },
    OutputText { text: String },
    Refusal { refusal: String },
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiToolCall")]
pub(super) struct ToolCall {
    id: Option<String>,
    function: Called,
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiFunctionCall")]
pub(super) struct Called {
    name: String,
    /// The text of a JSON object.
    arguments: Option<String>,
}

/// Whether the last message goes on, or which part of it, which is what it ends with.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiContinued", untagged)]
pub(super) enum Continued {
    Whether(bool),
    Part(MessagePart),
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiMessagePart", rename_all = "snake_case")]
pub(super) enum MessagePart {
    Content,
    ReasoningContent,
}

/// One prompt or several: texts, tokens, and mixtures of both.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Prompts {
    One(Prompt),
    Several(#[schemars(length(min = 1, max = 2048))] Vec<Prompt>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Prompt {
    Text(String),
    Parts(#[schemars(length(min = 1))] Vec<TextOrToken>),
    Wrapped { prompt_string: String },
}

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum TextOrToken {
    Text(String),
    Token(i32),
}

/// What an answer is to: what a user says, or items.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiInput", untagged)]
pub(super) enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// An item of a conversation; one without a type is a message.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiItem", untagged)]
pub(super) enum Item {
    Message(ItemMessage),
    Typed(TypedItem),
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiItemMessage")]
pub(super) struct ItemMessage {
    role: ItemRole,
    content: Content,
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiItemRole", rename_all = "snake_case")]
pub(super) enum ItemRole {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiTypedItem", tag = "type", rename_all = "snake_case")]
pub(super) enum TypedItem {
    Message(ItemMessage),
    Reasoning {
        content: Option<Vec<Thought>>,
    },
    FunctionCall {
        call_id: String,
        name: String,
        /// The text of a JSON object.
        arguments: Option<String>,
    },
    FunctionCallOutput {
        call_id: String,
        output: Content,
    },
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiThought")]
pub(super) struct Thought {
    text: String,
}

/// A function; its description stands in `function`, or beside the type as in the Responses API.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiTool", untagged)]
pub(super) enum Tool {
    Wrapped {
        #[schemars(rename = "type")]
        kind: FunctionKind,
        function: Function,
    },
    Flat {
        #[schemars(rename = "type")]
        kind: FunctionKind,
        #[schemars(flatten)]
        function: Function,
    },
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiFunctionKind", rename_all = "snake_case")]
pub(super) enum FunctionKind {
    Function,
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiFunction")]
pub(super) struct Function {
    name: String,
    description: Option<String>,
    /// A JSON Schema.
    parameters: Option<Map<String, Value>>,
}

/// Which tool is called.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiToolChoice", untagged)]
pub(super) enum Choice {
    Mode(Mode),
    /// `{"type": "function", …}` or `{"type": "allowed_tools", …}`.
    Object(Map<String, Value>),
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiToolMode", rename_all = "snake_case")]
pub(super) enum Mode {
    None,
    Auto,
    Required,
}

/// The form of a reply; a schema stands in `json_schema` (chat) or beside the type (Responses).
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiFormat", tag = "type", rename_all = "snake_case")]
pub(super) enum Format {
    Text {},
    JsonObject { schema: Option<Instance> },
    JsonSchema { json_schema: Option<Wrapped>, schema: Option<Instance> },
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiWrappedSchema")]
pub(super) struct Wrapped {
    schema: Option<Instance>,
}

/// A JSON Schema.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiSchema")]
pub(super) struct Instance(Map<String, Value>);

/// What the Responses API says of its text.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiText")]
pub(super) struct TextOptions {
    format: Option<Format>,
    /// Changes nothing.
    verbosity: Option<Value>,
}

#[derive(JsonSchema)]
#[schemars(rename = "OpenAiEffort", rename_all = "snake_case")]
pub(super) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum ReasoningFormat {
    Auto,
    Deepseek,
}

/// One stop string or several.
#[derive(JsonSchema)]
#[schemars(rename = "OpenAiStop", untagged)]
pub(super) enum Stop {
    One(String),
    Several(Vec<String>),
}

/// Names, or their letters in llama.cpp's short form.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Samplers {
    Names(Vec<String>),
    Letters(#[schemars(regex(pattern = "^[dkypsmtxiea]*$"))] String),
}

/// What is added to tokens' logits: by number or text of the token, or as pairs.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum LogitBias {
    Object(BTreeMap<String, Bias>),
    Pairs(Vec<(TextOrToken, Bias)>),
}

/// A number, or `false`: never.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Bias {
    Number(f32),
    Never(bool),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Modality {
    Text,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum VectorKind {
    Float,
    Base64,
}

/// 2 is Euclid's norm, -1 is none.
pub(super) struct Normalization;

impl JsonSchema for Normalization {
    fn schema_name() -> Cow<'static, str> {
        "Normalization".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": [2, -1]})
    }
}

/// A text, or an object that has it.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Document {
    Text(String),
    Wrapped { text: String },
}

#[derive(JsonSchema)]
pub(super) enum Included {
    #[schemars(rename = "reasoning.encrypted_content")]
    EncryptedReasoning,
    #[schemars(rename = "message.output_text.logprobs")]
    Logprobs,
}

/// Prompts are never cut.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(super) enum Truncation {
    Disabled,
}
