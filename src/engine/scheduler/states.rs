//! Saved states: what the cache held of a conversation, in files that survive the worker.
//!
//! A file is named by the hash of its tokens and holds, all numbers in little-endian order:
//!
//! ```text
//! "NFLSTATE"  8 bytes
//! version     u32
//! fingerprint 32 bytes   model, types of the cache and version of llama.cpp (`Fingerprint`)
//! tokens      u32, then as many i32
//! state       u64, then as many bytes: llama.cpp's own
//! check       32 bytes   SHA-256 of all before
//! ```
//!
//! llama.cpp checks little of a state, so nothing reaches it whose check does not hold. Files
//! contain conversations: only their owner may read them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::engine::llama::Token;
use crate::engine::options::StateOptions;

const MAGIC: &[u8; 8] = b"NFLSTATE";
const VERSION: u32 = 1;
const EXTENSION: &str = "state";

/// A file that is being written; one that is found was left by a process that died.
const PARTIAL_EXTENSION: &str = "part";

/// Fewer tokens are computed sooner than read.
const TOKENS_MIN: usize = 64;

/// Bytes before the tokens: magic, version, fingerprint, number of tokens.
const HEAD_BYTES: usize = 8 + 4 + 32 + 4;

const CHECK_BYTES: usize = 32;

/// The most tokens of a state: see [`crate::engine::options::CONTEXT_TOKENS_MAX`].
const TOKENS_MAX: usize = crate::engine::options::CONTEXT_TOKENS_MAX as usize;

/// What a state depends on besides its tokens.
pub type Fingerprint = [u8; 32];

/// Why a state was not saved.
#[derive(Debug, Error)]
pub enum StateError {
    /// The folder or a file in it.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The states of one model in a folder that may hold those of others, too.
#[derive(Debug)]
pub struct States {
    options: StateOptions,
    fingerprint: Fingerprint,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    tokens: Vec<Token>,
}

impl States {
    /// Opens a folder, which is made when it is not there, and reads which states it has. Broken
    /// files are removed.
    pub fn open(options: &StateOptions, fingerprint: Fingerprint) -> Result<Self, StateError> {
        let directory = &options.directory;
        let failed = |source| StateError::File { path: directory.clone(), source };
        create_private(directory).map_err(failed)?;
        let mut states = Self { options: options.clone(), fingerprint, entries: Vec::new() };
        for file in fs::read_dir(directory).map_err(failed)?.flatten() {
            let path = file.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if extension == Some(PARTIAL_EXTENSION) {
                let _ = fs::remove_file(&path);
            }
            if extension != Some(EXTENSION) {
                continue;
            }
            match read_head(&path) {
                Some((owner, tokens)) if owner == fingerprint => {
                    states.entries.push(Entry { path, tokens });
                }
                Some(_) => {}
                None => {
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(states)
    }

    /// Whether a conversation of this many tokens is saved at all.
    pub(super) fn is_worth(tokens: usize) -> bool {
        tokens >= TOKENS_MIN
    }

    /// The tokens and the state that share the longest beginning with a prompt, more than `beyond`
    /// tokens. A file that turns out to be broken is removed.
    pub(super) fn find(
        &mut self,
        prompt: &[Token],
        beyond: usize,
    ) -> Option<(Vec<Token>, Vec<u8>)> {
        loop {
            let shared = |entry: &Entry| {
                entry.tokens.iter().zip(prompt).take_while(|(held, new)| held == new).count()
            };
            let (shared, index) = (0..self.entries.len())
                .map(|index| (shared(&self.entries[index]), index))
                .max()
                .filter(|(shared, _)| *shared > beyond)?;
            debug_assert!(shared > 0);
            let entry = &self.entries[index];
            if let Some(state) = read_state(&entry.path, &entry.tokens, &self.fingerprint) {
                // The time of its last use decides which file goes first.
                if let Ok(file) = fs::File::options().append(true).open(&entry.path) {
                    let _ = file.set_modified(SystemTime::now());
                }
                return Some((entry.tokens.clone(), state));
            }
            let _ = fs::remove_file(&self.entries.swap_remove(index).path);
        }
    }

    /// Saves the state of a conversation. States that it continues are removed: it can be cut back
    /// to them.
    pub(super) fn save(&mut self, tokens: &[Token], state: &[u8]) -> Result<(), StateError> {
        let bytes = (HEAD_BYTES + tokens.len() * 4 + 8 + state.len() + CHECK_BYTES) as u64;
        if state.is_empty()
            || bytes > self.options.bytes_max
            || self.entries.iter().any(|entry| entry.tokens.starts_with(tokens))
        {
            return Ok(());
        }
        for entry in self.entries.extract_if(.., |entry| tokens.starts_with(&entry.tokens)) {
            let _ = fs::remove_file(&entry.path);
        }
        self.make_room(bytes)?;
        let path = self.path_of(tokens);
        let partial = path.with_extension(PARTIAL_EXTENSION);
        let failed = |source| StateError::File { path: path.clone(), source };
        let written = write_state(&partial, &self.fingerprint, tokens, state)
            .and_then(|()| fs::rename(&partial, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&partial);
            return Err(failed(error));
        }
        self.entries.push(Entry { path, tokens: tokens.to_vec() });
        Ok(())
    }

    /// Removes the files that were unused for longest until there is room.
    fn make_room(&mut self, bytes: u64) -> Result<(), StateError> {
        let directory = &self.options.directory;
        let failed = |source| StateError::File { path: directory.clone(), source };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(directory)
            .map_err(failed)?
            .flatten()
            .filter(|file| file.path().extension().is_some_and(|kind| kind == EXTENSION))
            .filter_map(|file| {
                let metadata = file.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), file.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in files {
            if total + bytes <= self.options.bytes_max {
                break;
            }
            let _ = fs::remove_file(&path);
            self.entries.retain(|entry| entry.path != path);
            total -= size;
        }
        Ok(())
    }

    fn path_of(&self, tokens: &[Token]) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(self.fingerprint);
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        let hash = hash.finalize();
        // Half of the hash is enough to tell files apart; what they hold says whose they are.
        let name = hash.first_chunk::<16>().map_or(0, |half| u128::from_le_bytes(*half));
        self.options.directory.join(format!("{name:032x}")).with_extension(EXTENSION)
    }
}

/// Makes a folder that only its owner may enter.
pub(crate) fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn write_state(
    path: &Path,
    fingerprint: &Fingerprint,
    tokens: &[Token],
    state: &[u8],
) -> io::Result<()> {
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut head = Vec::with_capacity(HEAD_BYTES + tokens.len() * 4 + 8);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(fingerprint);
    head.extend_from_slice(&(tokens.len() as u32).to_le_bytes());
    for token in tokens {
        head.extend_from_slice(&token.to_le_bytes());
    }
    head.extend_from_slice(&(state.len() as u64).to_le_bytes());
    let check = Sha256::new().chain_update(&head).chain_update(state).finalize();
    file.write_all(&head)?;
    file.write_all(state)?;
    file.write_all(&check)
}

/// Whose state a file is, and its tokens; None for what is no state of this version.
fn read_head(path: &Path) -> Option<(Fingerprint, Vec<Token>)> {
    use io::Read;
    let mut file = fs::File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head).ok()?;
    let (fingerprint, count) = parse_head(&head)?;
    if count > TOKENS_MAX || (HEAD_BYTES + count * 4) as u64 > bytes {
        return None;
    }
    let mut tokens = vec![0; count * 4];
    file.read_exact(&mut tokens).ok()?;
    Some((fingerprint, words(&tokens).collect()))
}

fn parse_head(head: &[u8; HEAD_BYTES]) -> Option<(Fingerprint, usize)> {
    let (magic, rest) = head.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (fingerprint, rest) = rest.split_first_chunk::<32>()?;
    let count = rest.first_chunk::<4>()?;
    (magic == MAGIC && *version == VERSION.to_le_bytes())
        .then(|| (*fingerprint, u32::from_le_bytes(*count) as usize))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = Token> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|word| i32::from_le_bytes(*word))
}

/// The state in a file, if it is whole and the one of these tokens.
fn read_state(path: &Path, tokens: &[Token], fingerprint: &Fingerprint) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let end = bytes.len().checked_sub(CHECK_BYTES)?;
    let check = Sha256::digest(&bytes[..end]);
    if check.as_slice() != &bytes[end..] {
        return None;
    }
    let (head, rest) = bytes[..end].split_first_chunk::<HEAD_BYTES>()?;
    let (owner, count) = parse_head(head)?;
    let (held, rest) = rest.split_at_checked(count.checked_mul(4)?)?;
    let (length, state) = rest.split_first_chunk::<8>()?;
    let is_ours = owner == *fingerprint
        && words(held).eq(tokens.iter().copied())
        && u64::from_le_bytes(*length) == state.len() as u64;
    if !is_ours {
        return None;
    }
    let start = end - state.len();
    bytes.truncate(end);
    Some(bytes.split_off(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path, bytes_max: u64, owner: u8) -> States {
        let options = StateOptions { directory: directory.to_owned(), bytes_max };
        States::open(&options, [owner; 32]).unwrap()
    }

    fn tokens(count: i32) -> Vec<Token> {
        (0..count).collect()
    }

    fn files(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn states_are_found_by_the_longest_common_beginning_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut states = open(folder.path(), 1 << 20, 1);
        states.save(&tokens(100), b"hundred").unwrap();
        let mut other = tokens(200);
        other[50] = 7;
        states.save(&other, b"other").unwrap();
        for mut states in [states, open(folder.path(), 1 << 20, 1)] {
            assert_eq!(states.find(&tokens(150), 60), Some((tokens(100), b"hundred".to_vec())));
            assert_eq!(states.find(&tokens(150), 100), None);
            assert_eq!(states.find(&other[..120], 60), Some((other.clone(), b"other".to_vec())));
        }
        assert_eq!(open(folder.path(), 1 << 20, 2).find(&tokens(150), 0), None);
    }

    #[test]
    fn a_longer_conversation_replaces_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let mut states = open(folder.path(), 1 << 20, 1);
        for count in [100, 200, 150] {
            states.save(&tokens(count), b"state").unwrap();
        }
        assert_eq!(files(folder.path()), 1);
        assert_eq!(states.find(&tokens(300), 0).unwrap().0, tokens(200));
    }

    #[test]
    fn the_folder_stays_within_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let mut states = open(folder.path(), 10_000, 1);
        for first in 0..20 {
            let mut tokens = tokens(100);
            tokens[0] = first;
            states.save(&tokens, &[7; 1000]).unwrap();
            let total: u64 = fs::read_dir(folder.path())
                .unwrap()
                .map(|file| file.unwrap().metadata().unwrap().len())
                .sum();
            assert!(total <= 10_000, "{total}");
        }
        assert!(files(folder.path()) >= 5);
        states.save(&tokens(100), &vec![7; 20_000]).unwrap();
        assert!(files(folder.path()) >= 5, "what cannot fit must not push the others out");
    }

    #[test]
    fn every_broken_file_is_refused_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 1 << 20, 1).save(&tokens(70), &[3; 500]).unwrap();
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(7) {
            for broken in [whole[..place].to_vec(), {
                let mut flipped = whole.clone();
                flipped[place] ^= 0x10;
                flipped
            }] {
                fs::write(&path, &broken).unwrap();
                let mut states = open(folder.path(), 1 << 20, 1);
                assert_eq!(states.find(&tokens(90), 0), None, "{place}");
            }
        }
        fs::write(path.with_extension(PARTIAL_EXTENSION), b"half").unwrap();
        fs::write(&path, &whole).unwrap();
        assert!(open(folder.path(), 1 << 20, 1).find(&tokens(90), 0).is_some());
        assert_eq!(files(folder.path()), 1);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("states");
        open(&directory, 1 << 20, 1).save(&tokens(70), b"state").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        let file = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
        assert_eq!(mode(&file), 0o600);
    }
}
