//! The table of ggml tensor types: id, name, elements and bytes of a block.
//!
//! Ids are those of `enum ggml_type` in ggml.h; sizes are those of the block structures in
//! ggml-common.h (ggml 0.26). Ids of removed types (`Q4_2` = 4, `Q4_3` = 5, the repacked 31–33 and
//! 36–38) are not in the table.

use std::fmt;
use std::str::FromStr;

use crate::hint::Hint;

/// How the numbers of a tensor are stored.
#[expect(non_camel_case_types, reason = "the names of the field: Q4_K, IQ2_XXS")]
#[expect(
    missing_docs,
    reason = "a variant's name is all there is to say; sizes are in the table below"
)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TensorType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

/// One row of the table.
struct Entry {
    tensor_type: TensorType,
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
}

const fn entry(
    tensor_type: TensorType,
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
) -> Entry {
    Entry { tensor_type, id, name, block_elements, block_bytes }
}

/// The table, in the order of the enum (a test keeps it so), which is the order of the ids.
const TABLE: [Entry; 35] = [
    entry(TensorType::F32, 0, "F32", 1, 4),
    entry(TensorType::F16, 1, "F16", 1, 2),
    entry(TensorType::Q4_0, 2, "Q4_0", 32, 18),
    entry(TensorType::Q4_1, 3, "Q4_1", 32, 20),
    entry(TensorType::Q5_0, 6, "Q5_0", 32, 22),
    entry(TensorType::Q5_1, 7, "Q5_1", 32, 24),
    entry(TensorType::Q8_0, 8, "Q8_0", 32, 34),
    entry(TensorType::Q8_1, 9, "Q8_1", 32, 36),
    entry(TensorType::Q2_K, 10, "Q2_K", 256, 84),
    entry(TensorType::Q3_K, 11, "Q3_K", 256, 110),
    entry(TensorType::Q4_K, 12, "Q4_K", 256, 144),
    entry(TensorType::Q5_K, 13, "Q5_K", 256, 176),
    entry(TensorType::Q6_K, 14, "Q6_K", 256, 210),
    entry(TensorType::Q8_K, 15, "Q8_K", 256, 292),
    entry(TensorType::IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    entry(TensorType::IQ2_XS, 17, "IQ2_XS", 256, 74),
    entry(TensorType::IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    entry(TensorType::IQ1_S, 19, "IQ1_S", 256, 50),
    entry(TensorType::IQ4_NL, 20, "IQ4_NL", 32, 18),
    entry(TensorType::IQ3_S, 21, "IQ3_S", 256, 110),
    entry(TensorType::IQ2_S, 22, "IQ2_S", 256, 82),
    entry(TensorType::IQ4_XS, 23, "IQ4_XS", 256, 136),
    entry(TensorType::I8, 24, "I8", 1, 1),
    entry(TensorType::I16, 25, "I16", 1, 2),
    entry(TensorType::I32, 26, "I32", 1, 4),
    entry(TensorType::I64, 27, "I64", 1, 8),
    entry(TensorType::F64, 28, "F64", 1, 8),
    entry(TensorType::IQ1_M, 29, "IQ1_M", 256, 56),
    entry(TensorType::BF16, 30, "BF16", 1, 2),
    entry(TensorType::TQ1_0, 34, "TQ1_0", 256, 54),
    entry(TensorType::TQ2_0, 35, "TQ2_0", 256, 66),
    entry(TensorType::MXFP4, 39, "MXFP4", 32, 17),
    entry(TensorType::NVFP4, 40, "NVFP4", 64, 36),
    entry(TensorType::Q1_0, 41, "Q1_0", 128, 18),
    entry(TensorType::Q2_0, 42, "Q2_0", 64, 18),
];

impl TensorType {
    /// Every type, in the order of ids.
    pub const ALL: &'static [Self] = &{
        let mut all = [Self::F32; TABLE.len()];
        let mut index = 0;
        while index < TABLE.len() {
            all[index] = TABLE[index].tensor_type;
            index += 1;
        }
        all
    };

    const fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// The number that stands for the type in a file.
    pub const fn id(self) -> u32 {
        self.entry().id
    }

    /// The type of a number in a file; `None` for removed and unknown types.
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.binary_search_by_key(&id, |entry| entry.id).ok().map(|index| TABLE[index].tensor_type)
    }

    /// The name as people write it: `Q4_K`.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Elements of a block: a row holds whole blocks only.
    pub const fn block_elements(self) -> u64 {
        self.entry().block_elements
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> u64 {
        self.entry().block_bytes
    }

    /// Bytes of a row; `None` when `elements` is no multiple of the block or the product overflows.
    pub const fn row_bytes(self, elements: u64) -> Option<u64> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// Whether numbers are stored in blocks with shared scales.
    pub const fn is_quantized(self) -> bool {
        self.block_elements() > 1
    }

    /// The name of a type that ggml once had and removed, with its replacement.
    pub(crate) const fn removed(id: u32) -> Option<(&'static str, &'static str)> {
        Some(match id {
            4 => ("Q4_2", "Q4_0"),
            5 => ("Q4_3", "Q4_1"),
            31 => ("Q4_0_4_4", "Q4_0"),
            32 => ("Q4_0_4_8", "Q4_0"),
            33 => ("Q4_0_8_8", "Q4_0"),
            36 => ("IQ4_NL_4_4", "IQ4_NL"),
            37 => ("IQ4_NL_4_8", "IQ4_NL"),
            38 => ("IQ4_NL_8_8", "IQ4_NL"),
            _ => return None,
        })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A word that names no tensor type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tensor type: {0}")]
pub struct UnknownTensorType(pub String);

impl Hint for UnknownTensorType {
    fn hint(&self) -> Option<String> {
        let names: Vec<&str> = TensorType::ALL.iter().map(|each| each.name()).collect();
        Some(format!("use one of {}", names.join(", ")))
    }
}

impl FromStr for TensorType {
    type Err = UnknownTensorType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = TABLE.iter().find(|entry| entry.name.eq_ignore_ascii_case(text));
        found.map(|entry| entry.tensor_type).ok_or_else(|| UnknownTensorType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_of_the_ids() {
        for (index, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.tensor_type as usize, index);
            assert_eq!(format!("{:?}", entry.tensor_type), entry.name);
            assert_eq!(TensorType::from_id(entry.id), Some(entry.tensor_type));
            assert_eq!(entry.name.to_lowercase().parse(), Ok(entry.tensor_type));
        }
        assert!(TABLE.is_sorted_by_key(|entry| entry.id));
        assert_eq!(TensorType::ALL.len(), TABLE.len());
    }

    #[test]
    fn removed_and_unknown_ids_are_no_type() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38] {
            assert_eq!(TensorType::from_id(id), None);
            assert!(TensorType::removed(id).is_some());
        }
        assert_eq!(TensorType::from_id(43), None);
        assert_eq!(TensorType::from_id(255), None);
        assert!("Q4_2".parse::<TensorType>().is_err());
    }

    /// Block sizes from the parts that ggml-common.h lists for each structure.
    #[test]
    fn block_bytes_are_the_sums_of_their_parts() {
        const HALF: u64 = 2;
        let sums = [
            (TensorType::Q1_0, HALF + 128 / 8),
            (TensorType::Q2_0, HALF + 64 / 4),
            (TensorType::Q4_0, HALF + 16),
            (TensorType::Q4_1, 2 * HALF + 16),
            (TensorType::Q5_0, HALF + 4 + 16),
            (TensorType::Q5_1, 2 * HALF + 4 + 16),
            (TensorType::Q8_0, HALF + 32),
            (TensorType::Q8_1, 2 * HALF + 32),
            (TensorType::Q2_K, 2 * HALF + 256 / 16 + 256 / 4),
            (TensorType::Q3_K, HALF + 256 / 4 + 256 / 8 + 12),
            (TensorType::Q4_K, 2 * HALF + 12 + 256 / 2),
            (TensorType::Q5_K, 2 * HALF + 12 + 256 / 2 + 256 / 8),
            (TensorType::Q6_K, HALF + 256 / 16 + 3 * 256 / 4),
            (TensorType::Q8_K, 4 + 256 + 256 / 16 * 2),
            (TensorType::IQ2_XXS, HALF + 256 / 8 * 2),
            (TensorType::IQ2_XS, HALF + 256 / 8 * 2 + 256 / 32),
            (TensorType::IQ2_S, HALF + 256 / 4 + 256 / 16),
            (TensorType::IQ3_XXS, HALF + 3 * (256 / 8)),
            (TensorType::IQ3_S, HALF + 13 * (256 / 32) + 256 / 64),
            (TensorType::IQ1_S, HALF + 256 / 8 + 256 / 16),
            (TensorType::IQ1_M, 256 / 8 + 256 / 16 + 256 / 32),
            (TensorType::IQ4_NL, HALF + 16),
            (TensorType::IQ4_XS, HALF + 2 + 256 / 64 + 256 / 2),
            (TensorType::TQ1_0, HALF + 256 / 64 + (256 - 4 * 256 / 64) / 5),
            (TensorType::TQ2_0, HALF + 256 / 4),
            (TensorType::MXFP4, 1 + 32 / 2),
            (TensorType::NVFP4, 64 / 16 + 64 / 2),
        ];
        for (tensor_type, bytes) in sums {
            assert_eq!(tensor_type.block_bytes(), bytes, "{tensor_type}");
            assert!(tensor_type.is_quantized());
        }
        assert_eq!(sums.len(), TensorType::ALL.iter().filter(|each| each.is_quantized()).count());
    }

    #[test]
    fn rows_hold_whole_blocks() {
        assert_eq!(TensorType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(TensorType::Q4_K.row_bytes(172), None);
        assert_eq!(TensorType::F32.row_bytes(u64::MAX), None);
        assert_eq!(TensorType::Q8_0.row_bytes(0), Some(0));
    }
}
