//! The form of a reply: free text or a given one, with thinking before it or without, a turn of its own or the rest of one.

/// What a reply must be; enforced while it is generated, or refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// A JSON text that is valid for this JSON Schema.
    Schema(String),
    /// A text of this grammar (GBNF).
    Grammar(String),
}

/// Where in a conversation a reply begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Turn {
    /// With a turn of the model's own, behind all messages.
    #[default]
    Next,
    /// Within the last message, which is the model's own: it goes on with what it said, or with its thoughts where it has
    /// said nothing yet.
    Same,
    /// Behind all messages, where no turn is opened: the model continues the text.
    Unopened,
}

/// Whether the model thinks before it speaks, for models that can choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Think {
    /// As its template has it.
    #[default]
    Default,
    /// It speaks at once.
    Off,
    /// It thinks.
    On,
    /// It thinks so much.
    Effort(Effort),
}

/// How much a model thinks, for models that know degrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Little.
    Low,
    /// As usual.
    Medium,
    /// Long.
    High,
}

impl Effort {
    /// The name that chat templates know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
