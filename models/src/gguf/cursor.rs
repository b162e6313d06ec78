//! Reads numbers and strings from the head of a file, never past its end and never past a limit.

use super::error::GgufError;

/// A place in the first bytes of a file of known size.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file_bytes: u64,
}

impl<'a> Cursor<'a> {
    /// `bytes` are the first of a file of `file_bytes`.
    pub(super) fn new(bytes: &'a [u8], file_bytes: u64) -> Self {
        Self { bytes, position: 0, file_bytes: file_bytes.max(bytes.len() as u64) }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Refuses `count` items of at least `item_bytes` each when the file cannot hold them.
    pub(super) fn expect(
        &self,
        count: u64,
        item_bytes: u64,
        what: &'static str,
    ) -> Result<(), GgufError> {
        let remaining = self.file_bytes - self.position();
        let needed = count.saturating_mul(item_bytes);
        if needed > remaining {
            return Err(GgufError::Truncated {
                what,
                position: self.position(),
                needed,
                remaining,
            });
        }
        Ok(())
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], GgufError> {
        self.expect(count, 1, what)?;
        // `expect` has shown that the sum stays within the file's size.
        let end = self.position() + count;
        if end > self.bytes.len() as u64 {
            return Err(GgufError::PrefixTooShort { needed: end });
        }
        let taken = &self.bytes[self.position..end as usize];
        self.position = end as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("take returns as many bytes as it was asked for"))
    }

    /// The next number.
    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// The next number.
    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The next number, when it is within the limit.
    pub(super) fn length(&mut self, what: &'static str, limit: u64) -> Result<u64, GgufError> {
        let value = self.u64(what)?;
        if value > limit {
            return Err(GgufError::Limit { what, value, limit });
        }
        Ok(value)
    }

    /// The next string: its length, then its bytes.
    pub(super) fn string(&mut self, what: &'static str, limit: u64) -> Result<&'a [u8], GgufError> {
        let length = self.length(what, limit)?;
        self.take(length, what)
    }
}
