//! Teaching a model: from a file of examples to an adapter.

pub mod checkpoint;
mod course;
pub mod data;
mod error;
pub mod events;
pub mod merge;
mod order;
pub mod outputs;
pub mod plot;
mod preference;
mod run;
pub mod spans;

pub use data::{DataError, Example, Turns};
pub use error::LearnError;
pub use order::{Order, Outcome, Report};
pub use preference::{Preferences, Preferred};
pub use run::learn;
