//! Which of llama.cpp's pre-tokenizers cuts text as this tokenizer does.
//!
//! Two ways: the hash of the check text's ids finds the tokenizers that llama.cpp knows by name, and gives exactly the
//! name that its converter would. A vocabulary of one's own has another hash but mostly borrows its rules, so where
//! the hash is unknown the rules themselves are compared, letter by letter.

use serde_json::{Value, json};

use super::hashes::PRE_TOKENIZERS;

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_3_5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// One step of a pre-tokenizer, as far as llama.cpp can do it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Matches become words of their own, and so does what lies between.
    Split(String),
    /// GPT-2's expression, then bytes as characters.
    Gpt2,
    /// Bytes as characters.
    Bytes,
    /// Each digit (true) or each row of digits (false) by itself.
    Digits(bool),
    /// Rows of punctuation by themselves.
    Punctuation,
}

/// The name of the pre-tokenizer in llama.cpp; `None` when it has none like it.
pub(super) fn recognise(
    hash: &str,
    pre_tokenizer: &Value,
    normalizer: &Value,
    ignores_merges: bool,
) -> Option<&'static str> {
    // Llama 3's tokenizer without its begin-of-sequence rule gives the same ids as Smaug's and so the same hash; only
    // the latter merges whole words again.
    let named = by_hash(hash).filter(|name| *name != "smaug-bpe" || !ignores_merges);
    named.or_else(|| {
        // Other normalisations than the composition of characters would be lost: better to say so.
        let plain =
            normalizer.is_null() || normalizer.get("type").is_some_and(|kind| kind == "NFC");
        if plain { by_rules(&steps(pre_tokenizer)?, ignores_merges) } else { None }
    })
}

fn by_hash(hash: &str) -> Option<&'static str> {
    let place = PRE_TOKENIZERS.binary_search_by_key(&hash, |entry| entry.0).ok()?;
    Some(PRE_TOKENIZERS[place].1)
}

fn by_rules(steps: &[Step], ignores_merges: bool) -> Option<&'static str> {
    let splits: Option<Vec<&str>> =
        match steps {
            [Step::Gpt2] => return Some("gpt-2").filter(|_| !ignores_merges),
            [Step::Digits(true), Step::Gpt2] => return Some("smollm").filter(|_| !ignores_merges),
            [Step::Punctuation, Step::Gpt2, Step::Digits(false), Step::Split(digits)] => {
                return Some("falcon").filter(|_| digits == "[0-9][0-9][0-9]" && !ignores_merges);
            }
            [splits @ .., Step::Bytes] => splits
                .iter()
                .map(|step| {
                    if let Step::Split(expression) = step {
                        Some(expression.as_str())
                    } else {
                        None
                    }
                })
                .collect(),
            _ => None,
        };
    // In llama.cpp the name also decides whether whole words skip the merges.
    Some(match (&splits?[..], ignores_merges) {
        ([LLAMA_3], true) => "llama-bpe",
        ([LLAMA_3], false) => "smaug-bpe",
        ([QWEN_2], false) => "qwen2",
        ([QWEN_3_5], false) => "qwen35",
        ([GPT_4O], false) => "gpt-4o",
        ([TEKKEN], true) => "tekken",
        ([r"\p{N}{1,3}", "[一-龥\u{3040}-ゟ゠-ヿ]+", DEEPSEEK_3], false) => "deepseek-v3",
        _ => return None,
    })
}

/// The steps of a pre-tokenizer; `None` when one of them is of a kind that no known rule has.
fn steps(pre_tokenizer: &Value) -> Option<Vec<Step>> {
    let text = |name: &str| pre_tokenizer.get(name).and_then(Value::as_str);
    let flag = |name: &str| pre_tokenizer.get(name).and_then(Value::as_bool);
    let step = match text("type")? {
        "Sequence" => {
            let inner = pre_tokenizer.get("pretokenizers")?.as_array()?;
            let inner: Option<Vec<Vec<Step>>> = inner.iter().map(steps).collect();
            return Some(inner?.concat());
        }
        "Split" => {
            // For expressions that match all of a text, keeping only the matches is the same as isolating them.
            let isolates = matches!(
                (text("behavior")?, flag("invert").unwrap_or(false)),
                ("Isolated", false) | ("Removed", true)
            );
            let expression = pre_tokenizer.pointer("/pattern/Regex")?.as_str()?;
            Step::Split(expression.to_owned()).filter(isolates)?
        }
        "ByteLevel" if flag("add_prefix_space") == Some(true) => return None,
        "ByteLevel" if flag("use_regex").unwrap_or(true) => Step::Gpt2,
        "ByteLevel" => Step::Bytes,
        "Digits" => Step::Digits(flag("individual_digits").unwrap_or(false)),
        "Punctuation" => Step::Punctuation.filter(text("behavior") == Some("Contiguous"))?,
        _ => return None,
    };
    Some(vec![step])
}

impl Step {
    fn filter(self, keep: bool) -> Option<Self> {
        keep.then_some(self)
    }
}

/// What a tokenizer's class says where there is no `tokenizer.json`.
pub(super) struct Profile {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    /// Special tokens that the class assumes.
    pub(super) specials: &'static [&'static str],
}

/// The rules of a tokenizer's class, or else of a model's type.
pub(super) fn profile(class: &str) -> Option<Profile> {
    let specials: &[&str] = &["<|endoftext|>"];
    let class = class.strip_suffix("Fast").unwrap_or(class);
    match class {
        "GPT2Tokenizer" | "CodeGenTokenizer" | "gpt2" | "codegen" | "phi" | "phi-msft" => {
            let pre_tokenizer = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true, "trim_offsets": true});
            Some(Profile { normalizer: Value::Null, pre_tokenizer, specials })
        }
        "Qwen2Tokenizer" | "qwen2" | "qwen2_moe" | "qwen3" | "qwen3_moe" => {
            let split = json!({"type": "Split", "pattern": {"Regex": QWEN_2}, "behavior": "Isolated", "invert": false});
            let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false, "trim_offsets": false});
            let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [split, bytes]});
            Some(Profile { normalizer: json!({"type": "NFC"}), pre_tokenizer, specials })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(expression: &str) -> Value {
        json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
    }

    fn sequence(expressions: &[&str]) -> Value {
        let mut steps: Vec<Value> =
            expressions.iter().map(|expression| split(expression)).collect();
        steps.push(json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}));
        json!({"type": "Sequence", "pretokenizers": steps})
    }

    #[test]
    fn rules_name_the_pre_tokenizer_of_an_unknown_vocabulary() {
        let none = Value::Null;
        let name = |pre_tokenizer: &Value, ignores| recognise("?", pre_tokenizer, &none, ignores);
        assert_eq!(name(&sequence(&[LLAMA_3]), true), Some("llama-bpe"));
        assert_eq!(name(&sequence(&[LLAMA_3]), false), Some("smaug-bpe"));
        let smaug = PRE_TOKENIZERS.iter().find(|entry| entry.1 == "smaug-bpe").unwrap().0;
        let by_hash = |ignores| recognise(smaug, &sequence(&[LLAMA_3]), &none, ignores);
        assert_eq!(by_hash(true), Some("llama-bpe"));
        assert_eq!(by_hash(false), Some("smaug-bpe"));
        assert_eq!(name(&sequence(&[QWEN_2]), false), Some("qwen2"));
        assert_eq!(name(&sequence(&[TEKKEN]), true), Some("tekken"));
        assert_eq!(name(&sequence(&["x+"]), true), None);
        assert_eq!(name(&sequence(&[]), false), None);
        let gpt_2 = profile("GPT2TokenizerFast").unwrap().pre_tokenizer;
        assert_eq!(name(&gpt_2, false), Some("gpt-2"));
        let qwen = profile("Qwen2Tokenizer").unwrap();
        assert_eq!(recognise("?", &qwen.pre_tokenizer, &qwen.normalizer, false), Some("qwen2"));
        let lowercase = json!({"type": "Lowercase"});
        assert_eq!(recognise("?", &gpt_2, &lowercase, false), None);
        assert!(profile("BloomTokenizer").is_none());
    }
}
