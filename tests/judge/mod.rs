//! Independent judges: second implementations that share no code with what they judge.

pub(crate) mod mixtral;
