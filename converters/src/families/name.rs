//! What a model's name says: `Mistral-7B-Instruct-v0.3` → base name, size, finetune, version.
//!
//! The same reading as upstream's converter (`get_model_id_components`, `id_to_title`), so that
//! `general.name`, `general.basename` and their kin come out alike. Only provenance depends on it,
//! never the model's function.

/// The parts of a model's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NameParts {
    /// The name without its owner.
    pub(super) name: Option<String>,
    /// The owner, before the slash.
    pub(super) organization: Option<String>,
    /// The model's line: `Mistral`.
    pub(super) basename: Option<String>,
    /// What it was tuned for: `Instruct`.
    pub(super) finetune: Option<String>,
    /// `v0.3`
    pub(super) version: Option<String>,
    /// `7B`
    pub(super) size_label: Option<String>,
}

/// A word of the name, and what it may be.
#[expect(clippy::struct_excessive_bools, reason = "a word may be several of these at once")]
struct Word {
    text: String,
    basename: bool,
    size: bool,
    finetune: bool,
    version: bool,
    /// A type such as `Q4_0` or `FP16`, which belongs to no part.
    tensor_type: bool,
}

impl Word {
    fn is_unclear(&self) -> bool {
        self.kinds() == 0
    }

    fn kinds(&self) -> usize {
        let kinds = [self.basename, self.size, self.finetune, self.version, self.tensor_type];
        kinds.into_iter().filter(|kind| *kind).count()
    }
}

impl NameParts {
    /// Reads a name such as `mistralai/Mistral-7B-Instruct-v0.3`; `parameters` decides whether a
    /// number is a size.
    pub(super) fn of(id: &str, parameters: u64) -> Self {
        if id.contains(' ') {
            return Self { name: Some(id.to_owned()), ..Self::default() };
        }
        let (organization, name) = match id.split_once('/') {
            Some((owner, name)) => (Some(owner).filter(|owner| !owner.starts_with('.')), name),
            None => (None, id),
        };
        let mut words: Vec<Word> = name
            .split('-')
            .filter(|word| !word.is_empty())
            .enumerate()
            .map(|(index, word)| classify(index, word, parameters))
            .collect();
        prefer_numbers(&mut words);
        mark_basename(&mut words);
        let join = |keep: fn(&Word) -> bool| {
            let kept: Vec<&str> =
                words.iter().filter(|word| keep(word)).map(|word| word.text.as_str()).collect();
            Some(kept.join("-")).filter(|text| !text.is_empty())
        };
        let mut sizes: Vec<&str> = Vec::new();
        for word in words.iter().filter(|word| word.size) {
            if !sizes.contains(&word.text.as_str()) {
                sizes.push(&word.text);
            }
        }
        let size_label = Some(sizes.join("-")).filter(|text| !text.is_empty());
        let finetune = join(|word| word.finetune);
        let version = join(|word| word.version && !word.basename);
        let told = size_label.is_some() || finetune.is_some() || version.is_some();
        Self {
            name: Some(name.to_owned()),
            organization: organization.map(str::to_owned),
            basename: join(|word| word.basename).filter(|_| told),
            finetune,
            version,
            size_label,
        }
    }
}

/// `stories260K-hf-llama` → `stories260K Hf Llama`.
pub(super) fn title(id: &str) -> String {
    let spaced = id.trim().replace('-', " ");
    let words: Vec<String> = spaced
        .split_whitespace()
        .map(|word| if is_lower(word) && !is_numbered(word) { capitals(word) } else { word.into() })
        .collect();
    words.join(" ")
}

fn is_lower(word: &str) -> bool {
    word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase)
}

/// `v1.2` and whatever begins with a digit keep their spelling.
fn is_numbered(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_digit())
        || word.strip_prefix('v').is_some_and(is_dotted_number)
}

/// Each letter that does not follow a letter becomes a capital.
fn capitals(word: &str) -> String {
    let mut after_letter = false;
    let mut target = String::new();
    for letter in word.chars() {
        if after_letter {
            target.push(letter);
        } else {
            target.extend(letter.to_uppercase());
        }
        after_letter = letter.is_alphabetic();
    }
    target
}

fn classify(index: usize, text: &str, parameters: u64) -> Word {
    let mut word = Word {
        text: text.to_owned(),
        basename: false,
        size: false,
        finetune: false,
        version: false,
        tensor_type: false,
    };
    let lower = text.to_lowercase();
    if is_version(&lower) {
        word.version = true;
    } else if is_tensor_type(&lower) {
        word.tensor_type = true;
        word.text = text.to_uppercase();
    } else if index > 0 && is_size(&lower) {
        let (spelled, is_context) = spell_size(text, parameters);
        word.text = spelled;
        word.finetune = is_context;
        word.size = !is_context;
    } else if index > 0 && ["chat", "instruct", "vision", "lora"].contains(&lower.as_str()) {
        word.finetune = true;
    }
    word
}

/// `3`, `1.1`, `v0.3`, `iter5`
fn is_version(lower: &str) -> bool {
    let rest = lower.strip_prefix('v').or_else(|| lower.strip_prefix("iter")).unwrap_or(lower);
    is_dotted_number(rest)
}

fn is_dotted_number(text: &str) -> bool {
    text.split('.').all(is_digits)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `q4_k_m`, `iq4`, `f16`, `bf16`, `fp32`
fn is_tensor_type(lower: &str) -> bool {
    let float = lower.strip_prefix('b').unwrap_or(lower);
    let float = float.strip_prefix('f').map(|rest| rest.strip_prefix('p').unwrap_or(rest));
    if float.is_some_and(|bits| bits == "16" || bits == "32") {
        return true;
    }
    let block = lower.strip_prefix('i').unwrap_or(lower).strip_prefix('q');
    block.is_some_and(|rest| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|digit| digit.len() == 1 && is_digits(digit))
            && parts.all(|part| part.chars().count() == 1)
    })
}

/// `7b`, `8x7b`, `a3b`, `1.5b`, `1_5b`, `7b1`, `260k`, `small`, `xxl`
fn is_size(lower: &str) -> bool {
    if ["small", "mini", "medium", "large", "xl", "xxl"].contains(&lower) {
        return true;
    }
    let rest = lower.strip_prefix('a').unwrap_or_else(|| match lower.split_once('x') {
        Some((count, rest)) if is_digits(count) => rest,
        _ => lower,
    });
    let rest = match rest.as_bytes() {
        [.., unit, digit] if is_unit(*unit) && digit.is_ascii_digit() => &rest[..rest.len() - 1],
        _ => rest,
    };
    let Some(number) = rest.strip_suffix(|last: char| is_unit(last as u8) && last.is_ascii())
    else {
        return false;
    };
    match number.split_once(['.', '_']) {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
        None => is_digits(number),
    }
}

fn is_unit(byte: u8) -> bool {
    matches!(byte.to_ascii_lowercase(), b'k' | b'm' | b'b' | b't')
}

/// The usual spelling of a size, and whether the number is far from the model's size, hence
/// probably a context length.
fn spell_size(text: &str, parameters: u64) -> (String, bool) {
    let mut part = text.replace('_', ".");
    if part.ends_with(|last: char| last.is_ascii_digit()) {
        // 7b1 means 7.1b
        let digit = part.pop().unwrap_or('0');
        let unit = part.pop().unwrap_or('b');
        part = format!("{part}.{digit}{unit}");
    }
    let Some(unit) = part.pop() else { return (part, false) };
    let after_digit = part.ends_with(|last: char| last.is_ascii_digit());
    let unit = if after_digit { unit.to_ascii_uppercase() } else { unit };
    let scale = " KMBT".find(unit).unwrap_or(0) as i32;
    let is_context = parameters > 0
        && part.parse::<f64>().is_ok_and(|number| {
            let told = number * 1000_f64.powi(scale);
            (told - parameters as f64).abs() > (7 * parameters / 8) as f64
        });
    let unit = if is_context { unit.to_ascii_lowercase() } else { unit };
    (format!("{part}{unit}"), is_context)
}

/// A size in words counts only where there is none in numbers.
fn prefer_numbers(words: &mut [Word]) {
    let has_digit = |word: &Word| word.text.chars().any(|letter| letter.is_ascii_digit());
    if words.iter().any(|word| word.size && has_digit(word)) {
        for word in words.iter_mut().filter(|word| word.text.chars().all(char::is_alphabetic)) {
            word.size = false;
        }
    }
}

/// The base name is what comes first, up to the first word that is something else.
fn mark_basename(words: &mut [Word]) {
    let mut at_start = true;
    for word in words.iter_mut() {
        let starts_with_letter = word.text.starts_with(char::is_alphabetic);
        if at_start && ((word.is_unclear() && starts_with_letter) || word.version) {
            word.basename = true;
        } else {
            at_start = false;
            word.finetune |= word.is_unclear();
        }
    }
    for word in words.iter_mut().rev() {
        if !(word.basename && word.kinds() > 1) {
            break;
        }
        word.basename = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, parameters, and `base name | size | finetune | version` as upstream's own function
    /// returns them.
    const NAMES: [(&str, u64, &str); 14] = [
        ("Mistral-7B-Instruct-v0.3", 7_248_023_552, "Mistral|7B|Instruct|v0.3"),
        ("stories260K-hf-mixtral-4x-top2", 868_416, "stories260K-hf-mixtral||4x-top2|"),
        ("stories260K-hf-llama", 292_800, "|||"),
        ("Mixtral-8x7B-v0.1", 46_702_792_704, "Mixtral|8x7B||v0.1"),
        ("Llama-3.2-1B-Instruct", 1_235_814_400, "Llama-3.2|1B|Instruct|"),
        ("TinyLlama_1.1B_Chat", 1_100_048_384, "|||"),
        ("bloom-7b1", 7_069_016_064, "bloom|7.1B||"),
        ("Phi-3-mini-4k-instruct", 3_821_079_552, "Phi-3|mini|4k-instruct|"),
        ("SmolLM2-135M", 134_515_008, "SmolLM2|135M||"),
        ("Qwen2-0.5B-fp16", 494_032_768, "Qwen2|0.5B||"),
        ("gpt2-xl", 1_557_611_200, "gpt2|xl||"),
        ("Model-Small-7B", 7_000_000_000, "Model-Small|7B||"),
        ("vicuna-13b-16k", 13_000_000_000, "vicuna|13B|16k|"),
        ("x-q4_k_m-3-4", 10, "x|||3-4"),
    ];

    #[test]
    fn names_are_read_as_upstream_reads_them() {
        for (name, parameters, expected) in NAMES {
            let parts = NameParts::of(name, parameters);
            let shown = [&parts.basename, &parts.size_label, &parts.finetune, &parts.version]
                .map(|part| part.as_deref().unwrap_or_default());
            assert_eq!(shown.join("|"), expected, "{name}");
        }
    }

    #[test]
    fn titles() {
        assert_eq!(title("stories260K-hf-mixtral-4x-top2"), "stories260K Hf Mixtral 4x Top2");
        assert_eq!(title("llama-v1.2-o3x"), "Llama v1.2 O3X");
        assert_eq!(title("Mistral-7B"), "Mistral 7B");
    }

    #[test]
    fn the_owner_comes_before_the_slash() {
        let parts = NameParts::of("mistralai/Mistral-7B-v0.1", 0);
        assert_eq!(parts.organization.as_deref(), Some("mistralai"));
        assert_eq!(parts.name.as_deref(), Some("Mistral-7B-v0.1"));
        assert_eq!(NameParts::of("./x", 0).organization, None);
    }
}
