//! GGUF: the file format of a model. These are the notes on the format, and on why the code is
//! ours.
//!
//! # The format
//!
//! All numbers are little-endian. A string is its length in bytes (u64) and its bytes, without a
//! closing zero.
//!
//! ```text
//! magic "GGUF" · version u32 · number of tensors u64 · number of entries u64
//! entry:   key string · type u32 · value                                   (metadata, repeated)
//! tensor:  name string · number of dimensions u32 · dimensions u64 each
//!          · type u32 · offset u64 within the data section                 (repeated)
//! zeros up to a multiple of the alignment, when there are tensors
//! data:    each tensor's bytes, then zeros up to a multiple of the alignment
//! ```
//!
//! - **Versions.** 2 and 3 differ only in that 3 allows big-endian files. Version 1 had 32-bit
//!   lengths and lasted for days; big-endian files come from machines that this program does not
//!   run on. Both are recognised and refused with what to do, as are versions of the future.
//! - **Values** have one of thirteen types, numbered 0 to 12 ([`Value::type_id`]). An array is a
//!   type, a length (u64) and its elements. Arrays of arrays are possible on paper; no reader takes
//!   them.
//! - **Alignment** is the entry `general.alignment` (u32, a power of two), else 32.
//! - **Dimensions** begin with the length of a row, the reverse of PyTorch's order. At most four;
//!   none means a single number; zero elements are allowed, as llama.cpp allows them.
//! - **Offsets** leave no choice: each tensor begins where the one before it ends, aligned.
//!   llama.cpp refuses anything else, and so does this reader: no overlap, no gap, no other order.
//! - **Padding** after the last tensor may be missing when reading (llama.cpp loads such files);
//!   the writer always writes it. A file without tensors is written without padding by gguf-py,
//!   with it by llama-gguf-split: [`Options::pad_without_tensors`].
//! - **Splits.** `NAME-00001-of-00003.gguf` and so on, each a whole GGUF file with `split.no` (u16,
//!   from 0), `split.count` (u16) and `split.tensors.count` (i32). See [`split`].
//! - **Kept exactly.** Order and types of entries, alignment, strings that are not UTF-8: a file
//!   that is read and written again is the same file. (The one exception: a truth value stored as
//!   something other than 0 or 1 is true, and written as 1.)
//!
//! # Why not gguf-rs
//!
//! This began with the crate gguf-rs (0.1.8), which serves the tests as an independent reader. For
//! conversion and for files of strangers it loses too much; `models/tests/gguf_rs.rs` keeps the
//! evidence and will say when one of these is mended:
//!
//! - Metadata become a `BTreeMap` of JSON values: the order of entries and the difference between a
//!   u8, an i64 and all between are gone, strings that are not UTF-8 are replaced. Its writer sorts
//!   entries by name too. A rewritten file is another file.
//! - Sizes and offsets are not held against the file: a file cut before its data decodes without an
//!   error. Names, offsets and overlaps are not checked; of two entries with one key the later wins
//!   in silence. Strings are allocated by the length that the file claims (up to 1 GiB) before a
//!   byte of them has been seen.
//! - NVFP4 (id 40) ends in `unreachable!`, a panic; Q1_0 and Q2_0 are unknown. Integers, BF16,
//!   IQ4_NL and MXFP4 have wrong sizes: it takes 256 for the block of every type from 10 on.
//! - Splits are not known. Its mapped reader copies the whole file into memory first.

mod cursor;
mod error;
mod header;
pub mod limits;
mod metadata;
mod reader;
pub mod split;
mod value;
mod writer;

pub use error::{GgufError, OffsetFault};
pub use header::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, Header, MAGIC, TensorInfo, tensor_bytes};
pub use metadata::Metadata;
pub use reader::Gguf;
pub use value::{Array, Text, Value};
pub use writer::{Options, TensorPlan, WriteError, Writer};
