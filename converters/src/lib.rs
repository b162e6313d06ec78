//! How a checkpoint becomes GGUF.
