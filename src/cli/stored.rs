//! What `nfl show` tells of a stored model besides its file: where it came from and what it carries.

use nfl_models::gguf::Gguf;
use serde_json::{Value, json};

use super::failure::Failure;
use super::list;
use crate::store::{Manifest, Modelfile, Resolved, Store};
use crate::term::{neutral, table, units};

/// Characters of a text on its line.
const TEXT_SHOWN_MAX: usize = 60;

/// Name, source, age, and what it carries.
pub(super) fn section(manifest: &Manifest, resolved: &Resolved) -> String {
    let source = &manifest.source;
    let host = source.host.as_ref().map(|host| format!("{host}/")).unwrap_or_default();
    let mut rows = vec![
        ["model".to_owned(), manifest.name.to_string()],
        ["from".to_owned(), format!("{host}{}", source.path)],
        ["since".to_owned(), manifest.created.clone()],
        ["layers".to_owned(), layers(manifest)],
    ];
    let names = manifest.facts.capabilities.iter().map(|each| each.name());
    rows.push(["can".to_owned(), names.collect::<Vec<_>>().join(" ")]);
    if let Some(system) = &resolved.system {
        rows.push(["system".to_owned(), brief(system)]);
    }
    rows.extend(resolved.parameters.lines().map(|(name, value)| [name.to_owned(), brief(&value)]));
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.map(|cell| neutral(&cell)).to_vec()).collect();
    table::render(&rows, &[])
}

fn layers(manifest: &Manifest) -> String {
    let layer = |layer: &crate::store::Layer| {
        format!("{} ({})", format!("{:?}", layer.kind).to_lowercase(), units::bytes(layer.bytes))
    };
    manifest.layers.iter().map(layer).collect::<Vec<_>>().join(", ")
}

/// The beginning of a text on one line.
fn brief(text: &str) -> String {
    let line = text.trim().replace('\n', "\\n");
    let shown: String = line.chars().take(TEXT_SHOWN_MAX).collect();
    if shown.len() < line.len() { format!("{shown}…") } else { shown }
}

/// A stored model for scripts.
pub(super) fn document(store: &Store, manifest: &Manifest, resolved: &Resolved) -> Value {
    let mut document = list::document(store, manifest);
    let parameters: Value = serde_json::from_str(&resolved.parameters.json()).unwrap_or_default();
    document["parameters_set"] = parameters;
    document["system"] = json!(resolved.system);
    document["template"] = json!(resolved.template);
    document["messages"] =
        serde_json::from_str(&Modelfile::messages_json(&resolved.messages)).unwrap_or_default();
    document
}

/// The Modelfile that makes this model from its files.
pub(super) fn modelfile(store: Option<&Store>, resolved: &Resolved) -> Result<String, Failure> {
    let mut head = "# Written by nfl show --modelfile\n".to_owned();
    match &resolved.manifest {
        Some(manifest) => {
            let name = manifest.name.to_string();
            head.extend(["# To build on this model by its name: FROM ", &name, "\n"]);
        }
        // A file that is none is told here and not when the Modelfile is used.
        None => drop(Gguf::open(&resolved.model)?),
    }
    let modelfile = match store {
        Some(store) => store.modelfile(resolved)?,
        None => resolved.modelfile(),
    };
    let text = modelfile.write().map_err(|problem| Failure::new(problem, None))?;
    Ok(format!("{head}\n{text}"))
}
