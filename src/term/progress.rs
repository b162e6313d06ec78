//! Progress of anything that takes longer than a second: a bar on stderr for a person, silence for a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Printer;

/// How long work may take before a bar appears.
const QUIET_START: Duration = Duration::from_millis(400);

/// A progress bar that counts bytes or steps.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    started: std::time::Instant,
    drawn: bool,
    hidden: bool,
}

impl Progress {
    /// A bar over `total` bytes.
    pub fn bytes(printer: &Printer, total: u64) -> Self {
        let style = "{msg:32!} [{bar:30}] {percent:>3}%  {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
        Self::new(printer, total, style)
    }

    /// A bar over `total` weights.
    pub fn weights(printer: &Printer, total: u64) -> Self {
        Self::new(printer, total, "{msg:32!} [{bar:30}] {percent:>3}%  {eta} left")
    }

    /// A bar over fractions (0 to 1000 ‰), for work that reports only how far it is.
    pub fn permille(printer: &Printer) -> Self {
        Self::new(printer, 1000, "{msg} [{bar:30}] {percent:>3}%")
    }

    /// A bar over `total` steps.
    pub fn steps(printer: &Printer, total: u64) -> Self {
        Self::new(printer, total, "{msg:32!} [{bar:30}] {pos} of {len}")
    }

    fn new(printer: &Printer, total: u64, style: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template(style).expect("the template is a constant");
        bar.set_style(style.progress_chars("=> "));
        Self { bar, started: std::time::Instant::now(), drawn: false, hidden: printer.quiet() }
    }

    /// Sets what is being worked on.
    pub fn message(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    /// Sets how much there is to do, when that turns out on the way.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Moves to `done` of the total; the bar appears only once the work has taken a moment.
    pub fn set(&mut self, done: u64) {
        if !self.drawn && !self.hidden && self.started.elapsed() >= QUIET_START {
            self.drawn = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
        }
        self.bar.set_position(done);
    }

    /// Prints something above the bar.
    pub fn above(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
