//! A constraint on a reply, with the vocabulary that writes it.

use std::sync::Arc;

use super::{LlamaError, Token, TokenizeOptions, Vocabulary};
use crate::engine::grammar::{Grammar, Matcher, Pieces, TokenMask, TokenNames, schema};
use crate::engine::options::{Constraint, TRIGGER_BYTES_MAX, Trigger, TriggerPlace, TriggerWhat};

/// Follows a reply and says what may come next.
#[derive(Debug)]
pub(super) struct Constrained {
    matcher: Matcher,
    pieces: Arc<Pieces>,
    triggers: Vec<Trigger>,
    /// The last bytes of the reply while a trigger is waited for.
    waiting: Option<Vec<u8>>,
}

/// What a token does while a trigger is waited for.
enum Started {
    /// Nothing yet.
    No,
    /// Begins the constraint, of which these bytes are there already.
    Bytes(Vec<u8>),
    /// Begins the constraint and is its first token.
    Token,
}

impl Constrained {
    pub(super) fn new(
        constraint: &Constraint,
        triggers: &[Trigger],
        vocabulary: &Vocabulary,
    ) -> Result<Self, LlamaError> {
        if !vocabulary.has_tokenizer() {
            return Err(LlamaError::NoTokenizer);
        }
        for trigger in triggers {
            if let TriggerWhat::Token(token) = trigger.what {
                vocabulary.check(token)?;
            }
        }
        let pieces = vocabulary.pieces_of_all()?;
        let grammar = grammar_of(constraint, vocabulary)?;
        let matcher = Matcher::new(grammar, Arc::clone(&pieces))?;
        let waiting = (!triggers.is_empty()).then(Vec::new);
        Ok(Self { matcher, pieces, triggers: triggers.to_vec(), waiting })
    }

    pub(super) fn may_end(&self) -> bool {
        self.waiting.is_some() || self.matcher.may_end()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.waiting.is_none() && self.matcher.is_complete()
    }

    /// Whether a token may follow.
    pub(super) fn allows(&mut self, token: Token) -> Result<bool, LlamaError> {
        let token = token as usize;
        let Some(waiting) = &self.waiting else { return Ok(self.matcher.allows(token)?) };
        match self.started(waiting, token) {
            Started::No => Ok(true),
            Started::Bytes(bytes) => Ok(self.matcher.allows_bytes(&bytes)?),
            Started::Token => Ok(self.matcher.allows(token)?),
        }
    }

    /// All tokens that may follow.
    pub(super) fn mask(&mut self) -> Result<Arc<TokenMask>, LlamaError> {
        if self.waiting.is_none() {
            return Ok(self.matcher.mask()?);
        }
        let tokens = self.pieces.tokens();
        let mut mask = TokenMask::empty(tokens);
        for token in 0..tokens {
            if self.allows(token as Token)? {
                mask.insert(token);
            }
        }
        Ok(Arc::new(mask))
    }

    /// Goes over a token that was chosen.
    pub(super) fn accept(&mut self, token: Token) -> Result<(), LlamaError> {
        let token = token as usize;
        let Some(mut waiting) = self.waiting.take() else { return self.follow(token) };
        match self.started(&waiting, token) {
            Started::No => {
                waiting.extend_from_slice(self.pieces.of(token));
                let superfluous = waiting.len().saturating_sub(TRIGGER_BYTES_MAX);
                waiting.drain(..superfluous);
                self.waiting = Some(waiting);
                Ok(())
            }
            Started::Token => self.follow(token),
            Started::Bytes(bytes) if self.matcher.accept_bytes(&bytes)? => Ok(()),
            Started::Bytes(_) => Err(LlamaError::NothingFollows),
        }
    }

    fn follow(&mut self, token: usize) -> Result<(), LlamaError> {
        if self.matcher.accept(token)? { Ok(()) } else { Err(LlamaError::NothingFollows) }
    }

    fn started(&self, waiting: &[u8], token: usize) -> Started {
        let by_token = |trigger: &&Trigger| trigger.what == TriggerWhat::Token(token as Token);
        if let Some(trigger) = self.triggers.iter().find(by_token) {
            return match trigger.place {
                TriggerPlace::With => Started::Token,
                TriggerPlace::After => Started::Bytes(Vec::new()),
            };
        }
        let mut text = waiting.to_vec();
        text.extend_from_slice(self.pieces.of(token));
        // The word that is complete first; of these the one that began first.
        let mut first: Option<(usize, usize, TriggerPlace)> = None;
        for trigger in &self.triggers {
            let TriggerWhat::Word(word) = &trigger.what else { continue };
            let found = text.windows(word.len()).position(|window| window == word.as_bytes());
            let Some(start) = found else { continue };
            let end = start + word.len();
            if first
                .is_none_or(|(other_end, other_start, _)| (end, start) < (other_end, other_start))
            {
                first = Some((end, start, trigger.place));
            }
        }
        match first {
            None => Started::No,
            Some((_, start, TriggerPlace::With)) => Started::Bytes(text.split_off(start)),
            Some((end, _, TriggerPlace::After)) => Started::Bytes(text.split_off(end)),
        }
    }
}

fn grammar_of(constraint: &Constraint, vocabulary: &Vocabulary) -> Result<Grammar, LlamaError> {
    let names = Names(vocabulary);
    let grammar = match constraint {
        Constraint::Grammar(source) => Grammar::new(source, &names),
        Constraint::JsonSchema(source) => {
            let source =
                schema::to_gbnf(source).map_err(crate::engine::grammar::GrammarError::from)?;
            Grammar::new(&source, &names)
        }
        Constraint::Json => Grammar::new(&schema::any_object(), &names),
    };
    Ok(grammar?)
}

/// The tokens that a grammar may name.
pub(super) struct Names<'a>(pub(super) &'a Vocabulary);

impl TokenNames for Names<'_> {
    fn token(&self, text: &str) -> Result<u32, String> {
        let options = TokenizeOptions { add_special: false, parse_special: true };
        match self.0.tokenize(text, options).as_deref() {
            Ok([token]) => self.check(*token as u32),
            Ok(tokens) => Err(format!("{text} is {} tokens, not one", tokens.len())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn check(&self, number: u32) -> Result<u32, String> {
        let token = Token::try_from(number).map_err(|_| format!("there is no token {number}"))?;
        self.0.check(token).map_err(|error| error.to_string())?;
        if self.0.is_end_of_generation(token) {
            return Err(format!("token {number} ends a reply: a grammar's end stands for it"));
        }
        Ok(number)
    }
}
