//! What people are told of a chat template that somebody changed.

use nfl_models::gguf::Gguf;
use nfl_models::template;
use serde_json::{Value, json};

use crate::chat::Descent;
use crate::store::{Manifest, Store};
use crate::term::{Printer, neutral};

/// Parts of a template that are shown.
const PARTS_SHOWN_MAX: usize = 8;
/// Characters of a part that are shown.
const PART_SHOWN_MAX: usize = 100;

/// The parts that were added to a known template, line by line; empty when there are none.
pub(super) fn section(gguf: &Gguf) -> String {
    let descent = gguf.metadata().text(template::METADATA_KEY).map(Descent::of);
    let Some(Descent::Changed { from, added, .. }) = descent else { return String::new() };
    if added.is_empty() {
        return String::new();
    }
    let mut lines = vec![format!("added to the chat template of {from}:")];
    lines.extend(added.iter().take(PARTS_SHOWN_MAX).map(|part| {
        let line = part.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = line.chars().take(PART_SHOWN_MAX).collect();
        let more = if shown.len() < line.len() { "…" } else { "" };
        format!("  {}{more}", neutral(&shown))
    }));
    let more = added.len().saturating_sub(PARTS_SHOWN_MAX);
    if more > 0 {
        lines.push(format!("  … and {more} more"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The same for scripts.
pub(super) fn document(template: &str) -> Value {
    match Descent::of(template) {
        Descent::Known(name) => json!({"kind": "known", "name": name}),
        Descent::Changed { from, added, missing } => {
            json!({"kind": "changed", "name": from, "added": added, "missing": missing})
        }
        Descent::Unknown => json!({"kind": "unknown"}),
    }
}

/// Warns, when a model has just come, that its template is a known one with additions: it decides what the model is told.
pub(super) fn warn(store: &Store, manifest: &Manifest, printer: &Printer) {
    let Ok(resolved) = store.resolve_manifest(manifest.clone()) else { return };
    let Ok(gguf) = Gguf::open(&resolved.model) else { return };
    let descent = gguf.metadata().text(template::METADATA_KEY).map(Descent::of);
    let Some(descent @ Descent::Changed { .. }) = descent else { return };
    let name = &manifest.name;
    printer
        .warn(&format!("the chat template of {name} is {}; see: nfl show {name}", descent.text()));
}
