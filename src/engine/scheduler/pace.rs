//! How much of the waiting prompts one step may read: all that fits, as long as nobody waits for it.

/// How long a step may take while replies are being made, in milliseconds: a token that comes later
/// is felt as a pause.
const FLOWING_MS: f64 = 150.0;

/// How long a step may take when a request may come in meanwhile, in milliseconds.
const SHARED_MS: f64 = 500.0;

/// Tokens of a prompt that a step reads in any case: fewer are hardly cheaper.
const CHUNK_TOKENS_MIN: usize = 32;

/// The weight of the newest measurement.
const NEWEST: f64 = 0.3;

/// What reading a prompt costs here, learned while it runs.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Milliseconds a token; None before the first measurement.
    token_ms: Option<f64>,
}

impl Pace {
    /// Tells of a step that read `tokens` tokens of prompts.
    pub(super) fn observe(&mut self, tokens: usize, ms: f64) {
        if tokens < CHUNK_TOKENS_MIN {
            // Mostly the cost of the weights, not of the tokens.
            return;
        }
        let token_ms = ms / tokens as f64;
        self.token_ms = Some(match self.token_ms {
            Some(known) => known + NEWEST * (token_ms - known),
            None => token_ms,
        });
    }

    /// Tokens of prompts for the next step, `most` at the most.
    pub(super) fn chunk(&self, most: usize, slots: usize, replies: usize) -> usize {
        let limit_ms = match (slots, replies) {
            (1, _) => return most,
            (_, 0) => SHARED_MS,
            _ => FLOWING_MS,
        };
        let tokens = match self.token_ms {
            Some(token_ms) if token_ms > 0.0 => (limit_ms / token_ms) as usize,
            Some(_) => most,
            // Careful before the first measurement.
            None => CHUNK_TOKENS_MIN * 4,
        };
        tokens.clamp(CHUNK_TOKENS_MIN, most.max(CHUNK_TOKENS_MIN)).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_conversation_is_read_at_full_width() {
        let mut pace = Pace::default();
        pace.observe(512, 60_000.0);
        assert_eq!(pace.chunk(512, 1, 0), 512);
    }

    #[test]
    fn replies_go_on_while_a_prompt_is_read() {
        let mut pace = Pace::default();
        assert_eq!(pace.chunk(512, 4, 1), 128);
        pace.observe(100, 200.0);
        assert_eq!(pace.chunk(512, 4, 1), 75);
        assert_eq!(pace.chunk(512, 4, 0), 250);
        for _ in 0..50 {
            pace.observe(100, 100_000.0);
        }
        assert_eq!(pace.chunk(512, 4, 3), CHUNK_TOKENS_MIN);
        assert_eq!(pace.chunk(8, 4, 3), 8);
        for _ in 0..100 {
            pace.observe(100, 0.1);
        }
        assert_eq!(pace.chunk(512, 4, 3), 512);
    }
}
