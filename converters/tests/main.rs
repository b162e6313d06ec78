//! The crate's integration tests, in one executable.

#![expect(clippy::unwrap_used, reason = "a test may panic, and so may its helpers")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod checkpoint_hostile;
mod checkpoint_mutations;
mod checkpoint_real;
mod checkpoint_seeded;
mod checkpoint_support;
mod convert_failures;
mod convert_mixture;
mod convert_oracle;
mod convert_stream;
mod convert_support;
mod convert_variants;
mod outline;
mod vocabulary_hostile;
mod vocabulary_made;
mod vocabulary_real;
mod vocabulary_support;
