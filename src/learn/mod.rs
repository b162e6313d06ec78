//! Teaching a model: from a file of examples to an adapter.

pub mod data;

pub use data::{DataError, Example, Turns};
