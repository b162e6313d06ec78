//! Builds GGUF files byte by byte, so that every fault can be put into them; and small honest ones.

use std::path::PathBuf;

use nfl_models::TensorType;
use nfl_models::gguf::{Metadata, TensorPlan, Text, Writer};

/// The folder of real files; `None`, said on stderr, where it is not there.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn material() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/material"));
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no real files at {}", folder.display());
    None
}

/// Every GGUF file of the material.
pub(crate) fn material_files() -> Vec<PathBuf> {
    let Some(folder) = material() else { return Vec::new() };
    let mut files = Vec::new();
    for part in [
        "oracle",
        "oracle/convert_hf_to_gguf",
        "derived",
        "tokenizers/llama.cpp-vocab",
        "formats/gguf",
    ] {
        let entries = std::fs::read_dir(folder.join(part)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|each| each == "gguf")));
    }
    files.sort();
    assert!(files.len() >= 40, "only {} files", files.len());
    files
}

/// Bytes of a file that nobody checks.
#[derive(Clone, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// Magic, version, number of tensors, number of metadata entries.
    pub(crate) fn header(version: u32, tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn string(self, text: &str) -> Self {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// An entry whose value is a u32.
    pub(crate) fn entry_u32(self, key: &str, value: u32) -> Self {
        self.string(key).u32(4).u32(value)
    }

    /// An entry of every value type, scalars and arrays: 24 of them.
    pub(crate) fn entries_of_every_type(mut self) -> Self {
        const SIZES: [usize; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
        for (id, size) in SIZES.into_iter().enumerate().filter(|(id, _)| *id != 9) {
            // Text that is not UTF-8, and truth values beyond one.
            let value: Vec<u8> = (0..size.max(3) as u8).map(|byte| byte | 0xC0).collect();
            let scalar = self.string(&format!("scalar.{id}")).u32(id as u32);
            let scalar =
                if id == 8 { scalar.u64(3).raw(&value) } else { scalar.raw(&value[..size]) };
            let array = scalar.string(&format!("array.{id}")).u32(9).u32(id as u32).u64(2);
            self = match id {
                8 => array.u64(3).raw(&value).u64(0),
                _ => array.raw(&value[..size]).raw(&value[..size]),
            };
        }
        self
    }

    /// A tensor info.
    pub(crate) fn tensor(self, name: &str, dimensions: &[u64], type_id: u32, offset: u64) -> Self {
        let named = self.string(name).u32(dimensions.len() as u32);
        let shaped = dimensions.iter().fold(named, |bytes, dimension| bytes.u64(*dimension));
        shaped.u32(type_id).u64(offset)
    }

    /// Zeros up to a multiple of the alignment.
    pub(crate) fn pad(mut self, alignment: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }

    /// This many bytes of data.
    pub(crate) fn data(self, count: usize) -> Self {
        let data: Vec<u8> = (0..count).map(|place| place as u8).collect();
        self.raw(&data)
    }
}

/// Metadata and tensors of a small honest llama with two blocks, dense or with experts.
pub(crate) fn small_llama(experts: u32) -> (Metadata, Vec<TensorPlan>) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    for (key, value) in [
        ("block_count", 2),
        ("context_length", 512),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 8),
    ] {
        metadata.set(format!("llama.{key}"), value as u32);
    }
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    if experts > 0 {
        metadata.set("llama.expert_count", experts);
        metadata.set("llama.expert_used_count", 2_u32);
    }
    let tokens: Vec<Text> = ["<unk>", "<s>", "</s>"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")))
        .chain(std::iter::once("a".to_owned()))
        .map(Text::from)
        .collect();
    let vocabulary = tokens.len();
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.scores", vec![0_f32; vocabulary]);
    metadata.set("tokenizer.ggml.token_type", vec![1_i32; vocabulary]);
    let shape = nfl_models::Shape::from_header(&metadata, &[]).unwrap();
    let plans = nfl_models::inventory(&shape).into_iter().map(|spec| TensorPlan {
        name: spec.name,
        dimensions: spec.dimensions,
        tensor_type: TensorType::F32,
    });
    (metadata, plans.collect())
}

/// Writes a file whose tensors hold counted bytes.
pub(crate) fn write(metadata: &Metadata, tensors: &[TensorPlan]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), metadata, tensors.to_vec()).unwrap();
    for tensor in tensors {
        let bytes = nfl_models::gguf::tensor_bytes(tensor.tensor_type, &tensor.dimensions).unwrap();
        let data: Vec<u8> = (0..bytes).map(|place| place as u8).collect();
        writer.write(&data).unwrap();
        writer.finish_tensor().unwrap();
    }
    writer.finish().unwrap()
}
