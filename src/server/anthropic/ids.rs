//! Names of messages and requests.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A name that nothing else has: 24 letters and digits behind a prefix.
pub(super) fn new(prefix: &str) -> String {
    // Every state is seeded anew from the system's random numbers.
    let random = || RandomState::new().build_hasher().finish();
    let digits = format!("{:016x}{:016x}", random(), random());
    format!("{prefix}{}", &digits[..24])
}
