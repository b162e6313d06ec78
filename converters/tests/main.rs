//! The crate's integration tests, in one executable.

mod checkpoint_hostile;
mod checkpoint_mutations;
mod checkpoint_real;
mod checkpoint_seeded;
mod checkpoint_support;
mod convert_oracle;
mod convert_support;
