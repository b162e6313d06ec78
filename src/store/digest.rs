//! The name of content: `sha256:` and 64 hexadecimal digits.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::error::StoreError;

/// What stands before the digits of a digest, and before those of a blob's file name with `-` for `:`.
const ALGORITHM: &str = "sha256";

/// Bytes read at once while a file is hashed.
const BUFFER_BYTES: usize = 1 << 20;

/// SHA-256 of some content.
///
/// Only `sha256:` and 64 digits in lower case are read: a digest becomes part of a path, and two spellings of one digest
/// would be two blobs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// A digest that was computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of all that `source` yields, and its length in bytes. `on_bytes` gets the length of each piece and says
    /// whether to go on; when it does not, the error is [`io::ErrorKind::Interrupted`].
    pub fn read(
        mut source: impl Read,
        on_bytes: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<(Self, u64)> {
        let mut state = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut total = 0;
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => return Ok((Self(state.finalize().into()), total)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            state.update(&buffer[..count]);
            total += count as u64;
            if !on_bytes(count as u64) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// The digest of 64 hexadecimal digits in lower case, as Hugging Face writes it.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The 64 digits.
    pub fn hex(&self) -> String {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// The first twelve digits: enough for people to tell blobs apart.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// The name of the blob's file: `sha256-HEX`.
    pub fn file_name(&self) -> String {
        format!("{ALGORITHM}-{}", self.hex())
    }

    /// The digest that a blob's file name says; `None` for any other file.
    pub fn from_file_name(name: &str) -> Option<Self> {
        Self::from_hex(name.strip_prefix(ALGORITHM)?.strip_prefix('-')?)
    }
}

impl FromStr for Digest {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix(ALGORITHM)
            .and_then(|rest| rest.strip_prefix(':'))
            .and_then(Self::from_hex)
            .ok_or_else(|| StoreError::Digest(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{ALGORITHM}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest: Digest = ABC.parse().unwrap();
        assert_eq!((digest, digest.to_string().as_str()), (Digest::of(b"abc"), ABC));
        assert_eq!(Digest::from_file_name(&digest.file_name()), Some(digest));
        let (read, bytes) = Digest::read(&b"abc"[..], &mut |_| true).unwrap();
        assert_eq!((read, bytes), (digest, 3));
        let stopped = Digest::read(&b"abc"[..], &mut |_| false).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn hostile_digests_are_refused() {
        let hex = &ABC[7..];
        for text in [
            "",
            "sha256:",
            hex,
            "sha256:../../etc/passwd",
            "sha256-../x",
            &format!("sha256-{hex}"),
            &format!("sha512:{hex}"),
            &format!("SHA256:{hex}"),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{hex}0"),
            &format!("sha256:{hex}\n"),
            &format!("sha256:{}/", &hex[1..]),
            &format!("sha256:{}é", &hex[2..]),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
        for name in ["sha256-x", "sha256:", ".", "..", "sha256", &format!("sha256-{hex}.partial")] {
            assert_eq!(Digest::from_file_name(name), None, "{name:?}");
        }
    }
}
