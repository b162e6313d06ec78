//! The full name of a model: where it comes from, and how the store's files are called after it.

use std::cmp::Ordering;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nfl_models::ModelName;
use nfl_models::name::TAG_DEFAULT;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::StoreError;

/// The folder of names without a host. No host is called so: those of one word are refused but for `localhost`.
const LOCAL: &str = "local";

/// Bytes of a host's name (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Ends of the store's own file names: a part of a name that ends so could take the place of another model's file.
const ENDINGS: [&str; 2] = [".json", ".used"];

/// A host, with a port or without: `hf.co`, `localhost:5000`, `[::1]:5000`. In lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

/// A model's name with the host that it comes from: `qwen3:8b`, `hf.co/someone/qwen3-gguf:Q4_K_M`,
/// `localhost:5000/library/qwen3`.
///
/// As in OCI references, the first part is a host when it holds a `.` or a `:` or is `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: Option<Host>,
    name: ModelName,
}

impl Host {
    /// As it is typed: `localhost:5000`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name or address without brackets and port.
    pub fn name(&self) -> &str {
        match self.0.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => self.0.split(':').next().unwrap_or(&self.0),
        }
    }

    /// The port, when one is given.
    pub fn port(&self) -> Option<u16> {
        let after = self.0.rsplit_once(']').map_or(self.0.as_str(), |(_, after)| after);
        after.split_once(':').and_then(|(_, port)| port.parse().ok())
    }

    /// A name for a folder: the characters that some file systems refuse are replaced, each by one that hosts never hold.
    fn folder(&self) -> String {
        let safe = |character| match character {
            ':' => '+',
            '[' | ']' => '=',
            other => other,
        };
        self.0.chars().map(safe).collect()
    }

    fn from_folder(name: &str) -> Option<Self> {
        let typed = name.replacen('=', "[", 1).replacen('=', "]", 1).replace('+', ":");
        typed.parse().ok()
    }
}

impl FromStr for Host {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let refused = || StoreError::Host(text.chars().take(80).collect());
        if !is_host(&lower) {
            return Err(refused());
        }
        let (name, port) = if let Some(rest) = lower.strip_prefix('[') {
            let (address, after) = rest.split_once(']').ok_or_else(refused)?;
            address.parse::<Ipv6Addr>().map_err(|_| refused())?;
            (address, after.strip_prefix(':').or((!after.is_empty()).then_some("no port")))
        } else {
            let (name, port) = match lower.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (lower.as_str(), None),
            };
            if !name.split('.').all(is_label) || name.len() > HOST_BYTES_MAX {
                return Err(refused());
            }
            (name, port)
        };
        let is_port = |port: &str| {
            port.parse::<u16>().is_ok_and(|number| number > 0 && number.to_string() == port)
        };
        if name.is_empty() || !port.is_none_or(is_port) {
            return Err(refused());
        }
        // The hub answers to two names; one of them is the model's.
        Ok(Self(if lower == "huggingface.co" { "hf.co".to_owned() } else { lower }))
    }
}

/// Whether the first part of a name is meant as a host and not as an owner.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':', '[']) || part.eq_ignore_ascii_case("localhost")
}

/// Letters, digits, `-` and `_`, neither first nor last a `-`; at most 63.
fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Reference {
    /// The model `name` on `host`, or one of this machine.
    ///
    /// # Errors
    /// When a part ends like one of the store's own files.
    pub fn new(host: Option<Host>, name: ModelName) -> Result<Self, StoreError> {
        let parts = name.owners().iter().map(String::as_str).chain([name.name()]);
        for part in parts {
            let lower = part.to_ascii_lowercase();
            if ENDINGS.iter().any(|ending| lower.ends_with(ending)) {
                return Err(StoreError::Ending(part.to_owned()));
            }
        }
        Ok(Self { host, name })
    }

    /// The host, when the name has one.
    pub fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The name without the host: owners, name and tag.
    pub fn model(&self) -> &ModelName {
        &self.name
    }

    /// The owners before the name: `["someone"]` of `hf.co/someone/qwen3`.
    pub fn owners(&self) -> &[String] {
        self.name.owners()
    }

    /// The name itself: `qwen3`.
    pub fn name(&self) -> &str {
        self.name.name()
    }

    /// The tag: `8b`, or `latest`.
    pub fn tag(&self) -> &str {
        self.name.tag()
    }

    /// Owners and name with `/` between them: what registries call a repository.
    pub fn repository(&self) -> String {
        let parts: Vec<&str> =
            self.owners().iter().map(String::as_str).chain([self.name()]).collect();
        parts.join("/")
    }

    /// Whether no tag was given, or the one that names without a tag have.
    pub fn has_default_tag(&self) -> bool {
        self.tag() == TAG_DEFAULT
    }

    /// The same model under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, StoreError> {
        Self::new(self.host.clone(), self.name.with_tag(tag)?)
    }

    /// The whole name in lower case, with its tag always: equal for names that are the same.
    pub fn key(&self) -> String {
        let host = self.host.as_ref().map(|host| format!("{host}/")).unwrap_or_default();
        host + &self.name.key()
    }

    /// The manifest's place below the folder of manifests: `HOST/OWNER…/NAME/TAG.json`, in lower case, so that names
    /// that are the same have one file on every file system.
    pub(super) fn path(&self) -> PathBuf {
        let mut path = PathBuf::from(self.host.as_ref().map_or(LOCAL.to_owned(), Host::folder));
        let parts = self.owners().iter().map(String::as_str).chain([self.name()]);
        path.extend(parts.map(str::to_ascii_lowercase));
        path.join(format!("{}.json", self.tag().to_ascii_lowercase()))
    }

    /// The name whose manifest is at this place below the folder of manifests; `None` for any other file.
    pub(super) fn from_path(path: &Path) -> Option<Self> {
        let mut parts: Vec<&str> =
            path.components().map(|part| part.as_os_str().to_str()).collect::<Option<_>>()?;
        let tag = parts.pop()?.strip_suffix(".json")?;
        let host = match *parts.first()? {
            LOCAL => None,
            folder => Some(Host::from_folder(folder)?),
        };
        let name: ModelName = format!("{}:{tag}", parts[1..].join("/")).parse().ok()?;
        Self::new(host, name).ok()
    }
}

impl FromStr for Reference {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((host, rest)) if is_host(host) => Self::new(Some(host.parse()?), rest.parse()?),
            _ => Self::new(None, text.parse()?),
        }
    }
}

impl PartialOrd for Reference {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reference {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(formatter, "{host}/")?;
        }
        fmt::Display::fmt(&self.name, formatter)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_hosts_owners_and_tags() {
        for (text, host, repository, tag, path) in [
            ("qwen3:8b", None, "qwen3", "8b", "local/qwen3/8b.json"),
            ("qwen3", None, "qwen3", "latest", "local/qwen3/latest.json"),
            ("me/Qwen3", None, "me/Qwen3", "latest", "local/me/qwen3/latest.json"),
            (
                "hf.co/Someone/Qwen3-GGUF:Q4_K_M",
                Some("hf.co"),
                "Someone/Qwen3-GGUF",
                "Q4_K_M",
                "hf.co/someone/qwen3-gguf/q4_k_m.json",
            ),
            (
                "localhost:5000/a/b/c:x",
                Some("localhost:5000"),
                "a/b/c",
                "x",
                "localhost+5000/a/b/c/x.json",
            ),
            ("[::1]:5000/a:x", Some("[::1]:5000"), "a", "x", "=++1=+5000/a/x.json"),
        ] {
            let name: Reference = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.host().map(Host::as_str), host, "{text}");
            assert_eq!((name.repository().as_str(), name.tag()), (repository, tag), "{text}");
            assert_eq!(name.path(), Path::new(path), "{text}");
            assert_eq!(Reference::from_path(&name.path()), Some(name));
        }
        let hub: Reference = "HuggingFace.co/a/b".parse().unwrap();
        assert_eq!(hub.to_string(), "hf.co/a/b");
        let host: Host = "[::1]:80".parse().unwrap();
        assert_eq!((host.name(), host.port()), ("::1", Some(80)));
        let host: Host = "a.b:443".parse().unwrap();
        assert_eq!((host.name(), host.port()), ("a.b", Some(443)));
    }

    #[test]
    fn hostile_names_are_refused() {
        for text in [
            "",
            "/etc/passwd",
            "hf.co/",
            "hf.co/../../x",
            "hf.co/a/..:x",
            "../x",
            "a/b/../c",
            "hf.co:x/a",
            "hf.co:0/a",
            "hf.co:080/a",
            "hf.co:70000/a",
            "user:pass@hf.co/a",
            "hf.co/a@sha256:0/b",
            "-x.y/a",
            "a..b/c",
            "[::1/a",
            "[::1]x/a",
            "[zz]/a",
            "a:b/c:d:e",
            "..\\..\\x",
            "C:\\x",
            "a\u{202e}b",
            "a\0b",
            "hf.co/a/x.json:y",
            "a/b.used",
            "https://hf.co/a/b",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!("x".repeat(300).parse::<Reference>().is_err());
        assert!(format!("{}.x/a", "a.".repeat(200)).parse::<Reference>().is_err());
        for path in ["local/x", "local/x.json", "x/y/z.json", "local/../x/y.json", "local/a/b.txt"]
        {
            let found = Reference::from_path(Path::new(path));
            assert_eq!(found, None, "{path}");
        }
    }
}
