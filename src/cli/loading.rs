//! Loading a model while a person watches, for all commands alike.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::failure::Failure;
use crate::engine::frames::LoadInfo;
use crate::engine::plan::Planned;
use crate::engine::process::OnProgress;
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt};

/// The program that workers are started from: nfl itself.
pub(super) fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::new(format!("the path of nfl itself: {error}"), None))
}

/// Loads with `start`, which tells of its progress and is stopped by Ctrl-C.
pub(super) fn load<T, E: Into<Failure>>(
    printer: &Printer,
    start: impl FnOnce(OnProgress<'_>) -> Result<T, E>,
) -> Result<T, Failure> {
    let mut progress = Progress::permille(printer);
    progress.message("loading");
    let loaded = start(&mut |share| {
        progress.set((share * 1000.0) as u64);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(progress);
    if interrupt::requested() {
        return Err(Failure::interrupted());
    }
    loaded.map_err(Into::into)
}

/// Says what worker and plan warn of.
pub(super) fn warn(printer: &Printer, info: &LoadInfo, planned: Option<&Planned>) {
    let planned = planned.iter().flat_map(|planned| &planned.plan.warnings);
    for warning in info.warnings.iter().chain(planned) {
        printer.warn(warning);
    }
}
