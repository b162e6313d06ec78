//! `nfl show`: what is in a GGUF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use nfl_models::footprint::Footprint;
use nfl_models::gguf::{Gguf, Metadata, TensorInfo, Value};
use nfl_models::preflight::preflight;
use nfl_models::template;
use nfl_models::{Level, Shape, TensorType};
use serde_json::{Map, json};

use super::failure::Failure;
use super::{descent, model, stored};
use crate::chat::Descent;
use crate::term::{Printer, neutral, table, units};

/// Arrays of metadata that are longer are summarised: vocabularies have hundreds of thousands of entries.
const ARRAY_SHOWN_MAX: usize = 16;

/// Characters of a metadata text in the human form.
const TEXT_SHOWN_MAX: usize = 60;

/// Show what is in a model: architecture, shape, levels by tensor, sizes, vocabulary, template.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct Arguments {
    /// A stored model's name, or a GGUF file; of a split model, any of its files.
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// List all metadata.
    #[arg(long)]
    metadata: bool,
    /// Print the chat template and nothing else.
    #[arg(long, conflicts_with_all = ["tensors", "metadata", "json"])]
    template: bool,
    /// Print the Modelfile that makes this model, and nothing else.
    #[arg(long, conflicts_with_all = ["tensors", "metadata", "template", "json"])]
    modelfile: bool,
    /// Print everything as JSON; with --tensors every tensor too.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, printer: &Printer) -> Result<(), Failure> {
    let (store, resolved) = model::resolve(&arguments.file)?;
    if arguments.modelfile {
        return Ok(printer.line(stored::modelfile(store.as_ref(), &resolved)?.trim_end())?);
    }
    let gguf = Gguf::open(&resolved.model)?;
    if arguments.template {
        let hint = Some("a model without one continues texts: nfl run FILE PROMPT");
        let own = gguf.metadata().text(template::METADATA_KEY);
        let template = resolved.template.as_deref().or(own);
        let template =
            template.ok_or_else(|| Failure::new("the file has no chat template", hint))?;
        return Ok(printer.line(&neutral(template))?);
    }
    if arguments.json {
        let mut document = document(&gguf, arguments.tensors);
        if let (Some(store), Some(manifest)) = (&store, &resolved.manifest) {
            document["model"] = stored::document(store, manifest, &resolved);
        }
        let text = serde_json::to_string_pretty(&document).expect("keys are strings");
        return Ok(printer.line(&text)?);
    }
    let mut sections: Vec<String> = Vec::new();
    if let Some(manifest) = &resolved.manifest {
        sections.push(stored::section(manifest, &resolved));
    }
    sections.extend([summary(&gguf, &resolved.model), descent::section(&gguf)]);
    sections.extend([shape_section(&gguf), types_section(&gguf)]);
    sections.push(footprint_section(&gguf));
    sections.push(vocabulary_section(gguf.metadata()));
    if arguments.metadata {
        sections.push(metadata_section(gguf.metadata()));
    }
    if arguments.tensors {
        sections.push(tensors_section(&gguf));
    }
    sections.push(findings_section(&gguf));
    sections.retain(|section| !section.is_empty());
    Ok(printer.line(sections.join("\n").trim_end())?)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

fn dimensions(tensor: &TensorInfo) -> String {
    tensor.dimensions.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ")
}

fn parameters(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(TensorInfo::elements).sum()
}

fn weights_bytes(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(TensorInfo::bytes).sum()
}

fn level_of(metadata: &Metadata) -> Option<Level> {
    metadata.u32("general.file_type").and_then(Level::from_file_type)
}

fn bits_per_weight(gguf: &Gguf) -> f64 {
    weights_bytes(gguf) as f64 * 8.0 / (parameters(gguf) as f64).max(1.0)
}

fn summary(gguf: &Gguf, file: &Path) -> String {
    let metadata = gguf.metadata();
    let text = |key: &str| neutral(metadata.text(key).unwrap_or("-"));
    let files = gguf.files().len();
    let split = if files > 1 { format!(" in {files} files") } else { String::new() };
    let size = format!("{}{split}", units::bytes(gguf.file_bytes()));
    let weights =
        format!("{}, {:.2} bits each", units::count(parameters(gguf)), bits_per_weight(gguf));
    let level = level_of(metadata).map_or("-", Level::name);
    let template = match metadata.text(template::METADATA_KEY) {
        Some(template) => {
            let (count, descent) = (template.chars().count(), Descent::of(template));
            format!("{count} characters, {} (--template prints it)", descent.text())
        }
        None => "none: continues texts".to_owned(),
    };
    let format = format!("GGUF v{}, aligned to {} bytes", gguf.version(), gguf.alignment());
    let rows = [
        row(&["file", &neutral(&file.display().to_string())]),
        row(&["name", &text("general.name")]),
        row(&["architecture", &text("general.architecture")]),
        row(&["level", level]),
        row(&["weights", &weights]),
        row(&["size", &size]),
        row(&["format", &format]),
        row(&["chat template", &template]),
    ];
    table::render(&rows, &[])
}

fn shape_section(gguf: &Gguf) -> String {
    let Ok(shape) = Shape::of(gguf) else { return String::new() };
    let number = |value: u64| value.to_string();
    let mut rows = vec![
        row(&["blocks", &number(shape.blocks.into())]),
        row(&["embedding", &number(shape.embedding)]),
        row(&["heads", &format!("{} ({} of keys and values)", shape.heads, shape.heads_kv)]),
        row(&["head length", &format!("{} key, {} value", shape.key_length, shape.value_length)]),
        row(&["vocabulary", &number(shape.vocabulary)]),
        row(&["context trained", &number(shape.context_train)]),
        row(&["rope", &format!("{} dimensions, base {}", shape.rope_dimensions, shape.rope_theta)]),
    ];
    if shape.experts > 0 {
        let experts = format!("{}, {} used by each token", shape.experts, shape.experts_used);
        rows.insert(2, row(&["experts", &experts]));
        rows.insert(3, row(&["expert feed-forward", &number(shape.expert_feed_forward)]));
    } else {
        rows.insert(2, row(&["feed-forward", &number(shape.feed_forward)]));
    }
    if let Some(window) = shape.sliding_window {
        rows.push(row(&["sliding window", &number(window)]));
    }
    format!("shape\n{}", indent(&table::render(&rows, &[])))
}

/// Tensors and bytes by type, the largest first.
fn by_type(gguf: &Gguf) -> Vec<(TensorType, u64, u64)> {
    let mut types: BTreeMap<u32, (TensorType, u64, u64)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let entry = types.entry(tensor.tensor_type.id()).or_insert((tensor.tensor_type, 0, 0));
        entry.1 += 1;
        entry.2 += tensor.bytes();
    }
    let mut types: Vec<_> = types.into_values().collect();
    types.sort_by_key(|&(_, _, bytes)| std::cmp::Reverse(bytes));
    types
}

fn types_section(gguf: &Gguf) -> String {
    let rows: Vec<_> = by_type(gguf)
        .into_iter()
        .map(|(kind, tensors, bytes)| {
            row(&[kind.name(), &tensors.to_string(), &units::bytes(bytes)])
        })
        .collect();
    if rows.is_empty() {
        return "no tensors: a vocabulary only\n".to_owned();
    }
    format!("tensors by type\n{}", indent(&table::render(&rows, &[1, 2])))
}

fn footprint_section(gguf: &Gguf) -> String {
    let Ok(footprint) = Footprint::of(gguf) else { return String::new() };
    let shape = Shape::of(gguf).expect("the footprint was told from it");
    let mut rows = vec![row(&["weights", &units::bytes(footprint.weights_bytes())])];
    if shape.experts > 0 {
        rows.push(row(&["of that experts", &units::bytes(footprint.experts_bytes())]));
    }
    rows.push(row(&["read per token", &units::bytes(footprint.bytes_per_token())]));
    if let Some(bytes) = footprint.kv_bytes_per_token(TensorType::F16, TensorType::F16) {
        rows.push(row(&["cache per token (F16)", &units::bytes(bytes)]));
    }
    if let Some(bytes) =
        footprint.total_bytes(shape.context_train, TensorType::F16, TensorType::F16)
    {
        let label = format!("with a context of {}", shape.context_train);
        rows.push(row(&[&label, &units::bytes(bytes)]));
    }
    format!("memory\n{}", indent(&table::render(&rows, &[1])))
}

fn vocabulary_section(metadata: &Metadata) -> String {
    let Some(model) = metadata.text("tokenizer.ggml.model") else { return String::new() };
    let tokens = metadata.array("tokenizer.ggml.tokens");
    let kind = match metadata.text("tokenizer.ggml.pre") {
        Some(pre) => format!("{} ({})", neutral(model), neutral(pre)),
        None => neutral(model),
    };
    let count = tokens.map_or(0, nfl_models::gguf::Array::len).to_string();
    let mut rows = vec![row(&["kind", &kind]), row(&["tokens", &count])];
    for (label, key) in [
        ("begin of sequence", "bos"),
        ("end of sequence", "eos"),
        ("end of turn", "eot"),
        ("unknown", "unknown"),
        ("padding", "padding"),
    ] {
        let Some(id) = metadata.u32(&format!("tokenizer.ggml.{key}_token_id")) else { continue };
        let piece = tokens.and_then(|tokens| tokens.value(id as usize));
        let piece = piece.map_or("not in the vocabulary".to_owned(), |piece| brief(&piece));
        rows.push(row(&[label, &format!("{id} {piece}")]));
    }
    format!("tokenizer\n{}", indent(&table::render(&rows, &[])))
}

fn metadata_section(metadata: &Metadata) -> String {
    let rows: Vec<_> = metadata
        .iter()
        .map(|(key, value)| row(&[&neutral(key), value.type_name(), &brief(value)]))
        .collect();
    format!("metadata\n{}", indent(&table::render(&rows, &[])))
}

fn tensors_section(gguf: &Gguf) -> String {
    let rows: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|tensor| {
            let bytes = units::bytes(tensor.bytes());
            row(&[&neutral(&tensor.name), tensor.tensor_type.name(), &dimensions(tensor), &bytes])
        })
        .collect();
    format!("tensors\n{}", indent(&table::render(&rows, &[3])))
}

/// What would keep the model from running, or make it run badly.
fn findings_section(gguf: &Gguf) -> String {
    match preflight(gguf) {
        Ok(warnings) => {
            let lines = warnings.iter().map(|warning| format!("warning: {warning}"));
            lines.collect::<Vec<_>>().join("\n")
        }
        Err(refusal) => format!("cannot run: {refusal}\n"),
    }
}

fn indent(text: &str) -> String {
    let mut indented = String::new();
    for line in text.lines() {
        indented.extend(["  ", line, "\n"]);
    }
    indented
}

/// A value on one line.
fn brief(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.to_string(),
        Value::Array(array) if array.len() > ARRAY_SHOWN_MAX => format!("{} values", array.len()),
        other => json_of(other).to_string(),
    };
    let shown: String = text.chars().take(TEXT_SHOWN_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    neutral(&format!("{}{more}", shown.replace('\n', "\\n")))
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::U8(number) => json!(number),
        Value::I8(number) => json!(number),
        Value::U16(number) => json!(number),
        Value::I16(number) => json!(number),
        Value::U32(number) => json!(number),
        Value::I32(number) => json!(number),
        Value::U64(number) => json!(number),
        Value::I64(number) => json!(number),
        Value::F32(number) => json!(number),
        Value::F64(number) => json!(number),
        Value::Bool(truth) => json!(truth),
        Value::String(text) => json!(text.to_string()),
        Value::Array(array) if array.len() > ARRAY_SHOWN_MAX => json!({"length": array.len()}),
        Value::Array(array) => array.values().map(|value| json_of(&value)).collect(),
    }
}

/// Everything about the file, for scripts. Long arrays are given as `{"length": n}`.
fn document(gguf: &Gguf, tensors: bool) -> serde_json::Value {
    let metadata = gguf.metadata();
    let entries: Map<String, serde_json::Value> =
        metadata.iter().map(|(key, value)| (key.to_owned(), json_of(value))).collect();
    let types: Vec<_> = by_type(gguf)
        .into_iter()
        .map(|(kind, tensors, bytes)| json!({"type": kind.name(), "tensors": tensors, "bytes": bytes}))
        .collect();
    let mut document = json!({
        "files": gguf.files().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "bytes": gguf.file_bytes(),
        "version": gguf.version(),
        "alignment": gguf.alignment(),
        "architecture": metadata.architecture(),
        "name": metadata.text("general.name"),
        "level": level_of(metadata).map(Level::name),
        "parameters": parameters(gguf),
        "weights_bytes": weights_bytes(gguf),
        "bits_per_weight": bits_per_weight(gguf),
        "shape": shape_json(gguf),
        "footprint": footprint_json(gguf),
        "types": types,
        "chat_template": metadata.text(template::METADATA_KEY),
        "chat_template_descent": metadata.text(template::METADATA_KEY).map(descent::document),
        "metadata": entries,
    });
    match preflight(gguf) {
        Ok(warnings) => {
            let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            document["warnings"] = json!(warnings);
        }
        Err(refusal) => document["refused"] = json!(refusal.to_string()),
    }
    if tensors {
        document["tensors"] = gguf
            .tensors()
            .iter()
            .map(|tensor| {
                json!({"name": tensor.name, "type": tensor.tensor_type.name(),
                    "dimensions": tensor.dimensions, "bytes": tensor.bytes()})
            })
            .collect();
    }
    document
}

fn shape_json(gguf: &Gguf) -> serde_json::Value {
    let Ok(shape) = Shape::of(gguf) else { return serde_json::Value::Null };
    json!({
        "blocks": shape.blocks,
        "embedding": shape.embedding,
        "feed_forward": shape.feed_forward,
        "heads": shape.heads,
        "heads_kv": shape.heads_kv,
        "key_length": shape.key_length,
        "value_length": shape.value_length,
        "vocabulary": shape.vocabulary,
        "context_train": shape.context_train,
        "experts": shape.experts,
        "experts_used": shape.experts_used,
        "expert_feed_forward": shape.expert_feed_forward,
        "rope_dimensions": shape.rope_dimensions,
        "rope_theta": shape.rope_theta,
        "norm_epsilon": shape.norm_epsilon,
        "sliding_window": shape.sliding_window,
        "tied_output": shape.tied_output,
    })
}

fn footprint_json(gguf: &Gguf) -> serde_json::Value {
    let Ok(footprint) = Footprint::of(gguf) else { return serde_json::Value::Null };
    let roles: Map<String, serde_json::Value> =
        footprint.roles().map(|(role, bytes)| (format!("{role:?}"), json!(bytes))).collect();
    json!({
        "weights_by_role_bytes": roles,
        "experts_bytes": footprint.experts_bytes(),
        "bytes_per_token": footprint.bytes_per_token(),
        "kv_bytes_per_token_f16": footprint.kv_bytes_per_token(TensorType::F16, TensorType::F16),
    })
}
