//! Fill-in-the-middle: what stands before and behind, in the order and with the tokens that the
//! model was trained on.

use super::{LlamaError, Token, TokenizeOptions, Vocabulary};

/// The tokens of a vocabulary that mark parts of a text to fill in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InfillTokens {
    /// In front of what stands before the gap.
    pub prefix: Option<Token>,
    /// In front of what stands behind the gap.
    pub suffix: Option<Token>,
    /// Where the model begins to write.
    pub middle: Option<Token>,
    /// In front of a repository's name.
    pub repository: Option<Token>,
    /// In front of a file's name.
    pub separator: Option<Token>,
}

/// Another file that helps to fill the gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfillFile {
    /// Its name in the repository.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// A gap in a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Infill {
    /// What stands before the gap.
    pub prefix: String,
    /// What stands behind it.
    pub suffix: String,
    /// The repository's name, if that is known.
    pub repository: Option<String>,
    /// The name of the file with the gap, if that is known.
    pub file: Option<String>,
    /// Other files, the most helpful last.
    pub files: Vec<InfillFile>,
}

impl Infill {
    /// The prompt; an error when the vocabulary has no tokens for it.
    pub fn prompt(&self, vocabulary: &Vocabulary) -> Result<Vec<Token>, LlamaError> {
        let special = vocabulary.infill_tokens();
        let (Some(prefix), Some(suffix), Some(middle)) =
            (special.prefix, special.suffix, special.middle)
        else {
            return Err(LlamaError::NoInfill);
        };
        // Texts are texts: what looks like a special token in a file is none.
        let plain = TokenizeOptions { add_special: false, parse_special: false };
        let mut tokens = Vec::new();
        tokens.extend(vocabulary.begin().filter(|_| vocabulary.adds_begin()));
        if let Some(name) = &self.repository {
            let repository = special.repository.ok_or(LlamaError::NoInfillFiles)?;
            tokens.push(repository);
            tokens.extend(vocabulary.tokenize(&format!("{name}\n"), plain)?);
        }
        for InfillFile { name, text } in &self.files {
            tokens.push(special.separator.ok_or(LlamaError::NoInfillFiles)?);
            tokens.extend(vocabulary.tokenize(&format!("{name}\n{text}"), plain)?);
        }
        if let Some(name) = &self.file {
            tokens.push(special.separator.ok_or(LlamaError::NoInfillFiles)?);
            tokens.extend(vocabulary.tokenize(&format!("{name}\n"), plain)?);
        }
        tokens.push(prefix);
        tokens.extend(vocabulary.tokenize(&self.prefix, plain)?);
        tokens.push(suffix);
        tokens.extend(vocabulary.tokenize(&self.suffix, plain)?);
        tokens.push(middle);
        Ok(tokens)
    }
}
