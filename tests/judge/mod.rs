//! Independent judges: second implementations that share no code with what they judge.

pub mod mixtral;
