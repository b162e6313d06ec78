//! The budget of one rendering: how much text it may make and how many values it may look at.
//!
//! minijinja's fuel counts instructions, and one instruction may do any amount of work: `x ~ x`
//! doubles a text, `[x, x]` doubles a tree, and thirty of either fill the memory. So everything
//! that makes or walks a value pays here first. The budget grows with the conversation, since
//! honest templates do work in proportion to it.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// Bytes of text that a rendering may make, whatever the size of the conversation.
const TEXT_BYTES_BASE: u64 = 64 << 20;
/// Further bytes for each byte of conversation and template: a template may append to a text once
/// per message.
const TEXT_BYTES_PER_INPUT_BYTE: u64 = 256;
/// The most bytes of text that any rendering may make.
const TEXT_BYTES_MAX: u64 = 1 << 30;
/// Values that a rendering may visit.
const VISITS_BASE: u64 = 4 << 20;
/// Further visits for each byte of the conversation.
const VISITS_PER_INPUT_BYTE: u64 = 32;
/// The most visits of any rendering.
const VISITS_MAX: u64 = 64 << 20;
/// Bytes of a text that cost as much to read as visiting one value.
const BYTES_PER_VISIT: u64 = 64;
/// How deep values may nest; serde_json itself stops at 128, and comparing, printing and dropping
/// recurse.
pub(super) const DEPTH_MAX: usize = 128;

/// A limit of the sandbox that a template ran into.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct LimitReached(pub(super) &'static str);

/// An error that says which limit was reached.
pub(super) fn limit(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what).with_source(LimitReached(what))
}

/// What is left of a rendering's budget; kept in the state of the rendering.
pub(super) struct Meter {
    text_bytes: u64,
    visits: u64,
}

impl Meter {
    /// The budget for a template and conversation of so many bytes.
    pub(super) fn new(input_bytes: u64) -> Meter {
        let text =
            TEXT_BYTES_BASE.saturating_add(input_bytes.saturating_mul(TEXT_BYTES_PER_INPUT_BYTE));
        let visits = VISITS_BASE.saturating_add(input_bytes.saturating_mul(VISITS_PER_INPUT_BYTE));
        Meter { text_bytes: text.min(TEXT_BYTES_MAX), visits: visits.min(VISITS_MAX) }
    }

    /// The meter of a rendering.
    pub(super) fn of<'s>(state: &'s mut State<'_, '_>) -> &'s mut Meter {
        let input_bytes = state
            .lookup(INPUT_BYTES)
            .and_then(|bytes| bytes.as_i64())
            .and_then(|bytes| u64::try_from(bytes).ok())
            .unwrap_or_default();
        state.get_or_insert_extension_with(|| Meter::new(input_bytes))
    }

    /// Pays for `bytes` of text about to be made.
    pub(super) fn make_text(&mut self, bytes: usize) -> Result<(), Error> {
        match self.text_bytes.checked_sub(bytes as u64) {
            Some(left) => {
                self.text_bytes = left;
                Ok(())
            }
            None => Err(limit("it makes too much text")),
        }
    }

    /// Pays for looking at a whole value; returns the bytes of text in it.
    pub(super) fn read(&mut self, value: &Value) -> Result<usize, Error> {
        self.read_to(value, DEPTH_MAX)
    }

    /// Pays for looking at so many values.
    pub(super) fn visit(&mut self, values: usize) -> Result<(), Error> {
        self.spend(values as u64)
    }

    /// Pays for reading a text, or for touching any other value once.
    pub(super) fn look(&mut self, value: &Value) -> Result<(), Error> {
        self.spend(1 + value.as_str().map_or(0, str::len) as u64 / BYTES_PER_VISIT)
    }

    fn spend(&mut self, visits: u64) -> Result<(), Error> {
        match self.visits.checked_sub(visits) {
            Some(left) => {
                self.visits = left;
                Ok(())
            }
            None => Err(limit("it looks at too many values")),
        }
    }

    fn read_to(&mut self, value: &Value, depth_left: usize) -> Result<usize, Error> {
        if let Some(text) = value.as_str() {
            self.look(value)?;
            return Ok(text.len());
        }
        self.spend(1)?;
        let Some(object) = value.as_object() else { return Ok(0) };
        if !matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) {
            return Ok(0);
        }
        let Some(depth_left) = depth_left.checked_sub(1) else {
            return Err(limit("its values nest too deep"));
        };
        let mut bytes = 0_usize;
        if value.kind() == ValueKind::Map {
            for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                bytes = bytes.saturating_add(self.read_to(&key, depth_left)?);
                bytes = bytes.saturating_add(self.read_to(&item, depth_left)?);
            }
        } else {
            for item in object.try_iter().into_iter().flatten() {
                bytes = bytes.saturating_add(self.read_to(&item, depth_left)?);
            }
        }
        Ok(bytes)
    }
}

/// The name under which the size of the input stands in a rendering's context; no template can
/// spell it.
pub(super) const INPUT_BYTES: &str = "input bytes";
