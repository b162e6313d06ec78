//! Which file of a repository is meant: by the level in its name, by what fits this machine, all shards of it, and the
//! projector that belongs to it.

use nfl_models::Hint;

use crate::store::Digest;
use crate::term::units;

/// Levels that are taken when none is named, the best first: 4 bits lose little and run everywhere.
const PREFERRED: [&str; 6] = ["Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q5_K_M", "Q8_0"];

/// Memory beside the weights: a small context and the program.
const BESIDE_BYTES: u64 = 512 << 20;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository, folders with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, for large files.
    pub digest: Option<Digest>,
}

/// A model of a repository: one file, or all shards of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// What tells it from the others: the level, or the file's name.
    pub label: String,
    /// The files, in the order of their numbers.
    pub files: Vec<RemoteFile>,
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) variant: Variant,
    pub(super) projector: Option<RemoteFile>,
    /// What should be said about it.
    pub(super) note: Option<String>,
}

/// Why no file was chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// No GGUF files at all.
    #[error("{repository} has no GGUF file{}", if *is_checkpoint { ", but a checkpoint" } else { "" })]
    NoGguf {
        /// The repository.
        repository: String,
        /// Whether it has safetensors files, which can be converted.
        is_checkpoint: bool,
    },
    /// None of that level.
    #[error("{repository} has no {wanted}")]
    Missing {
        /// The repository.
        repository: String,
        /// What was asked for.
        wanted: String,
        /// What there is, with sizes.
        available: Vec<String>,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// Shards that are not all there.
    #[error("{repository}: {label} has {found} of its {count} files")]
    Incomplete {
        /// The repository.
        repository: String,
        /// The variant.
        label: String,
        /// Files that are there.
        found: usize,
        /// Files that should be there.
        count: usize,
    },
    /// No checkpoint to convert.
    #[error("{repository} has no safetensors checkpoint to convert")]
    NoCheckpoint {
        /// The repository.
        repository: String,
    },
}

impl Hint for ChoiceError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoGguf { is_checkpoint: true, repository } => {
                format!("convert it on the way: nfl pull {repository} --convert q4_k_m")
            }
            Self::NoGguf { .. } => "search for one that has: nfl search WORDS".to_owned(),
            Self::Missing { available, nearest, .. } => {
                let nearest = nearest
                    .as_ref()
                    .map(|near| format!("did you mean {near}? "))
                    .unwrap_or_default();
                format!("{nearest}there are: {}", available.join(", "))
            }
            Self::Incomplete { .. } => {
                "the upload is not finished, or broken: choose another level".to_owned()
            }
            Self::NoCheckpoint { .. } => "leave --convert out to pull a GGUF file".to_owned(),
        })
    }
}

/// The number and count of a shard's name, and the name without them.
fn shard(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| -> Option<usize> {
        (text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    Some((name, digits(number)?, digits(count)?))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_gguf(file: &RemoteFile) -> bool {
    file.path.to_ascii_lowercase().ends_with(".gguf")
}

fn is_projector(file: &RemoteFile) -> bool {
    file_name(&file.path).to_ascii_lowercase().contains("mmproj")
}

/// The words of a file's name, between `-` and `.`, that spell a level: `Q4_K_M`, also those that only others make
/// (`IQ2_XXS`, `MXFP4`), with what stands before it for Unsloth's (`UD-Q4_K_XL`).
fn level_in(stem: &str) -> Option<String> {
    let is_level = |word: &str| {
        let word = word.to_ascii_uppercase();
        let digits = word.trim_start_matches("IQ").trim_start_matches("TQ").trim_start_matches('Q');
        let quantised =
            digits.len() < word.len() && digits.starts_with(|c: char| c.is_ascii_digit());
        quantised || ["F16", "F32", "BF16", "FP16", "MXFP4", "MXFP4_MOE"].contains(&word.as_str())
    };
    let words: Vec<&str> = stem.split(['-', '.']).collect();
    let place = words.iter().rposition(|word| is_level(word))?;
    let is_dynamic = place > 0 && words[place - 1].eq_ignore_ascii_case("UD");
    let level = words[place].to_ascii_uppercase();
    Some(if is_dynamic { format!("UD-{level}") } else { level })
}

/// All models of a repository, each with its shards, by size.
pub(super) fn variants(files: &[RemoteFile]) -> Vec<Variant> {
    let mut groups: Vec<(String, Variant)> = Vec::new();
    let skip =
        |file: &&RemoteFile| is_gguf(file) && !is_projector(file) && !file.path.contains("imatrix");
    for file in files.iter().filter(skip) {
        let stem = &file.path[..file.path.len() - ".gguf".len()];
        let key = shard(stem).map_or(stem, |(name, ..)| name).to_owned();
        if let Some((_, variant)) = groups.iter_mut().find(|(known, _)| *known == key) {
            variant.files.push(file.clone());
            continue;
        }
        let name = file_name(&key);
        // The level may be in the folder's name alone: Q4_K_M/model-00001-of-00002.gguf.
        let level = level_in(name).or_else(|| key.rsplit('/').find_map(level_in));
        let label = level.unwrap_or_else(|| name.to_owned());
        groups.push((key, Variant { label, files: vec![file.clone()] }));
    }
    let mut variants: Vec<Variant> = groups.into_iter().map(|(_, variant)| variant).collect();
    for variant in &mut variants {
        variant.files.sort_by(|left, right| left.path.cmp(&right.path));
    }
    variants.sort_by_key(Variant::bytes);
    variants
}

impl Variant {
    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).fold(0, u64::saturating_add)
    }

    fn check(&self, repository: &str) -> Result<(), ChoiceError> {
        let stem = |file: &RemoteFile| file.path[..file.path.len() - ".gguf".len()].to_owned();
        let numbers: Vec<(usize, usize)> = self
            .files
            .iter()
            .filter_map(|file| shard(&stem(file)).map(|found| (found.1, found.2)))
            .collect();
        let Some((_, count)) = numbers.first().copied() else { return Ok(()) };
        let is_whole = numbers.iter().map(|(number, _)| *number).eq(1..=count);
        if is_whole && numbers.iter().all(|(_, each)| *each == count) {
            return Ok(());
        }
        let (repository, label) = (repository.to_owned(), self.label.clone());
        Err(ChoiceError::Incomplete { repository, label, found: numbers.len(), count })
    }
}

/// Whether a model of this size runs in `memory_bytes`; 0 is unknown, and enough.
pub fn fits(bytes: u64, memory_bytes: u64) -> bool {
    memory_bytes == 0 || bytes.saturating_add(BESIDE_BYTES) <= memory_bytes
}

/// Chooses among the files of `repository`: what `wanted` names (a level or a file), else what is preferred and fits into
/// `memory_bytes`.
pub(super) fn choose(
    repository: &str,
    files: &[RemoteFile],
    wanted: Option<&str>,
    memory_bytes: u64,
) -> Result<Choice, ChoiceError> {
    let variants = variants(files);
    if variants.is_empty() {
        let is_checkpoint = files.iter().any(|file| file.path.ends_with(".safetensors"));
        return Err(ChoiceError::NoGguf { repository: repository.to_owned(), is_checkpoint });
    }
    let fits = |variant: &Variant| fits(variant.bytes(), memory_bytes);
    let (variant, note) = match wanted {
        Some(wanted) => (named(repository, &variants, wanted)?, None),
        None => automatic(&variants, fits),
    };
    variant.check(repository)?;
    Ok(Choice { variant: variant.clone(), projector: projector(files), note })
}

fn named<'a>(
    repository: &str,
    variants: &'a [Variant],
    wanted: &str,
) -> Result<&'a Variant, ChoiceError> {
    let is_file = |variant: &&Variant| {
        variant.files.iter().any(|file| {
            let name = file_name(&file.path);
            [file.path.as_str(), name, &name[..name.len() - ".gguf".len()]]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(wanted))
        })
    };
    let is_level = |variant: &&Variant| variant.label.eq_ignore_ascii_case(wanted);
    let found = variants.iter().find(is_file).or_else(|| variants.iter().find(is_level));
    // A tag cannot hold every character of a file's name.
    let ends = |variant: &&Variant| {
        variant.label.to_ascii_lowercase().ends_with(&format!("-{}", wanted.to_ascii_lowercase()))
    };
    found.or_else(|| variants.iter().find(ends)).ok_or_else(|| {
        let labels = || variants.iter().map(|variant| variant.label.as_str());
        ChoiceError::Missing {
            repository: repository.to_owned(),
            wanted: wanted.to_owned(),
            available: variants
                .iter()
                .map(|variant| format!("{} ({})", variant.label, units::bytes(variant.bytes())))
                .collect(),
            nearest: nfl_models::nearest(wanted, labels()).map(str::to_owned),
        }
    })
}

fn automatic(variants: &[Variant], fits: impl Fn(&Variant) -> bool) -> (&Variant, Option<String>) {
    let preferred = PREFERRED
        .iter()
        .find_map(|level| variants.iter().find(|variant| variant.label == *level))
        .unwrap_or(&variants[variants.len() / 2]);
    let size = |variant: &Variant| units::bytes(variant.bytes());
    if fits(preferred) {
        return (preferred, None);
    }
    let (label, whole) = (&preferred.label, size(preferred));
    let smaller =
        variants.iter().rfind(|variant| fits(variant) && variant.bytes() < preferred.bytes());
    let Some(smaller) = smaller else {
        let note = format!(
            "no level fits into this machine's memory; {label} ({whole}) will be read from the disk while it runs"
        );
        return (preferred, Some(note));
    };
    let note = format!(
        "{} ({}), because {label} ({whole}) does not fit into this machine's memory",
        smaller.label,
        size(smaller)
    );
    (smaller, Some(note))
}

/// The projector in half precision, which all makers offer; else the smallest.
fn projector(files: &[RemoteFile]) -> Option<RemoteFile> {
    let mut found: Vec<&RemoteFile> =
        files.iter().filter(|file| is_gguf(file) && is_projector(file)).collect();
    found.sort_by_key(|file| file.bytes);
    let has = |level: &str| {
        found.iter().copied().find(|file| {
            let name = file_name(&file.path);
            level_in(&name[..name.len() - ".gguf".len()]).is_some_and(|found| found == level)
        })
    };
    has("F16").or_else(|| has("BF16")).or(found.first().copied()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, u64)]) -> Vec<RemoteFile> {
        let file = |(path, gigabytes): &(&str, u64)| RemoteFile {
            path: (*path).to_owned(),
            bytes: gigabytes << 30,
            digest: None,
        };
        list.iter().map(file).collect()
    }

    fn repository() -> Vec<RemoteFile> {
        files(&[
            ("README.md", 0),
            ("model-IQ2_XXS.gguf", 2),
            ("model-Q4_K_M.gguf", 5),
            ("model-UD-Q4_K_XL.gguf", 6),
            ("model-Q8_0.gguf", 9),
            ("F16/model-F16-00002-of-00002.gguf", 8),
            ("F16/model-F16-00001-of-00002.gguf", 8),
            ("mmproj-F32.gguf", 1),
            ("mmproj-F16.gguf", 1),
            ("imatrix.gguf", 1),
        ])
    }

    fn chosen(wanted: Option<&str>, memory: u64) -> Result<(String, Vec<String>), ChoiceError> {
        let choice = choose("a/b", &repository(), wanted, memory << 30)?;
        assert_eq!(choice.projector.unwrap().path, "mmproj-F16.gguf");
        let paths = choice.variant.files.into_iter().map(|file| file.path).collect();
        Ok((choice.variant.label, paths))
    }

    #[test]
    fn a_name_chooses_by_level_or_file() {
        for (wanted, label) in [
            ("q4_k_m", "Q4_K_M"),
            ("Q8_0", "Q8_0"),
            ("iq2_xxs", "IQ2_XXS"),
            ("UD-Q4_K_XL", "UD-Q4_K_XL"),
            ("q4_k_xl", "UD-Q4_K_XL"),
            ("model-Q8_0.gguf", "Q8_0"),
            ("model-Q8_0", "Q8_0"),
        ] {
            assert_eq!(chosen(Some(wanted), 1).unwrap().0, label, "{wanted}");
        }
        let shards = ["F16/model-F16-00001-of-00002.gguf", "F16/model-F16-00002-of-00002.gguf"];
        assert_eq!(chosen(Some("f16"), 0).unwrap().1, shards);
        let missing = chosen(Some("q4_k_s"), 0).unwrap_err();
        let hint = missing.hint().unwrap();
        assert!(
            hint.contains("did you mean Q4_K_M?") && hint.contains("Q8_0 (9.00 GiB)"),
            "{hint}"
        );
    }

    #[test]
    fn without_a_name_the_best_that_fits_is_taken() {
        for (memory, label) in [(0, "Q4_K_M"), (64, "Q4_K_M"), (4, "IQ2_XXS"), (1, "Q4_K_M")] {
            assert_eq!(chosen(None, memory).unwrap().0, label, "{memory}");
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let none = choose("a/b", &files(&[("model.safetensors", 1)]), None, 0).unwrap_err();
        assert!(none.hint().unwrap().contains("--convert"));
        let list = [("m-Q4_0-00001-of-00003.gguf", 1), ("m-Q4_0-00003-of-00003.gguf", 1)];
        let half = choose("a/b", &files(&list), None, 0).unwrap_err();
        assert_eq!(half.to_string(), "a/b: Q4_0 has 2 of its 3 files");
    }
}
