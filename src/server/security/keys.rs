//! Keys: who may ask when not everybody may.
//!
//! A key is 256 random bits, shown once. What is kept is SHA-256 of a salt and the key. That is fast to compute, and here
//! it may be: slow functions make guessing of passwords dear, but 2^256 keys are not guessed at any speed, while a slow
//! function would let anybody who sends wrong keys keep the processor busy. The salt keeps equal files from telling
//! anything about equal keys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nfl_models::Hint;
use nfl_models::template::Clock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// How keys begin, so that programs which look for leaked secrets find them.
const PREFIX: &str = "nfl-";

/// Keys in a file.
const KEYS_MAX: usize = 256;

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Characters of a key's name.
const NAME_CHARACTERS_MAX: usize = 64;

/// What a key is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Asking models, and seeing which there are.
    Infer,
    /// That, and getting, making, removing and unloading models.
    Manage,
}

/// A key as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    /// What its owner calls it.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// When it was made (RFC 3339).
    pub created: String,
    salt: String,
    hash: String,
}

impl Key {
    fn is(&self, text: &str) -> bool {
        self.hash.as_bytes().ct_eq(hash(&self.salt, text).as_bytes()).into()
    }
}

/// Why keys could not be read or changed.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A file that cannot be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that holds no keys.
    #[error("keys in {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that no key can have.
    #[error("name of a key: {0:?}")]
    Name(String),
    /// A name that is taken.
    #[error("there is a key {0} already")]
    Exists(String),
    /// A name that no key has.
    #[error("there is no key {0}")]
    Missing(String),
    /// As many keys as there may be.
    #[error("there are {KEYS_MAX} keys already")]
    Full,
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl Hint for KeyError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { .. } | Self::Random(_) => return None,
            Self::File { path, .. } => {
                format!("remove {} and make new keys with nfl keys add", path.display())
            }
            Self::Name(_) => {
                format!("1 to {NAME_CHARACTERS_MAX} of A-Z, a-z, 0-9, point, dash and underscore")
            }
            Self::Exists(name) => format!("remove it first: nfl keys rm {name}"),
            Self::Missing(_) => "nfl keys list shows which there are".to_owned(),
            Self::Full => "remove what nobody uses: nfl keys rm NAME".to_owned(),
        })
    }
}

/// The file as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    keys: Vec<Key>,
}

const VERSION: u32 = 1;

/// The keys of a home folder, in a file that only its owner reads.
#[derive(Debug, Clone)]
pub struct Keyring {
    path: PathBuf,
}

impl Keyring {
    /// The keys below `home`; the file is made with the first key.
    pub fn new(home: &Path) -> Self {
        Self { path: home.join("keys.json") }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, the oldest first.
    pub fn keys(&self) -> Result<Vec<Key>, KeyError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.io("cannot read")(error)),
        };
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(self.io("cannot read"))?;
        let wrong = |reason: String| KeyError::File { path: self.path.clone(), reason };
        let document: Document =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if document.version != VERSION {
            return Err(wrong(format!("version {}", document.version)));
        }
        if document.keys.len() > KEYS_MAX {
            return Err(wrong(format!("more than {KEYS_MAX} keys")));
        }
        Ok(document.keys)
    }

    /// Makes a key and returns its text, which is nowhere else.
    pub fn add(&self, name: &str, scope: Scope) -> Result<String, KeyError> {
        check_name(name)?;
        let _lock = self.lock()?;
        let mut keys = self.keys()?;
        if keys.iter().any(|key| key.name == name) {
            return Err(KeyError::Exists(name.to_owned()));
        }
        if keys.len() >= KEYS_MAX {
            return Err(KeyError::Full);
        }
        let text = format!("{PREFIX}{}", hexadecimal(&random::<32>()?));
        let salt = hexadecimal(&random::<16>()?);
        let created = Clock::now_utc().rfc3339();
        let hash = hash(&salt, &text);
        keys.push(Key { name: name.to_owned(), scope, created, salt, hash });
        self.write(keys)?;
        Ok(text)
    }

    /// Removes a key and says how many are left.
    pub fn remove(&self, name: &str) -> Result<usize, KeyError> {
        let _lock = self.lock()?;
        let mut keys = self.keys()?;
        let before = keys.len();
        keys.retain(|key| key.name != name);
        if keys.len() == before {
            return Err(KeyError::Missing(name.to_owned()));
        }
        let left = keys.len();
        self.write(keys)?;
        Ok(left)
    }

    fn folder(&self) -> &Path {
        self.path.parent().expect("the file is below the home folder")
    }

    /// Keeps others from changing keys meanwhile.
    fn lock(&self) -> Result<File, KeyError> {
        let folder = self.folder().join("locks");
        let open = || {
            fs::create_dir_all(&folder)?;
            let path = folder.join("keys");
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            file.lock()?;
            Ok(file)
        };
        open().map_err(self.io("cannot lock"))
    }

    /// Puts the file in its place: a server that reads it meanwhile sees the keys before or after.
    fn write(&self, keys: Vec<Key>) -> Result<(), KeyError> {
        let text = serde_json::to_string_pretty(&Document { version: VERSION, keys });
        let write = || {
            // Temporary files are their owner's alone, and stay so under their new name.
            let mut file = tempfile::NamedTempFile::new_in(self.folder())?;
            file.write_all(text.map_err(io::Error::other)?.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(self.io("cannot write"))
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> KeyError {
        let path = self.path.clone();
        move |source| KeyError::Io { action, path, source }
    }

    /// What tells one state of the file from another; None without a file.
    pub(super) fn state(&self) -> Option<(SystemTime, u64, u64)> {
        let found = fs::metadata(&self.path).ok()?;
        #[cfg(unix)]
        let file = std::os::unix::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let file = 0;
        Some((found.modified().ok()?, found.len(), file))
    }
}

/// The key that a text is. Every key is tried to its end, so that time tells nothing.
pub(super) fn find<'a>(keys: &'a [Key], text: &str) -> Option<&'a Key> {
    keys.iter().fold(None, |found, key| if key.is(text) { Some(key) } else { found })
}

fn check_name(name: &str) -> Result<(), KeyError> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_long_enough = (1..=NAME_CHARACTERS_MAX).contains(&name.len());
    if is_long_enough && name.chars().all(is_fine) {
        Ok(())
    } else {
        Err(KeyError::Name(name.to_owned()))
    }
}

fn hash(salt: &str, text: &str) -> String {
    hexadecimal(&Sha256::new().chain_update(salt).chain_update(text).finalize())
}

/// Bytes from the system's generator.
pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(bytes)
}

/// Bytes as digits.
pub(in crate::server) fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_text_and_kept_without_it() {
        let home = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(home.path());
        assert!(keyring.keys().unwrap().is_empty());
        let text = keyring.add("laptop", Scope::Infer).unwrap();
        let other = keyring.add("phone", Scope::Manage).unwrap();
        let keys = keyring.keys().unwrap();
        assert_eq!(find(&keys, &text).unwrap().name, "laptop");
        assert_eq!(find(&keys, &other).unwrap().scope, Scope::Manage);
        for wrong in ["", "nfl-", &text[..text.len() - 1], &format!("{text} ")] {
            assert!(find(&keys, wrong).is_none(), "{wrong}");
        }
        assert_eq!(text.len(), PREFIX.len() + 64);
        let kept = fs::read_to_string(keyring.path()).unwrap();
        assert!(!kept.contains(&text[PREFIX.len()..]));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(keyring.path()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(matches!(keyring.add("phone", Scope::Infer), Err(KeyError::Exists(_))));
        assert_eq!(keyring.remove("laptop").unwrap(), 1);
        assert!(find(&keyring.keys().unwrap(), &text).is_none());
        assert!(matches!(keyring.remove("laptop"), Err(KeyError::Missing(_))));
    }

    #[test]
    fn files_that_hold_no_keys_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(home.path());
        for text in
            ["", "{}", "[]", r#"{"version": 2, "keys": []}"#, r#"{"version":1,"keys":[{}]}"#]
        {
            fs::write(keyring.path(), text).unwrap();
            assert!(matches!(keyring.keys(), Err(KeyError::File { .. })), "{text}");
            assert!(keyring.add("a", Scope::Infer).is_err(), "{text}");
        }
        for name in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(matches!(keyring.add(name, Scope::Infer), Err(KeyError::Name(_))), "{name}");
        }
    }
}
