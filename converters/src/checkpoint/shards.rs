//! Which files of a checkpoint hold its tensors, and their mapping into memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::access::{OpenFile, is_plain};
use super::header::{Header, TENSORS_MAX, parse_header};
use super::{CheckpointError, Folder};

/// Bytes of `model.safetensors.index.json`. That of DeepSeek-V3 has 9 MB.
pub const INDEX_BYTES_MAX: u64 = 128 << 20;
/// Weight files of one checkpoint. DeepSeek-V3 has 163.
pub const SHARDS_MAX: usize = 10_000;
/// Directory entries that are looked at when there is neither index nor `model.safetensors`.
const NAMES_MAX: usize = 100_000;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// One weight file, mapped.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) name: String,
    pub(super) path: PathBuf,
    file: File,
    map: Mmap,
}

/// The weight files of a folder, and which tensor the index expects in which.
#[derive(Debug)]
pub(super) struct ShardNames {
    pub(super) names: Vec<String>,
    /// Tensor name to number of the file; absent when there is no index.
    pub(super) index: Option<BTreeMap<String, usize>>,
}

impl ShardNames {
    /// The files that the index names; without an index `model.safetensors`; without both every
    /// `model*.safetensors`.
    pub(super) fn find(folder: &Folder) -> Result<Self, CheckpointError> {
        if let Some(text) = folder.read_text(INDEX, INDEX_BYTES_MAX)? {
            return Self::from_index(folder, &text);
        }
        if folder.file(SINGLE)?.is_some() {
            return Ok(Self { names: vec![SINGLE.to_owned()], index: None });
        }
        let names = folder.names(NAMES_MAX)?;
        let shards: Vec<String> = names
            .iter()
            .filter(|name| name.starts_with("model") && has_extension(name, "safetensors"))
            .cloned()
            .collect();
        if shards.is_empty() {
            return Err(explain_absence(folder, &names));
        }
        refuse_too_many("weight files", shards.len(), SHARDS_MAX)?;
        Ok(Self { names: shards, index: None })
    }

    fn from_index(folder: &Folder, text: &str) -> Result<Self, CheckpointError> {
        let path = folder.path().join(INDEX);
        let IndexFile { weight_map: WeightMap(entries) } = serde_json::from_str(text)
            .map_err(|source| CheckpointError::Json { path: path.clone(), source })?;
        let refuse = |reason: String| CheckpointError::Index { path: path.clone(), reason };
        if entries.is_empty() {
            return Err(refuse("weight_map: empty".to_owned()));
        }
        let mut names: Vec<String> = entries.iter().map(|(_, file)| file.clone()).collect();
        names.sort_unstable();
        names.dedup();
        refuse_too_many("weight files", names.len(), SHARDS_MAX)?;
        if let Some(name) = names.iter().find(|name| !is_plain(name)) {
            return Err(CheckpointError::FileName { name: name.clone() });
        }
        if let Some(name) = names.iter().find(|name| is_pickle(name)) {
            return Err(CheckpointError::Pickle { path: folder.path().join(name) });
        }
        let mut index = BTreeMap::new();
        for (tensor, file) in entries {
            let number = names.binary_search(&file).map_err(|_| refuse("weight_map".to_owned()))?;
            if let Some(tensor) = index.insert(tensor.clone(), number).map(|_| tensor) {
                return Err(refuse(format!("weight_map: {tensor:?} stands twice")));
            }
        }
        Ok(Self { names, index: Some(index) })
    }

    /// Maps every file and reads its header. All files are looked for before the first is opened.
    pub(super) fn open(&self, folder: &Folder) -> Result<Vec<(Shard, Header)>, CheckpointError> {
        let mut absent = Vec::new();
        for name in &self.names {
            if folder.file(name)?.is_none() {
                absent.push(name);
            }
        }
        if let Some(first) = absent.first() {
            let (count, total) = (absent.len(), self.names.len());
            return Err(CheckpointError::ShardsAbsent { first: (*first).clone(), count, total });
        }
        let mut tensors = 0;
        let mut shards = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let shard = Shard::open(folder, name)?;
            let header = parse_header(shard.bytes())
                .map_err(|source| CheckpointError::Header { path: shard.path.clone(), source })?;
            tensors += header.tensors.len();
            refuse_too_many("tensors", tensors, TENSORS_MAX)?;
            shards.push((shard, header));
        }
        self.compare_with_index(folder, &shards)?;
        Ok(shards)
    }

    /// Every tensor of the index lies where it says, and no file holds a tensor that the index does
    /// not know.
    fn compare_with_index(
        &self,
        folder: &Folder,
        shards: &[(Shard, Header)],
    ) -> Result<(), CheckpointError> {
        let mut home: HashMap<&str, usize> = HashMap::new();
        for (number, (shard, header)) in shards.iter().enumerate() {
            for tensor in &header.tensors {
                if let Some(first) = home.insert(&tensor.name, number) {
                    return Err(CheckpointError::TensorTwice {
                        name: tensor.name.clone(),
                        first: shards[first].0.name.clone(),
                        second: shard.name.clone(),
                    });
                }
            }
        }
        let Some(index) = &self.index else { return Ok(()) };
        let path = folder.path().join(INDEX);
        let refuse = |reason: String| Err(CheckpointError::Index { path, reason });
        for (tensor, &number) in index {
            if home.get(tensor.as_str()) != Some(&number) {
                return refuse(format!("{tensor:?} is not in {:?}", self.names[number]));
            }
        }
        match home.iter().find(|(tensor, _)| !index.contains_key(**tensor)) {
            Some((tensor, &number)) => {
                refuse(format!("{tensor:?} of {:?} is not in weight_map", self.names[number]))
            }
            None => Ok(()),
        }
    }
}

impl Shard {
    fn open(folder: &Folder, name: &str) -> Result<Self, CheckpointError> {
        let absent =
            || CheckpointError::ShardsAbsent { first: name.to_owned(), count: 1, total: 1 };
        let OpenFile { file, path, .. } = folder.open_file(name)?.ok_or_else(absent)?;
        let map = map(&file).map_err(|error| CheckpointError::io(&path, error))?;
        #[cfg(unix)]
        // Only advice: an answer of no changes nothing.
        drop(map.advise(memmap2::Advice::Sequential));
        Ok(Self { name: name.to_owned(), path, file, map })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Refuses to go on when the file has become shorter than its mapping.
    ///
    /// This cannot be made safe altogether: a file that shrinks between this question and the read
    /// ends the process with SIGBUS. It turns the common case (a download or copy that starts
    /// anew) into an error.
    pub(super) fn check_length(&self) -> Result<(), CheckpointError> {
        let metadata = self.file.metadata();
        let found = metadata.map_err(|error| CheckpointError::io(&self.path, error))?.len();
        let expected = self.map.len() as u64;
        if found < expected {
            return Err(CheckpointError::Shrunk { path: self.path.clone(), expected, found });
        }
        Ok(())
    }

    /// Lets go of the pages of a range, so that pages read once do not pile up in the process.
    #[cfg(unix)]
    #[expect(unsafe_code, reason = "memmap2 marks this advice unsafe because of private mappings")]
    pub(super) fn release(&self, range: std::ops::Range<usize>) {
        // SAFETY: the mapping is shared, read-only and backed by a file: after DONTNEED the same
        // bytes come back from the file on the next access, so slices into it stay valid
        // and unchanged.
        let answer = unsafe {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            self.map.unchecked_advise_range(advice, range.start, range.len())
        };
        // Only advice: an answer of no changes nothing.
        drop(answer);
    }

    /// Does nothing where the system has no such advice.
    #[cfg(not(unix))]
    #[expect(clippy::unused_self, reason = "the same signature everywhere")]
    pub(super) fn release(&self, _range: std::ops::Range<usize>) {}
}

#[expect(unsafe_code, reason = "mapping a file is unsafe by nature: others may change it")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only. Bytes that another process changes meanwhile give wrong
    // weights, never a wrong length: every range is checked against the length of the map, and
    // `check_length` watches the file.
    unsafe { Mmap::map(file) }
}

fn refuse_too_many(what: &'static str, count: usize, limit: usize) -> Result<(), CheckpointError> {
    if count > limit {
        return Err(CheckpointError::TooMany { what, count, limit });
    }
    Ok(())
}

/// Whether `name` is one of PyTorch's pickle files.
pub(super) fn is_pickle(name: &str) -> bool {
    ["bin", "pt", "pth", "ckpt", "pkl"].iter().any(|known| has_extension(name, known))
}

/// Whether `name` ends in `.extension`, in small or capital letters.
pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Why there are no weights: what lies there instead.
fn explain_absence(folder: &Folder, names: &[String]) -> CheckpointError {
    let first = |test: &dyn Fn(&str) -> bool| {
        names.iter().find(|name| test(name)).map(|name| folder.path().join(name))
    };
    let directory = folder.path().to_path_buf();
    if names.iter().any(|name| name == "adapter_model.safetensors") {
        return CheckpointError::AdapterOnly { directory };
    }
    // Not every `.bin` is a pickle (`training_args.bin` and tokenizers are not weights), so known
    // names go first.
    if let Some(path) = first(&|name| name.starts_with("pytorch_model") && name.contains(".bin"))
        .or_else(|| first(&is_pickle))
    {
        return CheckpointError::Pickle { path };
    }
    if let Some(path) = first(&|name| has_extension(name, "gguf")) {
        return CheckpointError::AlreadyGguf { path };
    }
    CheckpointError::NoWeights { directory }
}

/// The index file; `metadata.total_size` and other entries are not needed.
#[derive(serde::Deserialize)]
struct IndexFile {
    weight_map: WeightMap,
}

/// Pairs of tensor name and file name in the order of the text, so that a name that stands twice is
/// seen.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightMapVisitor;

        impl<'de> Visitor<'de> for WeightMapVisitor {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of file names by tensor name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut entries = Vec::new();
                while entries.len() < TENSORS_MAX {
                    match map.next_entry()? {
                        Some(entry) => entries.push(entry),
                        None => return Ok(WeightMap(entries)),
                    }
                }
                match map.next_key::<IgnoredAny>()? {
                    Some(_) => Err(de::Error::custom("more than 500000 tensors")),
                    None => Ok(WeightMap(entries)),
                }
            }
        }

        deserializer.deserialize_map(WeightMapVisitor)
    }
}
