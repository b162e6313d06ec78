//! ggml's block encoders and decoders, with the checks that keep its assertions from firing.

use llama_cpp_sys_2 as sys;
use nfl_models::TensorType;
use thiserror::Error;

/// Why blocks were not encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlockError {
    /// ggml has no code for the type in this direction.
    #[error("{0}: ggml cannot convert this type")]
    Unsupported(TensorType),
    /// The buffers do not belong together.
    #[error("{elements} values and {bytes} bytes do not belong together")]
    Length {
        /// Values on the `f32` side.
        elements: usize,
        /// Bytes on the encoded side.
        bytes: usize,
    },
    /// The type needs an importance matrix.
    #[error("{0}: this type needs an importance matrix")]
    NoImportance(TensorType),
    /// ggml aborts at such values.
    #[error("{0}: a value is not finite")]
    NotFinite(TensorType),
}

/// Types that `ggml_quantize_chunk` knows.
fn is_encodable(kind: TensorType) -> bool {
    use TensorType as T;
    !matches!(kind, T::Q8_1 | T::Q8_K | T::I8 | T::I16 | T::I32 | T::I64 | T::F64)
}

/// Types whose encoders search a lattice and abort when a value is nowhere on it.
fn is_lattice(kind: TensorType) -> bool {
    use TensorType as T;
    matches!(kind, T::IQ1_S | T::IQ1_M | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ3_XXS | T::IQ3_S)
}

/// Whether our table of types and ggml's agree on one, so that byte counts made here hold there.
fn is_known(kind: TensorType) -> bool {
    if kind.id() >= sys::GGML_TYPE_COUNT {
        return false;
    }
    // SAFETY: the number is below the count of types.
    let (elements, bytes) =
        unsafe { (sys::ggml_blck_size(kind.id()), sys::ggml_type_size(kind.id())) };
    u64::try_from(elements) == Ok(kind.block_elements()) && bytes as u64 == kind.block_bytes()
}

/// Encodes whole rows of `row_elements` values each; `target` has exactly their bytes. `importance`
/// has one weight a column.
pub fn encode_blocks(
    kind: TensorType,
    source: &[f32],
    row_elements: usize,
    importance: Option<&[f32]>,
    target: &mut [u8],
) -> Result<(), BlockError> {
    if !is_known(kind) || !is_encodable(kind) {
        return Err(BlockError::Unsupported(kind));
    }
    let length = BlockError::Length { elements: source.len(), bytes: target.len() };
    if row_elements == 0 || !source.len().is_multiple_of(row_elements) {
        return Err(length);
    }
    let rows = source.len() / row_elements;
    let row_bytes = kind.row_bytes(row_elements as u64).unwrap_or(0) as usize;
    if row_bytes == 0 || rows.checked_mul(row_bytes) != Some(target.len()) {
        return Err(length);
    }
    if importance.is_some_and(|weights| weights.len() != row_elements) {
        return Err(length);
    }
    // SAFETY: takes a number.
    if importance.is_none() && unsafe { sys::ggml_quantize_requires_imatrix(kind.id()) } {
        return Err(BlockError::NoImportance(kind));
    }
    if is_lattice(kind) && !source.iter().all(|value| value.is_finite()) {
        return Err(BlockError::NotFinite(kind));
    }
    if rows == 0 {
        return Ok(());
    }
    // SAFETY: the source has `rows * row_elements` values, the target `rows * row_bytes` bytes by
    // ggml's own block sizes, the weights one entry a column; the type is one that ggml encodes.
    // ggml locks while it fills its tables.
    let written = unsafe {
        sys::ggml_quantize_chunk(
            kind.id(),
            source.as_ptr(),
            target.as_mut_ptr().cast(),
            0,
            rows as i64,
            row_elements as i64,
            importance.map_or(std::ptr::null(), <[f32]>::as_ptr),
        )
    };
    if written == target.len() { Ok(()) } else { Err(length) }
}

/// Decodes whole blocks.
pub fn decode_blocks(
    kind: TensorType,
    source: &[u8],
    target: &mut [f32],
) -> Result<(), BlockError> {
    if !is_known(kind) {
        return Err(BlockError::Unsupported(kind));
    }
    if kind.row_bytes(target.len() as u64) != Some(source.len() as u64) {
        return Err(BlockError::Length { elements: target.len(), bytes: source.len() });
    }
    if kind == TensorType::F32 {
        for (value, bytes) in target.iter_mut().zip(source.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        return Ok(());
    }
    // SAFETY: the number is below the count of types; the table lives as long as the process.
    let traits = unsafe { &*sys::ggml_get_type_traits(kind.id()) };
    let Some(to_float) = traits.to_float else { return Err(BlockError::Unsupported(kind)) };
    // ggml's blocks are structs of 2- and 4-byte fields; a slice of bytes may begin anywhere.
    let mut aligned = Vec::<u64>::new();
    let start = if source.as_ptr().addr().is_multiple_of(align_of::<u64>()) {
        source.as_ptr()
    } else {
        let words = source.chunks(8).map(|chunk| {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        aligned.extend(words);
        aligned.as_ptr().cast::<u8>()
    };
    // SAFETY: `start` has the bytes of exactly `target.len()` values, aligned for every block type.
    unsafe { to_float(start.cast(), target.as_mut_ptr(), target.len() as i64) };
    Ok(())
}
