//! The choice of the next token: penalties and argmax here, the random chain in llama.cpp.
//!
//! Penalties touch only the tokens that occurred lately, so they are applied to the logits in
//! place; llama.cpp's own penalty sampler looks every token of the vocabulary up in a hash table
//! instead. Taking the likeliest token needs no chain at all.

use std::collections::VecDeque;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::{LlamaError, Token};
use crate::engine::options::Sampling;

/// Tokens that a truncating sampler keeps in any case.
const KEPT_MIN: usize = 1;

/// Chooses tokens as [`Sampling`] says.
#[derive(Debug)]
pub struct Sampler {
    penalties: Option<Penalties>,
    /// None takes the likeliest token.
    chain: Option<Chain>,
}

impl Sampler {
    /// A sampler whose random numbers start at `seed`. `context_tokens` is the window of penalties
    /// that name none.
    pub fn new(sampling: &Sampling, seed: u32, context_tokens: usize) -> Result<Self, LlamaError> {
        let penalties = sampling.has_penalties().then(|| Penalties {
            window: sampling.penalty_tokens.map_or(context_tokens, |tokens| tokens as usize),
            repeat: sampling.repeat_penalty,
            frequency: sampling.frequency_penalty,
            presence: sampling.presence_penalty,
            recent: VecDeque::new(),
        });
        let chain = if sampling.is_greedy() { None } else { Some(Chain::new(sampling, seed)?) };
        Ok(Self { penalties, chain })
    }

    /// Tells of tokens that were not sampled here: the prompt.
    pub fn accept(&mut self, tokens: &[Token]) {
        if let Some(penalties) = &mut self.penalties {
            for &token in tokens {
                penalties.accept(token);
            }
        }
    }

    /// The next token by a row of logits, which is changed.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<Token, LlamaError> {
        check_finite(logits)?;
        if let Some(penalties) = &self.penalties {
            penalties.apply(logits);
        }
        let token = match &mut self.chain {
            None => argmax(logits) as Token,
            Some(chain) => chain.choose(logits)?,
        };
        self.accept(&[token]);
        Ok(token)
    }
}

#[derive(Debug)]
struct Penalties {
    window: usize,
    repeat: f32,
    frequency: f32,
    presence: f32,
    recent: VecDeque<Token>,
}

impl Penalties {
    fn accept(&mut self, token: Token) {
        if self.recent.len() >= self.window {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
    }

    fn apply(&self, logits: &mut [f32]) {
        let mut seen: Vec<Token> = self.recent.iter().copied().collect();
        seen.sort_unstable();
        for run in seen.chunk_by(|left, right| left == right) {
            let place = usize::try_from(run[0]).ok().and_then(|token| logits.get_mut(token));
            let Some(logit) = place else { continue };
            // Dividing a negative logit would make the token likelier.
            if *logit <= 0.0 {
                *logit *= self.repeat;
            } else {
                *logit /= self.repeat;
            }
            *logit -= run.len() as f32 * self.frequency + self.presence;
        }
    }
}

#[derive(Debug)]
struct Chain(NonNull<sys::llama_sampler>);

// SAFETY: a chain is used through `&mut Sampler` only and ties nothing to a thread.
unsafe impl Send for Chain {}

impl Chain {
    /// Top-k, top-p, min-p, temperature, draw: the order of llama.cpp's own programs.
    fn new(sampling: &Sampling, seed: u32) -> Result<Self, LlamaError> {
        // SAFETY: takes nothing and returns a plain struct.
        let mut params = unsafe { sys::llama_sampler_chain_default_params() };
        params.no_perf = true;
        // SAFETY: the parameters are a plain struct.
        let pointer = unsafe { sys::llama_sampler_chain_init(params) };
        let chain = Self(NonNull::new(pointer).ok_or(LlamaError::Sampler)?);
        let top_k = i32::try_from(sampling.top_k).unwrap_or(i32::MAX);
        if top_k > 0 {
            // SAFETY: plain numbers in, an owned sampler out.
            chain.add(unsafe { sys::llama_sampler_init_top_k(top_k) })?;
        }
        if sampling.top_p < 1.0 {
            // SAFETY: as above.
            chain.add(unsafe { sys::llama_sampler_init_top_p(sampling.top_p, KEPT_MIN) })?;
        }
        if sampling.min_p > 0.0 {
            // SAFETY: as above.
            chain.add(unsafe { sys::llama_sampler_init_min_p(sampling.min_p, KEPT_MIN) })?;
        }
        // SAFETY: as above.
        chain.add(unsafe { sys::llama_sampler_init_temp(sampling.temperature) })?;
        // The largest number means "choose a seed" to llama.cpp.
        let seed = seed.min(u32::MAX - 1);
        // SAFETY: as above.
        chain.add(unsafe { sys::llama_sampler_init_dist(seed) })?;
        Ok(chain)
    }

    fn choose(&self, logits: &[f32]) -> Result<Token, LlamaError> {
        let mut candidates: Vec<sys::llama_token_data> = (0..)
            .zip(logits)
            .map(|(id, &logit)| sys::llama_token_data { id, logit, p: 0.0 })
            .collect();
        let mut array = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array describes the candidates, which outlive the call.
        unsafe { sys::llama_sampler_apply(self.0.as_ptr(), &raw mut array) };
        let selected = usize::try_from(array.selected).map_err(|_| LlamaError::Sampler)?;
        candidates.get(selected).map(|chosen| chosen.id).ok_or(LlamaError::Sampler)
    }

    fn add(&self, sampler: *mut sys::llama_sampler) -> Result<(), LlamaError> {
        let sampler = NonNull::new(sampler).ok_or(LlamaError::Sampler)?;
        // SAFETY: both are alive; the chain owns the sampler from here on.
        unsafe { sys::llama_sampler_chain_add(self.0.as_ptr(), sampler.as_ptr()) };
        Ok(())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: nobody else owns the chain; it frees its samplers.
        unsafe { sys::llama_sampler_free(self.0.as_ptr()) };
    }
}

/// Refuses NaN and infinity, from which argmax would choose in silence, and llama.cpp by sorting what has no order. Minus
/// infinity is no fault: some models forbid tokens with it.
pub fn check_finite(logits: &[f32]) -> Result<(), LlamaError> {
    let bad = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    // Without a way out of the loop it becomes vector code; the place is sought only when there is one.
    let found = logits.iter().fold(false, |found, logit| found | bad(logit));
    if !found {
        return Ok(());
    }
    Err(LlamaError::NotFinite(logits.iter().position(bad).unwrap_or(0)))
}

/// The index of the largest value, the first of equals; NaN never wins. In lanes, because a
/// vocabulary has 150,000 entries and a loop over one maximum cannot be vectorised.
pub fn argmax(values: &[f32]) -> usize {
    const LANES: usize = 16;
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (best, &value) in best.iter_mut().zip(chunk) {
            *best = if value > *best { value } else { *best };
        }
    }
    let largest =
        best.iter().chain(rest).copied().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    #[expect(clippy::float_cmp, reason = "the value searched for was copied from the slice")]
    let found = values.iter().position(|&value| value == largest);
    found.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_finds_the_first_of_the_largest_at_every_place() {
        for length in [1_usize, 7, 16, 17, 512, 1000] {
            for place in 0..length {
                let mut values = vec![-1.0_f32; length];
                values[place] = 3.0;
                if place + 1 < length {
                    values[length - 1] = 3.0;
                }
                assert_eq!(argmax(&values), place);
            }
        }
        assert_eq!(argmax(&[f32::NAN, 1.0, f32::NAN]), 1);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn logits_that_are_no_numbers_are_named() {
        let mut logits = vec![f32::NEG_INFINITY; 1000];
        assert_eq!(check_finite(&logits), Ok(()));
        for value in [f32::NAN, -f32::NAN, f32::INFINITY] {
            logits[777] = value;
            assert_eq!(check_finite(&logits), Err(LlamaError::NotFinite(777)));
        }
    }

    #[test]
    fn penalties_follow_the_published_rule() {
        let mut penalties = Penalties {
            window: 3,
            repeat: 2.0,
            frequency: 0.5,
            presence: 0.25,
            recent: VecDeque::new(),
        };
        for token in [3, 0, 1, 1] {
            penalties.accept(token);
        }
        let mut logits = [1.0, -2.0, 5.0, 7.0];
        penalties.apply(&mut logits);
        // Token 3 has left the window; 0 occurred once, 1 twice.
        for (logit, expected) in logits.iter().zip([1.0 / 2.0 - 0.75, -2.0 * 2.0 - 1.25, 5.0, 7.0])
        {
            assert!((logit - expected).abs() < 1e-6, "{logits:?}");
        }
    }
}
