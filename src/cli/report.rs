//! What `convert` and `quantize` tell the person: progress, fall-backs by tensor, the files that were written.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use nfl_converters::{ConvertError, Receipt, Step};
use nfl_models::Level;
use serde_json::json;

use super::failure::Failure;
use crate::term::progress::Progress;
use crate::term::{Printer, interrupt, neutral, units};

/// The levels with their advice, for `--help`.
pub(super) fn levels_help() -> String {
    let mut levels = Level::ALL.to_vec();
    levels.sort_by(|a, b| b.bits_per_weight().total_cmp(&a.bits_per_weight()));
    let line = |level: &Level| {
        let bits = level.bits_per_weight();
        format!("  {:<7} {bits:>5.2} bits a weight  {}", level.name(), level.advice())
    };
    let lines: Vec<String> = levels.iter().map(line).collect();
    format!("Levels, by size:\n{}", lines.join("\n"))
}

/// Turns steps into talk.
pub(super) struct Reporter<'a> {
    printer: &'a Printer,
    progress: Option<Progress>,
    fallbacks: BTreeMap<&'static str, Vec<serde_json::Value>>,
    warnings: Vec<String>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(printer: &'a Printer) -> Self {
        Self { printer, progress: None, fallbacks: BTreeMap::new(), warnings: Vec::new() }
    }

    /// Takes note of a step; asks to stop when the person did.
    pub(super) fn step(&mut self, step: &Step<'_>) -> ControlFlow<()> {
        match step {
            Step::Started { elements, tensors, levels } => {
                let names: Vec<&str> = levels.iter().map(|level| level.name()).collect();
                let weights = units::count(*elements);
                self.say(&format!("{tensors} tensors, {weights} weights to {}", names.join(", ")));
                self.progress = Some(Progress::weights(self.printer, *elements));
            }
            Step::Progress { done, .. } => {
                if let Some(progress) = &mut self.progress {
                    progress.set(*done);
                }
            }
            Step::Tensor { name, .. } => {
                if let Some(progress) = &self.progress {
                    progress.message(&neutral(name));
                }
            }
            Step::Warning { text } => {
                self.warnings.push((*text).to_owned());
                self.above(|printer| printer.warn(&neutral(text)));
            }
            Step::Fallback { level, tensor, wanted, used, row } => {
                let tensor = neutral(tensor);
                self.fallbacks.entry(level.name()).or_default().push(json!({
                    "tensor": &tensor, "wanted": wanted.name(), "used": used.name(), "row": row,
                }));
                self.say(&format!(
                    "{level}: {tensor} has rows of {row}, which {wanted} cannot hold; using {used}"
                ));
            }
            Step::Written { level, path, bytes } => {
                self.say(&format!("{level}: {} ({})", path.display(), units::bytes(*bytes)));
            }
        }
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn above(&self, say: impl FnOnce(&Printer)) {
        match &self.progress {
            Some(progress) => progress.above(|| say(self.printer)),
            None => say(self.printer),
        }
    }

    fn say(&self, text: &str) {
        self.above(|printer| printer.say(text));
    }

    /// Says how it went; with `as_json` the receipts go to stdout.
    pub(super) fn finish(
        mut self,
        result: Result<Vec<Receipt>, ConvertError>,
        as_json: bool,
    ) -> Result<(), Failure> {
        self.progress = None;
        let receipts = match result {
            Err(ConvertError::Interrupted) => return Err(Failure::interrupted()),
            other => other?,
        };
        if let Some(receipt) = receipts.first() {
            let took = Duration::from_secs_f64(receipt.seconds);
            self.printer.say(&format!("done in {}", units::duration(took)));
        }
        if as_json {
            let files: Vec<_> = receipts.iter().map(|receipt| self.receipt_json(receipt)).collect();
            let document = json!({"files": files, "warnings": self.warnings});
            let text = serde_json::to_string_pretty(&document).expect("keys are strings");
            self.printer.line(&text)?;
        }
        Ok(())
    }

    fn receipt_json(&self, receipt: &Receipt) -> serde_json::Value {
        let tensors: Vec<_> = receipt
            .tensors
            .iter()
            .map(|tensor| {
                json!({"name": tensor.name, "type": tensor.tensor_type.name(),
                    "dimensions": tensor.dimensions, "sha256": tensor.sha256})
            })
            .collect();
        json!({
            "level": receipt.level.name(),
            "path": receipt.path.display().to_string(),
            "bytes": receipt.bytes,
            "seconds": receipt.seconds,
            "fallbacks": self.fallbacks.get(receipt.level.name()).cloned().unwrap_or_default(),
            "tensors": tensors,
        })
    }
}
