//! The `nfl` command.

fn main() {}
