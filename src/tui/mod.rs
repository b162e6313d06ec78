//! What is drawn on a terminal: the only place that knows ratatui.

pub mod training;
