//! The named limits that everything in a tokenizer's files meets before it is believed: each a wide multiple of
//! what real checkpoints hold.

/// Bytes of `tokenizer.json`, `vocab.json` and `merges.txt`. The largest real ones (260 000 tokens) have 33 MB.
pub const VOCABULARY_JSON_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a SentencePiece `tokenizer.model`. The largest real ones have 5 MB.
pub const SENTENCEPIECE_BYTES_MAX: u64 = 32 << 20;

/// Bytes of the small files: `config.json`, `tokenizer_config.json` (it may carry every added token and the chat
/// templates, about 1 MB in real checkpoints), `special_tokens_map.json` and `generation_config.json`.
pub const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// Bytes of one chat template in a file of its own. Real ones stay below 100 kB.
pub const CHAT_TEMPLATE_BYTES_MAX: u64 = 4 << 20;

/// Files read from `additional_chat_templates/`.
pub const CHAT_TEMPLATES_MAX: usize = 64;

/// Tokens of a vocabulary. Real ones have up to 270 000.
pub const TOKENS_MAX: usize = 1 << 21;

/// Merges of a vocabulary. Real ones have up to 515 000.
pub const MERGES_MAX: usize = 1 << 22;

/// Tokens added beside the base vocabulary. Real checkpoints have up to 6 500.
pub const ADDED_TOKENS_MAX: usize = 1 << 17;

/// Bytes of all added tokens' texts together. Real checkpoints have up to 100 kB.
pub const ADDED_BYTES_MAX: usize = 4 << 20;

/// Bytes of one token's text. Real ones stay below 1 kB.
pub const TOKEN_BYTES_MAX: usize = 1 << 16;

/// Bytes of one part of `tokenizer.json` besides the model and the added tokens: normalizer, pre-tokenizer,
/// post-processor, decoder. Real ones stay below 10 kB, or 700 kB where a table of normalisations is inside.
pub const PART_BYTES_MAX: usize = 2 << 20;

/// Bytes of a regular expression of a pre-tokenizer. Real ones stay below 3 kB.
pub const REGEX_BYTES_MAX: usize = 16 << 10;

/// Steps of normalizer, pre-tokenizer and decoder together. Real ones have up to about 15.
pub const STEPS_MAX: usize = 32;

/// How much longer the steps may make a text, as a factor. Real ones at most double it a few times; thirty doubling
/// replacements in a row would fill the memory.
pub const GROWTH_MAX: f64 = 4096.0;

/// Steps back that a regular expression may take in one match of the check text. Known ones need fewer than a hundred.
pub const REGEX_RETRIES_MAX: u32 = 10_000;

/// How long the check text may take to be tokenized; a tenth of a second is usual, on a loaded machine too.
pub const CHECK_MS_MAX: u64 = 3_000;
