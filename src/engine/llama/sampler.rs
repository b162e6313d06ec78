//! The choice of the next token from one row of logits: biases, penalties and argmax here, the
//! random chain in llama.cpp, constraints by our own grammars.
//!
//! Taking the likeliest token needs no chain at all. Under a constraint the token is chosen freely
//! first; only when the grammar refuses it are all tokens tested and the choice made again among
//! those that may follow, which is rare with a model that was told what to write.

use std::sync::Arc;

use super::chain::{Candidate, Chain};
use super::constraint::Constrained;
use super::logprobs::{Logprobs, RawRow};
use super::penalties::Penalties;
use super::{LlamaError, Token, Vocabulary};
use crate::engine::grammar::TokenMask;
use crate::engine::options::{Mirostat, SamplerKind, Sampling};

/// Chooses tokens as [`Sampling`] says.
#[derive(Debug)]
pub struct Sampler {
    vocabulary: Vocabulary,
    /// Added to logits, the vocabulary's own suppressed tokens among them.
    biases: Vec<(usize, f32)>,
    penalties: Option<Penalties>,
    /// None takes the likeliest token.
    chain: Option<Chain>,
    constrained: Option<Constrained>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler whose random numbers start at `seed`. `context_tokens` is the window of samplers
    /// that look back and name none.
    pub fn new(
        sampling: &Sampling,
        seed: u32,
        vocabulary: &Vocabulary,
        context_tokens: usize,
    ) -> Result<Self, LlamaError> {
        let mut biases: Vec<(usize, f32)> = Vec::new();
        for &(token, bias) in &sampling.logit_bias {
            vocabulary.check(token)?;
            biases.push((token as usize, bias));
        }
        let suppressed = vocabulary.suppressed().into_iter();
        biases.extend(suppressed.map(|token| (token as usize, f32::NEG_INFINITY)));
        let own_penalties = sampling.samplers.first() == Some(&SamplerKind::Penalties)
            || sampling.mirostat != Mirostat::Off;
        let penalties = (sampling.has_penalties() && own_penalties)
            .then(|| Penalties::new(sampling, context_tokens));
        let chain = if sampling.is_greedy() {
            None
        } else {
            Some(Chain::new(sampling, seed, vocabulary, (context_tokens, own_penalties))?)
        };
        let constrained = match &sampling.constraint {
            Some(constraint) => Some(Constrained::new(constraint, &sampling.triggers, vocabulary)?),
            None => None,
        };
        let vocabulary = vocabulary.clone();
        Ok(Self { vocabulary, biases, penalties, chain, constrained, candidates: Vec::new() })
    }

    /// Tells of tokens that were not sampled here: the prompt. Constraints hold for the reply only.
    pub fn accept(&mut self, tokens: &[Token]) {
        for &token in tokens {
            self.remember(token);
        }
    }

    /// Chooses the next token from its row of logits, which is changed meanwhile, and accepts it.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<Token, LlamaError> {
        check_finite(logits)?;
        self.choose(logits)
    }

    /// As [`Sampler::sample`], with the probabilities that the model itself gave to the token and to
    /// the `top` likeliest ones.
    pub fn sample_with_logprobs(
        &mut self,
        logits: &mut [f32],
        top: usize,
    ) -> Result<(Token, Logprobs), LlamaError> {
        check_finite(logits)?;
        let row = RawRow::of(logits, top);
        let changed = self.penalties.is_some() || !self.biases.is_empty();
        let raw: Option<Vec<f32>> = changed.then(|| logits.to_vec());
        let token = self.choose(logits)?;
        let logit = raw.as_deref().unwrap_or(logits)[token as usize];
        Ok((token, row.logprobs(logit)))
    }

    /// Whether the constraint leaves nothing to add: the reply is complete, and the only token that
    /// could follow is one that ends it.
    pub fn is_complete(&self) -> bool {
        self.constrained.as_ref().is_some_and(Constrained::is_complete)
    }

    /// Whether the reply may end here: always, unless a constraint wants more.
    pub fn may_end(&self) -> bool {
        self.constrained.as_ref().is_none_or(Constrained::may_end)
    }

    fn choose(&mut self, logits: &mut [f32]) -> Result<Token, LlamaError> {
        if logits.len() != self.vocabulary.len() {
            return Err(LlamaError::NoLogits(-1));
        }
        for &(token, bias) in &self.biases {
            logits[token] += bias;
        }
        if let Some(penalties) = &self.penalties {
            penalties.apply(logits);
        }
        let mut token = self.free_choice(logits)?;
        if let Some(constrained) = &mut self.constrained
            && !constrained.allows(token)?
        {
            let mask = constrained.mask()?;
            token = self.masked_choice(logits, &mask)?;
        }
        self.remember(token);
        if let Some(constrained) = &mut self.constrained {
            constrained.accept(token)?;
        }
        Ok(token)
    }

    /// A token regardless of the constraint.
    fn free_choice(&mut self, logits: &[f32]) -> Result<Token, LlamaError> {
        let Some(chain) = &mut self.chain else {
            let token = argmax(logits);
            if logits[token] == f32::NEG_INFINITY {
                return Err(LlamaError::NothingToChoose);
            }
            return Ok(token as Token);
        };
        self.candidates.clear();
        self.candidates.extend(logits.iter().enumerate().map(candidate));
        // A row of nothing but forbidden tokens is rare, so it is sought only where it can come from.
        if !self.biases.is_empty() && logits[argmax(logits)] == f32::NEG_INFINITY {
            return Err(LlamaError::NothingToChoose);
        }
        chain.draw(&mut self.candidates)
    }

    /// A token among those that the constraint allows.
    fn masked_choice(
        &mut self,
        logits: &[f32],
        mask: &Arc<TokenMask>,
    ) -> Result<Token, LlamaError> {
        self.candidates.clear();
        let allowed = logits
            .iter()
            .enumerate()
            .filter(|(token, logit)| mask.allows(*token) && **logit > f32::NEG_INFINITY);
        self.candidates.extend(allowed.map(candidate));
        let likeliest = self.candidates.iter().fold(None, |best: Option<Candidate>, next| {
            if best.is_some_and(|best| best.logit >= next.logit) { best } else { Some(*next) }
        });
        let Some(likeliest) = likeliest else { return Err(LlamaError::NothingFollows) };
        match &mut self.chain {
            Some(chain) => chain.draw(&mut self.candidates),
            None => Ok(likeliest.id),
        }
    }

    fn remember(&mut self, token: Token) {
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token);
        }
        if let Some(chain) = &mut self.chain
            && chain.remembers()
        {
            chain.accept(token);
        }
    }
}

fn candidate((token, &logit): (usize, &f32)) -> Candidate {
    Candidate { id: token as Token, logit, p: 0.0 }
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
}
