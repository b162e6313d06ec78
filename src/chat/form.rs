//! The form of a reply: free text or a given one, with thinking before it or without.

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
