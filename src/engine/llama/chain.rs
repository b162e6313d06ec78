//! llama.cpp's samplers in the order that was asked, applied to candidates of our own.
//!
//! llama.cpp's own call reads the logits of a context; here the candidates come from outside, so
//! that one row of a batch of many sequences, or only the tokens that a grammar allows, can be
//! chosen from.

use std::ffi::{CString, c_char};
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::{LlamaError, Token, Vocabulary};
use crate::engine::options::{Mirostat, SamplerKind, Sampling};

/// Candidates that Mirostat's first version estimates Zipf's exponent from: llama.cpp's number.
const MIROSTAT_CANDIDATES: i32 = 100;

/// Bytes of a piece that the fill-in-the-middle sampler can hold.
const INFILL_PIECE_BYTES_MAX: usize = 512;

/// A token that may be chosen.
pub(super) type Candidate = sys::llama_token_data;

#[derive(Debug)]
pub(super) struct Chain {
    pointer: NonNull<sys::llama_sampler>,
    /// Samplers that look at earlier tokens are in it.
    remembers: bool,
    vocabulary: Vocabulary,
}

// SAFETY: a chain is used through `&mut Sampler` only and ties nothing to a thread.
unsafe impl Send for Chain {}

impl Chain {
    /// The samplers of `sampling`, closed by one that draws. `own_penalties`: somebody else applies
    /// the penalties.
    pub(super) fn new(
        sampling: &Sampling,
        seed: u32,
        vocabulary: &Vocabulary,
        (context_tokens, own_penalties): (usize, bool),
    ) -> Result<Self, LlamaError> {
        // SAFETY: takes nothing and returns a plain struct.
        let mut params = unsafe { sys::llama_sampler_chain_default_params() };
        params.no_perf = true;
        // SAFETY: the parameters are a plain struct.
        let pointer = unsafe { sys::llama_sampler_chain_init(params) };
        let pointer = NonNull::new(pointer).ok_or(LlamaError::Sampler)?;
        let mut chain = Self { pointer, remembers: false, vocabulary: vocabulary.clone() };
        // The largest number means "choose a seed" to llama.cpp.
        let seed = seed.min(u32::MAX - 1);
        if sampling.mirostat != Mirostat::Off {
            chain.add_mirostat(sampling, seed)?;
            return Ok(chain);
        }
        for &kind in &sampling.samplers {
            match kind {
                SamplerKind::Penalties if own_penalties => {}
                SamplerKind::Penalties => chain.add_penalties(sampling, context_tokens)?,
                SamplerKind::Dry => chain.add_dry(sampling, context_tokens)?,
                SamplerKind::Infill => chain.add_infill()?,
                kind => chain.add_stateless(kind, sampling, seed)?,
            }
        }
        chain.add_draw(sampling, seed)?;
        Ok(chain)
    }

    /// Tells of a token that was taken, or of one of the prompt.
    pub(super) fn accept(&mut self, token: Token) {
        // SAFETY: the chain is alive; its samplers keep the number and look nothing up with it.
        unsafe { sys::llama_sampler_accept(self.pointer.as_ptr(), token) };
    }

    /// Whether earlier tokens matter to it.
    pub(super) fn remembers(&self) -> bool {
        self.remembers
    }

    /// Draws one of the candidates, which are reordered and cut meanwhile. At least one must have a
    /// finite logit.
    pub(super) fn draw(&mut self, candidates: &mut [Candidate]) -> Result<Token, LlamaError> {
        if candidates.is_empty() {
            return Err(LlamaError::Sampler);
        }
        let mut array = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array describes the slice, which outlives the call; samplers only shrink it.
        unsafe { sys::llama_sampler_apply(self.pointer.as_ptr(), &raw mut array) };
        let selected = usize::try_from(array.selected).ok().filter(|place| *place < array.size);
        let place = selected.ok_or(LlamaError::Sampler)?;
        // A sampler may point the array at memory of its own.
        // SAFETY: `place` is within the array that the samplers left.
        let token = unsafe { (*array.data.add(place)).id };
        self.vocabulary.check(token)?;
        Ok(token)
    }

    fn add_stateless(
        &mut self,
        kind: SamplerKind,
        sampling: &Sampling,
        seed: u32,
    ) -> Result<(), LlamaError> {
        let keep = sampling.keep_min as usize;
        match kind {
            SamplerKind::TopK if sampling.top_k > 0 => {
                let top_k = i32::try_from(sampling.top_k).unwrap_or(i32::MAX);
                // SAFETY: plain numbers in, an owned sampler out.
                self.add(unsafe { sys::llama_sampler_init_top_k(top_k) })
            }
            SamplerKind::TopP if sampling.top_p < 1.0 => {
                // SAFETY: as above.
                self.add(unsafe { sys::llama_sampler_init_top_p(sampling.top_p, keep) })
            }
            SamplerKind::MinP if sampling.min_p > 0.0 => {
                // SAFETY: as above.
                self.add(unsafe { sys::llama_sampler_init_min_p(sampling.min_p, keep) })
            }
            SamplerKind::Typical if sampling.typical_p < 1.0 => {
                // SAFETY: as above.
                self.add(unsafe { sys::llama_sampler_init_typical(sampling.typical_p, keep) })
            }
            SamplerKind::TopNSigma if sampling.top_n_sigma > 0.0 => {
                // SAFETY: as above.
                self.add(unsafe { sys::llama_sampler_init_top_n_sigma(sampling.top_n_sigma) })
            }
            SamplerKind::Xtc if sampling.xtc_probability > 0.0 => {
                let (probability, threshold) = (sampling.xtc_probability, sampling.xtc_threshold);
                // SAFETY: as above.
                self.add(unsafe { sys::llama_sampler_init_xtc(probability, threshold, keep, seed) })
            }
            SamplerKind::Temperature => {
                let range = sampling.dynamic_temperature_range;
                let exponent = sampling.dynamic_temperature_exponent;
                // SAFETY: as above.
                self.add(unsafe {
                    sys::llama_sampler_init_temp_ext(sampling.temperature, range, exponent)
                })
            }
            _ => Ok(()),
        }
    }

    fn add_penalties(&mut self, sampling: &Sampling, context: usize) -> Result<(), LlamaError> {
        if !sampling.has_penalties() {
            return Ok(());
        }
        self.remembers = true;
        let tokens = i32::try_from(self.vocabulary.len()).unwrap_or(i32::MAX);
        // SAFETY: plain numbers in, an owned sampler out.
        self.add(unsafe {
            sys::llama_sampler_init_penalties(
                tokens,
                window(sampling.penalty_tokens, context),
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        })
    }

    fn add_dry(&mut self, sampling: &Sampling, context_tokens: usize) -> Result<(), LlamaError> {
        if !sampling.has_dry() {
            return Ok(());
        }
        if !self.vocabulary.has_tokenizer() {
            return Err(LlamaError::NoTokenizer);
        }
        self.remembers = true;
        let breakers = sampling
            .dry_breakers
            .iter()
            .map(|text| CString::new(text.as_str()).map_err(|_| LlamaError::Sampler))
            .collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = breakers.iter().map(|text| text.as_ptr()).collect();
        // SAFETY: the texts outlive the call, which tokenises them and keeps the tokens; the
        // vocabulary has a tokenizer and is alive.
        self.add(unsafe {
            sys::llama_sampler_init_dry(
                self.vocabulary.as_ptr(),
                sampling.dry_multiplier,
                sampling.dry_base,
                i32::try_from(sampling.dry_allowed_tokens).unwrap_or(i32::MAX),
                window(sampling.dry_tokens, context_tokens),
                pointers.as_mut_ptr(),
                pointers.len(),
            )
        })
    }

    fn add_infill(&mut self) -> Result<(), LlamaError> {
        let vocabulary = &self.vocabulary;
        // llama.cpp fails an assertion without an ending token and throws at a long piece.
        if vocabulary.end_of_turn().is_none() && vocabulary.end().is_none() {
            return Err(LlamaError::Infill("the vocabulary has no token that ends a text"));
        }
        let longest = vocabulary.pieces_of_all()?.longest();
        if longest > INFILL_PIECE_BYTES_MAX {
            return Err(LlamaError::Infill("the vocabulary has tokens of more than 512 bytes"));
        }
        // SAFETY: the vocabulary is alive as long as the chain, which holds its model.
        self.add(unsafe { sys::llama_sampler_init_infill(vocabulary.as_ptr()) })
    }

    fn add_mirostat(&mut self, sampling: &Sampling, seed: u32) -> Result<(), LlamaError> {
        // SAFETY: plain numbers in, an owned sampler out.
        self.add(unsafe { sys::llama_sampler_init_temp(sampling.temperature) })?;
        let (tau, eta) = (sampling.mirostat_tau, sampling.mirostat_eta);
        if sampling.mirostat == Mirostat::One {
            let tokens = i32::try_from(self.vocabulary.len()).unwrap_or(i32::MAX);
            // SAFETY: as above.
            return self.add(unsafe {
                sys::llama_sampler_init_mirostat(tokens, seed, tau, eta, MIROSTAT_CANDIDATES)
            });
        }
        // SAFETY: as above.
        self.add(unsafe { sys::llama_sampler_init_mirostat_v2(seed, tau, eta) })
    }

    /// The sampler that takes one token: adaptive-p where it is asked for, wherever it stands.
    fn add_draw(&mut self, sampling: &Sampling, seed: u32) -> Result<(), LlamaError> {
        match sampling.adaptive_target.filter(|_| sampling.uses(SamplerKind::AdaptiveP)) {
            Some(target) => {
                self.remembers = true;
                let decay = sampling.adaptive_decay;
                // SAFETY: plain numbers in, an owned sampler out.
                self.add(unsafe { sys::llama_sampler_init_adaptive_p(target, decay, seed) })
            }
            // SAFETY: as above.
            None => self.add(unsafe { sys::llama_sampler_init_dist(seed) }),
        }
    }

    fn add(&mut self, sampler: *mut sys::llama_sampler) -> Result<(), LlamaError> {
        let sampler = NonNull::new(sampler).ok_or(LlamaError::Sampler)?;
        // SAFETY: both are alive; the chain owns the sampler from here on.
        unsafe { sys::llama_sampler_chain_add(self.pointer.as_ptr(), sampler.as_ptr()) };
        Ok(())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: nobody else owns the chain; it frees its samplers.
        unsafe { sys::llama_sampler_free(self.pointer.as_ptr()) };
    }
}

/// How far back a sampler looks; llama.cpp reserves memory for all of it.
fn window(asked: Option<u32>, context_tokens: usize) -> i32 {
    let tokens = asked.map_or(context_tokens, |asked| (asked as usize).min(context_tokens));
    i32::try_from(tokens).unwrap_or(i32::MAX)
}
