//! Teaching a model: from a file of examples to an adapter.

pub mod checkpoint;
mod course;
pub mod data;
mod error;
pub mod events;
mod identity;
mod material;
pub mod merge;
mod order;
pub mod outputs;
pub mod plot;
mod preference;
mod preview;
mod run;
pub mod spans;
mod steps;

pub use error::LearnError;
pub use order::{Contents, Evaluated, Identity, Lengths, Long, Order, Outcome, Report};
pub use preference::{Preferences, Preferred};
pub use preview::{Shown, preview};
pub use run::learn;
