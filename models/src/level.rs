//! The table of levels: what a whole model is quantised to, as people name it (`Q4_K_M`).
//!
//! A level is a recipe over many tensors, a type is the storage of one. Numbers are those of `enum
//! llama_ftype` in llama.h, which `general.file_type` carries; typical bits per weight are those
//! that llama-quantize's own page lists for Llama 3.1 8B.

use std::fmt;
use std::str::FromStr;

use crate::hint::Hint;
use crate::tensor::TensorType;

/// A quantisation level.
#[expect(non_camel_case_types, reason = "the names of the field: Q4_K_M")]
#[expect(missing_docs, reason = "a variant's name is all there is to say; `advice` describes each")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q2_K_S,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
}

/// One row of the table.
struct Entry {
    level: Level,
    name: &'static str,
    file_type: u32,
    base_type: TensorType,
    bits_per_weight: f32,
    advice: &'static str,
}

/// The table, in the order of the enum (a test keeps it so).
const TABLE: [Entry; 20] = [
    Entry {
        level: Level::F32,
        name: "F32",
        file_type: 0,
        base_type: TensorType::F32,
        bits_per_weight: 32.0,
        advice: "every bit, four bytes a weight: the source for other levels, not for use",
    },
    Entry {
        level: Level::F16,
        name: "F16",
        file_type: 1,
        base_type: TensorType::F16,
        bits_per_weight: 16.0,
        advice: "half precision: as good as the original, twice the size of Q8_0",
    },
    Entry {
        level: Level::BF16,
        name: "BF16",
        file_type: 32,
        base_type: TensorType::BF16,
        bits_per_weight: 16.0,
        advice: "the bits most models were trained in; slower than F16 on processors without BF16",
    },
    Entry {
        level: Level::Q8_0,
        name: "Q8_0",
        file_type: 7,
        base_type: TensorType::Q8_0,
        bits_per_weight: 8.5,
        advice: "no loss that one would notice, at half the size of F16",
    },
    Entry {
        level: Level::Q4_0,
        name: "Q4_0",
        file_type: 2,
        base_type: TensorType::Q4_0,
        bits_per_weight: 4.64,
        advice: "fastest on many processors, and simple; Q4_K_M is better at about the same size",
    },
    Entry {
        level: Level::Q4_1,
        name: "Q4_1",
        file_type: 3,
        base_type: TensorType::Q4_1,
        bits_per_weight: 5.11,
        advice: "older; Q4_K_M is smaller and better",
    },
    Entry {
        level: Level::Q5_0,
        name: "Q5_0",
        file_type: 8,
        base_type: TensorType::Q5_0,
        bits_per_weight: 5.57,
        advice: "older; Q5_K_S is better at the same size",
    },
    Entry {
        level: Level::Q5_1,
        name: "Q5_1",
        file_type: 9,
        base_type: TensorType::Q5_1,
        bits_per_weight: 6.04,
        advice: "older; Q5_K_M is smaller and better",
    },
    Entry {
        level: Level::Q2_K,
        name: "Q2_K",
        file_type: 10,
        base_type: TensorType::Q2_K,
        bits_per_weight: 3.16,
        advice: "clearly worse answers; only when nothing larger fits",
    },
    Entry {
        level: Level::Q2_K_S,
        name: "Q2_K_S",
        file_type: 21,
        base_type: TensorType::Q2_K,
        bits_per_weight: 2.97,
        advice: "the smallest here, and the worst; wants an importance matrix",
    },
    Entry {
        level: Level::Q3_K_S,
        name: "Q3_K_S",
        file_type: 11,
        base_type: TensorType::Q3_K,
        bits_per_weight: 3.64,
        advice: "very small, with much loss",
    },
    Entry {
        level: Level::Q3_K_M,
        name: "Q3_K_M",
        file_type: 12,
        base_type: TensorType::Q3_K,
        bits_per_weight: 4.0,
        advice: "very small, with some loss: for a model that is slightly too large",
    },
    Entry {
        level: Level::Q3_K_L,
        name: "Q3_K_L",
        file_type: 13,
        base_type: TensorType::Q3_K,
        bits_per_weight: 4.3,
        advice: "small, with some loss; IQ4_XS is about as small and better",
    },
    Entry {
        level: Level::Q4_K_S,
        name: "Q4_K_S",
        file_type: 14,
        base_type: TensorType::Q4_K,
        bits_per_weight: 4.67,
        advice: "small, with little loss",
    },
    Entry {
        level: Level::Q4_K_M,
        name: "Q4_K_M",
        file_type: 15,
        base_type: TensorType::Q4_K,
        bits_per_weight: 4.89,
        advice: "the usual choice: small, with little loss",
    },
    Entry {
        level: Level::Q5_K_S,
        name: "Q5_K_S",
        file_type: 16,
        base_type: TensorType::Q5_K,
        bits_per_weight: 5.57,
        advice: "hardly any loss",
    },
    Entry {
        level: Level::Q5_K_M,
        name: "Q5_K_M",
        file_type: 17,
        base_type: TensorType::Q5_K,
        bits_per_weight: 5.7,
        advice: "hardly any loss: the choice when memory allows",
    },
    Entry {
        level: Level::Q6_K,
        name: "Q6_K",
        file_type: 18,
        base_type: TensorType::Q6_K,
        bits_per_weight: 6.56,
        advice: "loss at the edge of what can be measured",
    },
    Entry {
        level: Level::IQ4_NL,
        name: "IQ4_NL",
        file_type: 25,
        base_type: TensorType::IQ4_NL,
        bits_per_weight: 4.68,
        advice: "like Q4_0 with better placed steps; for rows that 256 does not divide",
    },
    Entry {
        level: Level::IQ4_XS,
        name: "IQ4_XS",
        file_type: 30,
        base_type: TensorType::IQ4_XS,
        bits_per_weight: 4.46,
        advice: "a little smaller than Q4_K_S at nearly its quality",
    },
];

/// Names that stand for another level, as in llama-quantize.
const ALIASES: [(&str, Level); 3] =
    [("Q3_K", Level::Q3_K_M), ("Q4_K", Level::Q4_K_M), ("Q5_K", Level::Q5_K_M)];

impl Level {
    /// Every level, in the order of the table.
    pub const ALL: &'static [Self] = &{
        let mut all = [Self::F32; TABLE.len()];
        let mut index = 0;
        while index < TABLE.len() {
            all[index] = TABLE[index].level;
            index += 1;
        }
        all
    };

    const fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// The name in its usual capitals: `Q4_K_M`.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// The number that `general.file_type` carries (`LLAMA_FTYPE_*`).
    pub const fn file_type(self) -> u32 {
        self.entry().file_type
    }

    /// The level of a `general.file_type`; `None` for levels that this table lacks.
    pub fn from_file_type(file_type: u32) -> Option<Self> {
        TABLE.iter().find(|entry| entry.file_type == file_type).map(|entry| entry.level)
    }

    /// The type of most of the weights.
    pub const fn base_type(self) -> TensorType {
        self.entry().base_type
    }

    /// Bits per weight over a whole typical model (Llama 3.1 8B); a given model differs by a few
    /// percent.
    pub const fn bits_per_weight(self) -> f32 {
        self.entry().bits_per_weight
    }

    /// When to choose it, in one line.
    pub const fn advice(self) -> &'static str {
        self.entry().advice
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Takes the name of a model's file apart, without its `.gguf`: what is named, and the level that it says.
/// `m-Q4_K_M-00001-of-00002` → (`m`, `Q4_K_M`). Levels of others are known by their form (`UD-Q4_K_XL` ends in one).
pub fn file_name_parts(stem: &str) -> (&str, Option<&str>) {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut whole = stem;
    if let Some((rest, count)) = stem.rsplit_once("-of-")
        && let Some((rest, number)) = rest.rsplit_once('-')
        && is_number(number)
        && is_number(count)
    {
        whole = rest;
    }
    match whole.rsplit_once(['-', '.']) {
        Some((name, level)) if !name.is_empty() && is_level_like(level) => (name, Some(level)),
        _ => (whole, None),
    }
}

fn is_level_like(word: &str) -> bool {
    let upper = word.to_ascii_uppercase();
    let rest = upper.trim_start_matches(['I', 'T']).strip_prefix('Q');
    let is_quantised = rest.is_some_and(|rest| {
        rest.starts_with(|first: char| first.is_ascii_digit()) && rest[1..].starts_with('_')
    });
    is_quantised || upper.starts_with("MXFP4") || word.parse::<Level>().is_ok()
}

/// A word that names no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown level: {0}")]
pub struct UnknownLevel(pub String);

impl Hint for UnknownLevel {
    fn hint(&self) -> Option<String> {
        let names: Vec<&str> = Level::ALL.iter().map(|level| level.name()).collect();
        Some(format!("use one of {}", names.join(", ")))
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = TABLE.iter().map(|entry| (entry.name, entry.level)).chain(ALIASES);
        let mut found = named.filter(|(name, _)| name.eq_ignore_ascii_case(text));
        found.next().map(|(_, level)| level).ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.level as usize, index);
            assert_eq!(format!("{:?}", entry.level), entry.name);
            assert_eq!(Level::from_file_type(entry.file_type), Some(entry.level));
            assert_eq!(entry.name.to_lowercase().parse(), Ok(entry.level));
        }
    }

    #[test]
    fn aliases_and_unknown_words() {
        assert_eq!("q4_k".parse(), Ok(Level::Q4_K_M));
        assert_eq!("Q3_K".parse(), Ok(Level::Q3_K_M));
        assert_eq!("q5_k".parse(), Ok(Level::Q5_K_M));
        assert_eq!("q9".parse::<Level>(), Err(UnknownLevel("q9".to_owned())));
        assert_eq!(Level::from_file_type(4), None);
    }

    #[test]
    fn names_of_files_say_their_levels() {
        for (stem, name, level) in [
            ("m-F16", "m", Some("F16")),
            ("m-F16-00001-of-00002", "m", Some("F16")),
            ("qwen-8b", "qwen-8b", None),
            ("F16", "F16", None),
            ("ref-x-f32", "ref-x", Some("f32")),
            ("tinyllama-1.1b-chat-v1.0.Q4_K_M", "tinyllama-1.1b-chat-v1.0", Some("Q4_K_M")),
            ("gpt-oss-20b-mxfp4", "gpt-oss-20b", Some("mxfp4")),
            ("m-UD-IQ2_XXS", "m-UD", Some("IQ2_XXS")),
            ("m-00001-of-00002", "m", None),
            ("-Q8_0", "-Q8_0", None),
            ("m-Q8", "m-Q8", None),
            ("", "", None),
        ] {
            assert_eq!(file_name_parts(stem), (name, level), "{stem}");
        }
    }

    #[test]
    fn a_level_costs_at_least_what_its_base_type_does() {
        for level in Level::ALL {
            let base = level.base_type();
            let bits = 8.0 * base.block_bytes() as f32 / base.block_elements() as f32;
            // Q2_K is the one with a larger base type than its name says, and every mixture only
            // adds bits.
            assert!(level.bits_per_weight() >= bits - 0.05, "{level}: {bits}");
        }
    }
}
