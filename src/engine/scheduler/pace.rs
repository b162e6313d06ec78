//! How much of the waiting prompts one step may read: all that fits, as long as nobody waits for it.

/// How long a step may take while replies are being made, in milliseconds: a token that comes later
/// is felt as a pause.
const FLOWING_MS: f64 = 250.0;

/// How long a step may take when a request may come in meanwhile, in milliseconds.
const SHARED_MS: f64 = 500.0;

/// The longest step while replies are being made, in milliseconds, whoever waits.
const PAUSE_MS_MAX: f64 = 3000.0;

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

    /// Tokens of prompts for the next step, `most` at the most, where so many replies are being made and so many
    /// prompts wait. The pause of those who read is weighed against the waiting of those who see nothing yet; and
    /// prompts that are read together make replies that go on together, at a lower price for each.
    pub(super) fn chunk(&self, most: usize, slots: usize, replies: usize, waiting: usize) -> usize {
        if slots == 1 {
            return most;
        }
        let least_ms = if replies == 0 { SHARED_MS } else { FLOWING_MS };
        // Squared: one who comes alone lets the others flow, and many who come together are read together.
        let weight = (waiting as f64 / replies.max(1) as f64).powi(2);
        let limit_ms = (FLOWING_MS * weight).clamp(least_ms, PAUSE_MS_MAX);
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
        assert_eq!(pace.chunk(512, 1, 0, 1), 512);
    }

    #[test]
    fn replies_go_on_while_a_prompt_is_read() {
        let mut pace = Pace::default();
        assert_eq!(pace.chunk(512, 4, 1, 1), 128);
        pace.observe(100, 200.0);
        assert_eq!(pace.chunk(512, 4, 1, 1), 125);
        assert_eq!(pace.chunk(512, 4, 0, 1), 250);
        // Many who wait outweigh one who reads, up to a limit.
        assert_eq!(pace.chunk(512, 8, 1, 7), 512);
        assert_eq!(pace.chunk(512, 8, 3, 5), 347);
        assert_eq!(pace.chunk(512, 8, 4, 4), 125);
        assert_eq!(pace.chunk(5000, 64, 1, 63), 1500);
        for _ in 0..50 {
            pace.observe(100, 100_000.0);
        }
        assert_eq!(pace.chunk(512, 4, 3, 1), CHUNK_TOKENS_MIN);
        assert_eq!(pace.chunk(8, 4, 3, 1), 8);
        for _ in 0..100 {
            pace.observe(100, 0.1);
        }
        assert_eq!(pace.chunk(512, 4, 3, 1), 512);
    }
}
