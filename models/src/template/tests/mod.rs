//! What a template may do and may not, with small templates of our own.

mod golden;

use super::*;
