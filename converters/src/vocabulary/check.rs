//! Running the tokenizer itself, under guard: to recognise it by the ids of a check text, and to bring added tokens
//! into the form in which the tokenizer hands them out.
//!
//! A tokenizer brings regular expressions and replacement rules of its own. Before they run, each expression is tried
//! with a limit on its steps back, the growth of the text is bounded, and the run itself has a deadline.

use std::fmt::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use onig::{MatchParam, Regex, Region, SearchOptions};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::{
    AddedToken as LibraryToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
};

use super::byte_pairs::BytePairs;
use super::json::AddedToken;
use super::limits::{CHECK_MS_MAX, GROWTH_MAX, REGEX_BYTES_MAX, REGEX_RETRIES_MAX, STEPS_MAX};

/// The text by whose token ids llama.cpp's converter tells pre-tokenizers apart.
pub(super) const CHECK_TEXT: &str = concat!(
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u{200d}🌫️ (multiple emojis concatenated) ✅ ",
    "🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ",
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, ",
    "'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL",
);

/// Everything that makes a tokenizer.
pub(super) struct Parts<'a> {
    pub(super) model: &'a BytePairs,
    pub(super) added: &'a [AddedToken],
    pub(super) normalizer: &'a Value,
    pub(super) pre_tokenizer: &'a Value,
    pub(super) post_processor: &'a Value,
    pub(super) decoder: &'a Value,
}

/// What running the tokenizer tells.
pub(super) struct Checked {
    /// SHA-256 of the check text's ids, written as Python writes a list.
    pub(super) hash: String,
    /// Added tokens whose text comes back otherwise than it went in, by id.
    pub(super) returned: Vec<(u64, String)>,
}

/// Runs the tokenizer over the check text and over its own added tokens.
///
/// It is put together and run in a thread of its own, since a library that meets damaged parts may panic, and one
/// that runs away cannot be stopped, only left behind: its expressions give up by themselves in the end.
///
/// # Errors
/// Why it cannot be run, in words.
pub(super) fn run(parts: &Parts<'_>) -> Result<Checked, String> {
    guard(&[parts.normalizer, parts.pre_tokenizer, parts.decoder])?;
    guard_templates(parts.post_processor)?;
    // Tokens that are matched after normalising need no coming back: they are stored normalised already.
    let tokens: Vec<(u64, String)> = parts
        .added
        .iter()
        .filter(|token| !token.normalized)
        .map(|token| (token.id, token.content.clone()))
        .collect();
    let ingredients = Ingredients::new(parts);
    let (composed, ready) = mpsc::channel();
    let (sender, receiver) = mpsc::channel();
    // Where the receivers have gone, nobody waits for an answer.
    let work = move || match ingredients.compose() {
        Ok(tokenizer) => {
            let _ = composed.send(Ok(()));
            let _ = sender.send(run_unguarded(&tokenizer, tokens));
        }
        Err(reason) => {
            let _ = composed.send(Err(reason));
        }
    };
    thread::Builder::new()
        .name("tokenizer check".to_owned())
        .spawn(work)
        .map_err(|error| error.to_string())?;
    // Putting together takes as long as the vocabulary is large, which its limits bound; the run is short.
    ready.recv().map_err(|_| "its parts do not fit together".to_owned())??;
    match receiver.recv_timeout(Duration::from_millis(CHECK_MS_MAX)) {
        Ok(checked) => checked,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("more than {CHECK_MS_MAX} ms")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the tokenizer gave up".to_owned()),
    }
}

fn run_unguarded(tokenizer: &Tokenizer, tokens: Vec<(u64, String)>) -> Result<Checked, String> {
    let encode = |text: &str, special| {
        let encoding = tokenizer.encode(text, special).map_err(|error| error.to_string())?;
        Ok::<_, String>(encoding.get_ids().to_vec())
    };
    let ids = format!("{:?}", encode(CHECK_TEXT, true)?);
    let mut hash = String::new();
    for byte in Sha256::digest(ids) {
        // Writing into a string cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    let mut returned = Vec::new();
    for (id, token) in tokens {
        let ids = encode(&token, false)?;
        let text = tokenizer.decode(&ids, false).map_err(|error| error.to_string())?;
        if text != token {
            returned.push((id, text));
        }
    }
    Ok(Checked { hash, returned })
}

/// What the thread needs to put the tokenizer together.
struct Ingredients {
    model: BpeBuilder,
    added: Vec<LibraryToken>,
    /// Normalizer, pre-tokenizer, post-processor, decoder.
    parts: [Value; 4],
}

impl Ingredients {
    fn new(parts: &Parts<'_>) -> Self {
        let mut model = BPE::builder()
            .ignore_merges(parts.model.ignore_merges)
            .byte_fallback(parts.model.byte_fallback)
            .fuse_unk(parts.model.fuse_unknown);
        if let Some(unknown) = &parts.model.unknown {
            model = model.unk_token(unknown.clone());
        }
        let vocabulary: Vocab = parts.model.vocabulary.iter().cloned().collect();
        let added = parts.added.iter().map(|token| {
            LibraryToken::from(token.content.clone(), token.special)
                .single_word(token.single_word)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .normalized(token.normalized)
        });
        let values = [parts.normalizer, parts.pre_tokenizer, parts.post_processor, parts.decoder];
        Self {
            model: model.vocab_and_merges(vocabulary, parts.model.merges.clone()),
            added: added.collect(),
            parts: values.map(Value::clone),
        }
    }

    /// Puts the tokenizer together.
    fn compose(self) -> Result<Tokenizer, String> {
        let words = |error: tokenizers::Error| error.to_string();
        let [normalizer, pre_tokenizer, post_processor, decoder] = self.parts;
        let mut tokenizer = Tokenizer::new(self.model.build().map_err(words)?);
        tokenizer
            .with_normalizer(part::<NormalizerWrapper>(normalizer)?)
            .map_err(words)?
            .with_pre_tokenizer(part::<PreTokenizerWrapper>(pre_tokenizer)?)
            .with_post_processor(part::<PostProcessorWrapper>(post_processor)?)
            .with_decoder(part::<DecoderWrapper>(decoder)?);
        tokenizer.add_tokens(self.added).map_err(words)?;
        Ok(tokenizer)
    }
}

fn part<T: DeserializeOwned>(value: Value) -> Result<Option<T>, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Refuses parts that would run away: slow expressions, too many steps, texts that grow without end.
fn guard(parts: &[&Value]) -> Result<(), String> {
    let mut steps = 0;
    let mut growth = 1.0;
    let mut expressions = Vec::new();
    let mut open = parts.to_vec();
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(object) => {
                if let Some(kind) = object.get("type").and_then(Value::as_str) {
                    steps += 1;
                    growth *= growth_of(kind, value);
                }
                expressions.extend(object.get("Regex").and_then(Value::as_str));
                open.extend(object.values());
            }
            _ => {}
        }
    }
    if steps > STEPS_MAX {
        return Err(format!("{steps} steps, the limit is {STEPS_MAX}"));
    }
    if growth > GROWTH_MAX {
        return Err(format!(
            "a text may grow {growth:.0} times as long, the limit is {GROWTH_MAX}"
        ));
    }
    let deadline = Instant::now() + Duration::from_millis(CHECK_MS_MAX / 4);
    expressions.into_iter().try_for_each(|expression| try_expression(expression, deadline))
}

/// Refuses several templates in a row: the library cannot apply one to another's result.
fn guard_templates(post_processor: &Value) -> Result<(), String> {
    let processors = post_processor.get("processors").and_then(Value::as_array);
    let templates = processors.into_iter().flatten().filter(|processor| {
        processor
            .get("type")
            .and_then(Value::as_str)
            .is_some_and(|kind| kind.ends_with("Processing"))
    });
    if templates.count() > 1 {
        return Err("more than one template of special tokens".to_owned());
    }
    Ok(())
}

/// How many times as long one step may make a text, at most.
fn growth_of(kind: &str, step: &Value) -> f64 {
    let length = |pointer| step.pointer(pointer).and_then(Value::as_str).map(str::len);
    match kind {
        "ByteLevel" => 2.0,
        "NFD" | "NFKD" | "NFKC" | "NFC" | "Nmt" | "Precompiled" | "BertNormalizer" => 4.0,
        "Prepend" => 1.0 + length("/prepend").unwrap_or(0) as f64,
        "Replace" => {
            let content = length("/content").unwrap_or(0) as f64;
            match length("/pattern/String") {
                Some(pattern) if pattern > 0 => (content / pattern as f64).max(1.0),
                // An expression may match between any two characters.
                _ => content + 1.0,
            }
        }
        _ => 1.0,
    }
}

/// Finds all matches in the check text, with a limit on the steps back.
fn try_expression(expression: &str, deadline: Instant) -> Result<(), String> {
    if expression.len() > REGEX_BYTES_MAX {
        return Err(format!(
            "a regular expression of {} bytes, the limit is {REGEX_BYTES_MAX}",
            expression.len()
        ));
    }
    let regex = Regex::new(expression).map_err(|error| format!("regular expression: {error}"))?;
    let mut place = 0;
    while place < CHECK_TEXT.len() {
        if Instant::now() > deadline {
            return Err("a regular expression without end".to_owned());
        }
        let mut region = Region::new();
        let mut limits = MatchParam::default();
        limits.set_retry_limit_in_match(REGEX_RETRIES_MAX);
        let found = regex
            .search_with_param(
                CHECK_TEXT,
                place,
                CHECK_TEXT.len(),
                SearchOptions::SEARCH_OPTION_NONE,
                Some(&mut region),
                limits,
            )
            .map_err(|error| format!("regular expression: {error}"))?;
        let end = match found {
            Some(_) => region.pos(0).map_or(place, |(_, end)| end),
            None => break,
        };
        // A match of nothing steps over one character.
        let step = CHECK_TEXT[place..].chars().next().map_or(1, char::len_utf8);
        place = end.max(place + step);
        while !CHECK_TEXT.is_char_boundary(place) {
            place += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(expression: &str) -> Value {
        json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
    }

    #[test]
    fn runaway_parts_are_refused_at_once() {
        let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let long = format!("({})", "a|".repeat(REGEX_BYTES_MAX));
        let cases = [
            (split("(.|.|.)*[^\\s\\S]"), "retry"),
            (split("(\\S+\\S+)+[^\\s\\S]"), "retry"),
            (split("(a"), "regular expression"),
            (split(&long), "the limit is 16384"),
            (json!({"type": "Sequence", "normalizers": vec![doubling; 30]}), "times as long"),
            (
                json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "Digits"}); 40]}),
                "steps",
            ),
        ];
        for (part, reason) in cases {
            let start = Instant::now();
            let error = guard(&[&part]).unwrap_err();
            assert!(error.contains(reason), "{error} should contain {reason}");
            assert!(start.elapsed() < Duration::from_secs(1), "{reason}: {:?}", start.elapsed());
        }
    }

    #[test]
    fn expressions_that_match_nothing_or_everything_end() {
        for expression in ["", "x*", "\\z", "(?m:.*)", "(?=.)", "\\p{Cyrillic}+|\\s+"] {
            guard(&[&split(expression)]).unwrap();
        }
    }
}
