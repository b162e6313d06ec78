//! Layers with which a model guesses the token after the next (multi-token prediction, MTP; "nextn" to llama.cpp).
//!
//! Such a layer computes on what the model made of a token, its *state*, together with the token that followed. So a
//! context can be asked for the states of its tokens, and another context of the same model computes the layer alone,
//! with a cache of its own.
//!
//! llama.cpp declares the functions for states in a C++ header that the bindings leave out. They are called here by
//! their linker names, as [`steady`](super::steady) does and for the same reason: the bindings are pinned to one exact
//! version, and a name that is gone fails the build.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::{AbortFlag, Context, LlamaError, Model};
use crate::engine::options::ContextOptions;

/// Tokens that a prediction layer reads at once: a reply gives it a few at a time, and its buffers stay small.
pub const PREDICTION_BATCH_TOKENS: u32 = 64;

/// Which tokens of a batch leave their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HiddenStates {
    /// None.
    #[default]
    None,
    /// Those with logits: costs nothing.
    Outputs,
    /// Every one: the last layer is then computed whole for each of them.
    All,
}

#[cfg(not(target_env = "msvc"))]
unsafe extern "C" {
    /// `void llama_set_embeddings_nextn(llama_context * ctx, bool value, bool masked)`.
    #[link_name = "_Z26llama_set_embeddings_nextnP13llama_contextbb"]
    fn llama_set_embeddings_nextn(context: *mut sys::llama_context, value: bool, masked: bool);

    /// `float * llama_get_embeddings_nextn_ith(llama_context * ctx, int32_t i)`.
    #[link_name = "_Z30llama_get_embeddings_nextn_ithP13llama_contexti"]
    fn llama_get_embeddings_nextn_ith(context: *mut sys::llama_context, place: i32) -> *mut f32;
}

/// Where C++ names are spelled another way, no context gives states.
#[cfg(target_env = "msvc")]
unsafe fn llama_set_embeddings_nextn(_: *mut sys::llama_context, _: bool, _: bool) {}

#[cfg(target_env = "msvc")]
unsafe fn llama_get_embeddings_nextn_ith(_: *mut sys::llama_context, _: i32) -> *mut f32 {
    std::ptr::null_mut()
}

impl Context {
    /// A context of the model's prediction layer, for one sequence: each of its tokens comes with the state of the token
    /// before it, and leaves a state itself. The file must have passed [`nfl_models::prediction::find`], because llama.cpp
    /// asserts what is checked there.
    pub fn of_prediction(
        model: &Arc<Model>,
        options: &ContextOptions,
        context_tokens: u32,
        abort: AbortFlag,
    ) -> Result<Self, LlamaError> {
        let options = ContextOptions {
            sequences: 1,
            batch_tokens: PREDICTION_BATCH_TOKENS,
            micro_batch_tokens: PREDICTION_BATCH_TOKENS,
            ..options.clone()
        };
        let kind = sys::LLAMA_CONTEXT_TYPE_MTP;
        let mut context = Self::open(model, &options, (context_tokens, kind), abort, None)?;
        context.input_state_length = model.embedding_length();
        // Every row, because the graphs of these layers keep a state for each token, with logits or without.
        context.leave_hidden_states(HiddenStates::All);
        Ok(context)
    }

    /// Which tokens of the next batches leave their state.
    pub fn leave_hidden_states(&mut self, states: HiddenStates) {
        if self.hidden_states != states {
            self.hidden_states = states;
            // SAFETY: the context is alive; the call sets two switches.
            unsafe {
                llama_set_embeddings_nextn(
                    self.as_ptr(),
                    states != HiddenStates::None,
                    states == HiddenStates::Outputs,
                );
            }
        }
    }

    /// The state that a token of the last batch left, by its place there.
    pub fn hidden_state(&mut self, place: usize) -> Result<&[f32], LlamaError> {
        if self.hidden_states == HiddenStates::None {
            return Err(LlamaError::NoEmbedding);
        }
        // SAFETY: the context is alive; a place without a state gives null.
        let pointer = unsafe { llama_get_embeddings_nextn_ith(self.as_ptr(), place as i32) };
        if pointer.is_null() {
            return Err(LlamaError::NoEmbedding);
        }
        let length = self.model().embedding_length();
        // SAFETY: a state has that many numbers, in memory of the context that stays until the next computation, which
        // needs `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
    }
}
