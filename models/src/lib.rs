//! What a model is.

pub mod arch;
pub mod footprint;
pub mod gguf;
mod hint;
pub mod inventory;
mod level;
pub mod name;
pub mod preflight;
pub mod shape;
pub mod template;
mod tensor;

pub use arch::{ARCHITECTURES, Architecture};
pub use footprint::Footprint;
pub use hint::Hint;
pub use inventory::{InventoryError, Role, TensorSpec, check_inventory, inventory};
pub use level::{Level, UnknownLevel};
pub use name::{ModelName, NameError, nearest};
pub use preflight::{Refusal, Warning, preflight};
pub use shape::{Shape, ShapeError};
pub use tensor::{TensorType, UnknownTensorType};
