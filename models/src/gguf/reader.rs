//! Opens a model, in one file or in all shards of a split, by mapping it into memory.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::error::GgufError;
use super::header::{Header, TensorInfo};
use super::limits;
use super::metadata::Metadata;
use super::split::{Part, SplitError, check_shard, shard_paths};

/// One model: one file, or all shards of a split.
///
/// The files stay mapped; nothing of the tensors' data is read before it is asked for. Whoever
/// shortens a file meanwhile makes the kernel kill the reading process, as with every mapped file;
/// [`check_length`](Self::check_length) notices it before a read.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    files: Vec<MappedFile>,
}

/// One mapped file.
#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    /// Kept open because another file may have taken the path meanwhile.
    file: File,
    map: Mmap,
    data_offset: u64,
}

impl Gguf {
    /// Opens and checks a model. The path may be that of any shard of a split; the others are found
    /// beside it.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let (file, header) = open_file(path)?;
        match Part::of(&header.metadata).map_err(|source| in_file(path, source.into()))? {
            None => Self::assemble(vec![(file, header)]),
            Some(part) => Self::open_split(path, part, (file, header)),
        }
    }

    fn open_split(
        path: &Path,
        part: Part,
        opened: (MappedFile, Header),
    ) -> Result<Self, GgufError> {
        let limit = limits::SHARDS_MAX;
        if part.count > limit {
            return Err(SplitError::TooMany { value: part.count, limit }.into());
        }
        let Some(paths) = shard_paths(path, part.number, part.count) else {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(
                SplitError::Name { number: part.number + 1, count: part.count, name }.into()
            );
        };
        let mut opened = Some(opened);
        let mut files: Vec<(MappedFile, Header)> = Vec::with_capacity(paths.len());
        for (number, path) in (0_u64..).zip(paths) {
            let file = match opened.take_if(|_| number == part.number) {
                Some(file) => file,
                None if !path.exists() => return Err(SplitError::Missing(path).into()),
                None => open_file(&path)?,
            };
            let first = files.first().map_or(&file.1, |(_, header)| header);
            check_shard(first, &file.1, &path, number)?;
            files.push(file);
        }
        let gguf = Self::assemble(files)?;
        let found = gguf.tensors.len() as u64;
        if found != part.tensors {
            return Err(SplitError::Tensors { found, expected: part.tensors }.into());
        }
        Ok(gguf)
    }

    fn assemble(parts: Vec<(MappedFile, Header)>) -> Result<Self, GgufError> {
        let total: u64 = parts.iter().map(|(_, header)| header.tensors.len() as u64).sum();
        if total > limits::TENSORS_MAX {
            let limit = limits::TENSORS_MAX;
            return Err(GgufError::Limit { what: "tensors in all shards", value: total, limit });
        }
        let mut files = Vec::with_capacity(parts.len());
        let mut tensors: Vec<TensorInfo> = Vec::with_capacity(total as usize);
        let mut index = HashMap::with_capacity(total as usize);
        let mut first = None;
        for (shard, (file, mut header)) in parts.into_iter().enumerate() {
            for tensor in header.tensors.drain(..) {
                if index.insert(tensor.name.clone(), tensors.len()).is_some() {
                    let (name, path) = (tensor.name, file.path);
                    return Err(SplitError::Duplicate { name, path }.into());
                }
                tensors.push(TensorInfo { shard, ..tensor });
            }
            files.push(file);
            first.get_or_insert(header);
        }
        let Header { version, alignment, metadata, .. } =
            first.expect("a model has at least one file");
        Ok(Self { version, alignment, metadata, tensors, index, files })
    }

    /// The metadata of the (first) file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// A tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&place| &self.tensors[place])
    }

    /// The bytes of one of this model's tensors.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        let file = &self.files[tensor.shard];
        let start = file.data_offset + tensor.offset;
        &file.map[start as usize..(start + tensor.bytes()) as usize]
    }

    /// Where a tensor's bytes begin in its file ([`TensorInfo::shard`]), in bytes.
    pub fn file_offset(&self, tensor: &TensorInfo) -> u64 {
        self.files[tensor.shard].data_offset + tensor.offset
    }

    /// Fails when the file of a tensor has become shorter since it was opened. To be asked before
    /// each read that may take place long after opening; a cut between the question and the end of
    /// the read still ends the process (SIGBUS), which no check can prevent.
    pub fn check_length(&self, tensor: &TensorInfo) -> Result<(), GgufError> {
        let MappedFile { path, file, map, .. } = &self.files[tensor.shard];
        let failed = |source| GgufError::Io { path: path.clone(), source };
        let (found, expected) = (file.metadata().map_err(failed)?.len(), map.len() as u64);
        if found < expected {
            return Err(GgufError::Shrunk { path: path.clone(), expected, found });
        }
        Ok(())
    }

    /// The alignment of the (first) file, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The version of the (first) file.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The files in their order. llama.cpp wants to be given the first.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Bytes after the last tensor of the files, beyond its padding, which no reader looks at.
    pub fn trailing_bytes(&self) -> u64 {
        let mut ends = vec![0; self.files.len()];
        for tensor in &self.tensors {
            ends[tensor.shard] = tensor.offset + tensor.bytes();
        }
        // The reader has held these sums against the file, and alignments are small.
        let used = |file: &MappedFile, end: u64| file.data_offset + end + self.alignment;
        let files = self.files.iter().zip(ends);
        files.map(|(file, end)| (file.map.len() as u64).saturating_sub(used(file, end))).sum()
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.map.len() as u64).sum()
    }
}

fn in_file(path: &Path, source: GgufError) -> GgufError {
    GgufError::InFile { path: path.to_path_buf(), source: Box::new(source) }
}

fn open_file(path: &Path) -> Result<(MappedFile, Header), GgufError> {
    let (file, map) = map_file(path)?;
    let header = Header::parse(&map).map_err(|source| in_file(path, source))?;
    let data_offset = header.data_offset;
    Ok((MappedFile { path: path.to_path_buf(), file, map, data_offset }, header))
}

/// Maps a regular file. Pipes and devices are refused before they are opened, since opening one can
/// block for ever.
fn map_file(path: &Path) -> Result<(File, Mmap), GgufError> {
    let failed = |source| GgufError::Io { path: path.to_path_buf(), source };
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(GgufError::NotAFile(path.to_path_buf()));
    }
    let file = File::open(path).map_err(failed)?;
    #[expect(unsafe_code, reason = "mapping a file has no safe interface")]
    // SAFETY: the map is read-only and private to this value. Another process that changes the file
    // can change the bytes under us; they are only ever read as numbers, and every length is
    // copied out before it is checked and used.
    let map = unsafe { Mmap::map(&file) };
    let map = map.map_err(failed)?;
    Ok((file, map))
}
