//! Convert, run and improve language models on a machine that a person owns.
