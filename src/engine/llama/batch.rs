//! A batch: tokens of one or more sequences that are computed in one pass over the weights.

use llama_cpp_sys_2 as sys;

use super::{Sequence, Token};

/// Tokens, each with its sequence and its position there.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<Token>,
    positions: Vec<i32>,
    sequences: Vec<sys::llama_seq_id>,
    /// How many sequences each token belongs to: always one.
    counts: Vec<i32>,
    marks: Vec<i8>,
    /// The state that comes with each token, one after the other; empty where none does.
    states: Vec<f32>,
    outputs: usize,
    /// Pointers into `sequences`, made when the batch is handed over.
    places: Vec<*mut sys::llama_seq_id>,
}

// SAFETY: the pointers are made afresh at each use and point into the batch itself.
unsafe impl Send for Batch {}

impl Batch {
    /// Tokens in the batch.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens that ask for logits.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.counts.clear();
        self.marks.clear();
        self.states.clear();
        self.outputs = 0;
    }

    /// Adds tokens that follow each other in a sequence, from a position on; those from index `outputs_from` of them on
    /// ask for logits.
    pub fn push(
        &mut self,
        sequence: Sequence,
        position: usize,
        tokens: &[Token],
        outputs_from: usize,
    ) {
        for (index, &token) in tokens.iter().enumerate() {
            self.tokens.push(token);
            self.positions.push(i32::try_from(position + index).unwrap_or(i32::MAX));
            self.sequences.push(i32::from(sequence));
            self.counts.push(1);
            self.marks.push(i8::from(index >= outputs_from));
        }
        self.outputs += tokens.len().saturating_sub(outputs_from);
    }

    /// Adds a token of the first sequence that comes with the state of the one before it.
    pub fn push_with_state(&mut self, position: usize, token: Token, state: &[f32], asks: bool) {
        self.push(0, position, &[token], usize::from(!asks));
        self.states.extend_from_slice(state);
    }

    /// Numbers of all states that come with tokens.
    pub(super) fn state_values(&self) -> usize {
        self.states.len()
    }

    /// Each token with its sequence and its position.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Token, i32, i32)> + '_ {
        let places = self.sequences.iter().zip(&self.positions);
        self.tokens
            .iter()
            .zip(places)
            .map(|(&token, (&sequence, &position))| (token, sequence, position))
    }

    /// Where the tokens with logits are.
    pub(super) fn output_places(&self, target: &mut Vec<i32>) {
        target.clear();
        target.extend((0_i32..).zip(&self.marks).filter(|(_, mark)| **mark != 0).map(|(i, _)| i));
    }

    /// The batch as llama.cpp reads it; valid while the batch is not touched.
    pub(super) fn as_raw(&mut self) -> sys::llama_batch {
        self.places.clear();
        // Through one pointer to the whole, which stays valid for all of them.
        let first = self.sequences.as_mut_ptr();
        self.places.extend((0..self.sequences.len()).map(|index| first.wrapping_add(index)));
        sys::llama_batch {
            n_tokens: self.tokens.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: match self.states.len() {
                0 => std::ptr::null_mut(),
                _ => self.states.as_mut_ptr(),
            },
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.places.as_mut_ptr(),
            logits: self.marks.as_mut_ptr(),
        }
    }
}
