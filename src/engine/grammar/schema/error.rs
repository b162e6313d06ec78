//! Why a schema is not turned into a grammar.

use nfl_models::Hint;
use thiserror::Error;

/// Why a schema is not turned into a grammar.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SchemaError {
    /// It is no JSON.
    #[error("JSON schema: {0}")]
    Json(String),
    /// It is too large or its parts refer to each other too often.
    #[error("JSON schema: it is too large, too deep, or refers to itself too often")]
    TooLarge,
    /// A keyword that cannot be enforced while text is generated.
    #[error("JSON schema, {place}: {keyword} cannot be enforced")]
    Unsupported {
        /// Where, as a JSON pointer.
        place: String,
        /// The keyword, with its value where that matters.
        keyword: String,
    },
    /// It contradicts itself.
    #[error("JSON schema, {place}: {problem}")]
    Impossible {
        /// Where, as a JSON pointer.
        place: String,
        /// What cannot be.
        problem: String,
    },
    /// It breaks the rules of JSON Schema.
    #[error("JSON schema, {place}: {problem}")]
    Invalid {
        /// Where, as a JSON pointer.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

impl Hint for SchemaError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unsupported { keyword, .. } if keyword.starts_with("oneOf") => {
                "use anyOf, or give each branch a property with a const of its own"
            }
            Self::Unsupported { keyword, .. } if keyword.starts_with("nullable") => {
                "write \"type\": [\"string\", \"null\"] instead"
            }
            Self::Unsupported { .. } => {
                "take it out of the schema and check the reply for it afterwards"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
