//! The named limits that every length in a GGUF file meets before it is believed.
//!
//! Besides these, no length may exceed the bytes that remain in the file. Where llama.cpp has a
//! limit it is the same one; elsewhere it is a wide multiple of what real files hold, so that
//! memory stays in proportion to honest input.

/// Bytes of one string value. llama.cpp allows 1 GiB; the largest that a file may honestly hold is a
/// whole `tokenizer.json`, of which some have 33 MB.
pub const STRING_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a metadata key, as the format's description says.
pub const KEY_BYTES_MAX: u64 = 65_535;

/// Metadata entries. Real files have about fifty.
pub const METADATA_ENTRIES_MAX: u64 = 1 << 16;

/// Bytes of the whole metadata section, as stored. The largest real ones (vocabularies of 260 000
/// tokens with their merges) are below 20 MB. It bounds time and memory too: the worst file, nothing
/// but strings of one byte, takes less than a second and 1 GiB.
pub const METADATA_BYTES_MAX: u64 = 128 << 20;

/// Elements of one array value. The longest real ones are merges, about half a million.
pub const ARRAY_ELEMENTS_MAX: u64 = 1 << 23;

/// Tensors of one file, or of all shards together. The largest real mixtures stay below 30 000 even
/// with one tensor for each expert.
pub const TENSORS_MAX: u64 = 1 << 18;

/// Bytes of a tensor name: ggml keeps 64 (`GGML_MAX_NAME`) with the closing zero.
pub const TENSOR_NAME_BYTES_MAX: u64 = 63;

/// Dimensions of a tensor (`GGML_MAX_DIMS`).
pub const DIMENSIONS_MAX: u32 = 4;

/// Alignment of the data section. Real files use 32; a memory page or a disk block may be asked
/// for.
pub const ALIGNMENT_MAX: u64 = 1 << 20;

/// Shards of a split. The format allows 65 535; the largest real models come in fewer than 300.
pub const SHARDS_MAX: u64 = 1 << 12;
