//! The remedy that an error carries: what the user can do about it.

/// An error that may know its remedy. The message says what is wrong; the hint says what to do, and
/// is rendered on a line of its own, once, by whoever prints the error.
pub trait Hint {
    /// What the user can do about it, as one sentence without a full stop; `None` when there is
    /// nothing to do.
    fn hint(&self) -> Option<String>;
}
