//! Chat templates: from `tokenizer_config.json`, or from files of their own.

use std::fs;

use nfl_models::gguf::{Metadata, Text};
use nfl_models::template::METADATA_KEY;
use serde_json::Value;

use super::error::VocabularyError;
use super::files::{Folder, Object};
use super::limits::{CHAT_TEMPLATE_BYTES_MAX, CHAT_TEMPLATES_MAX};

/// The name of the template that is used unless another is asked for.
const DEFAULT: &str = "default";

/// Named templates in their order.
pub(super) type Templates = Vec<(String, String)>;

/// Reads the templates. What `tokenizer_config.json` says comes before `chat_template.jinja` (with
/// `additional_chat_templates/`), and that before `chat_template.json`.
pub(super) fn read(
    folder: Folder<'_>,
    tokenizer_config: Option<&Object>,
    warnings: &mut Vec<String>,
) -> Result<Templates, VocabularyError> {
    let configured = tokenizer_config.and_then(|config| config.get("chat_template"));
    if let Some(template) = configured.filter(|template| !template.is_null()) {
        return Ok(from_value(template, warnings));
    }
    if let Some(template) = folder.text("chat_template.jinja", CHAT_TEMPLATE_BYTES_MAX)? {
        let mut templates = vec![(DEFAULT.to_owned(), template)];
        templates.extend(read_additional(folder)?);
        return Ok(templates);
    }
    let file = folder.object("chat_template.json", CHAT_TEMPLATE_BYTES_MAX)?;
    let template = file.as_ref().and_then(|file| file.get("chat_template"));
    Ok(template.map(|template| from_value(template, warnings)).unwrap_or_default())
}

/// A template, or a list of named ones.
fn from_value(template: &Value, warnings: &mut Vec<String>) -> Templates {
    match template {
        Value::String(template) => vec![(DEFAULT.to_owned(), template.clone())],
        Value::Array(choices) => {
            let text = |choice: &Value, name| choice.get(name)?.as_str().map(str::to_owned);
            choices
                .iter()
                .filter_map(|choice| Some((text(choice, "name")?, text(choice, "template")?)))
                .collect()
        }
        Value::Null => Vec::new(),
        _ => {
            warnings.push("chat_template: neither a text nor a list; left out".to_owned());
            Vec::new()
        }
    }
}

/// The templates in `additional_chat_templates/`, sorted by name.
fn read_additional(folder: Folder<'_>) -> Result<Templates, VocabularyError> {
    let path = folder.join("additional_chat_templates");
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(VocabularyError::Read { path, source }),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| VocabularyError::Read { path: path.clone(), source })?;
        let name = entry.file_name().into_string().ok();
        if let Some(name) = name.as_deref().and_then(|name| name.strip_suffix(".jinja")) {
            names.push(name.to_owned());
        }
        if names.len() > CHAT_TEMPLATES_MAX {
            return Err(VocabularyError::TooLarge {
                path,
                what: "files with templates",
                found: names.len() as u64,
                limit: CHAT_TEMPLATES_MAX as u64,
            });
        }
    }
    names.sort();
    let mut templates = Vec::with_capacity(names.len());
    for name in names {
        let template =
            Folder::new(&path).text(&format!("{name}.jinja"), CHAT_TEMPLATE_BYTES_MAX)?;
        templates.extend(template.map(|template| (name, template)));
    }
    Ok(templates)
}

/// Appends the templates: `tokenizer.chat_template.NAME`, the list of those names, and the default one last.
pub(super) fn write(templates: Templates, metadata: &mut Metadata) {
    let mut default = None;
    let mut names: Vec<String> = Vec::new();
    for (name, template) in templates {
        let name: String = name
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
            .collect();
        if name == DEFAULT {
            default = Some(template);
        } else if !name.is_empty() {
            if !names.contains(&name) {
                names.push(name.clone());
            }
            set(metadata, format!("{METADATA_KEY}.{name}"), template);
        }
    }
    if !names.is_empty() {
        let names: Vec<Text> = names.into_iter().map(Text::from).collect();
        metadata.set("tokenizer.chat_templates", names);
    }
    if let Some(default) = default {
        set(metadata, METADATA_KEY.to_owned(), default);
    }
}

fn set(metadata: &mut Metadata, key: String, template: String) {
    if !template.is_empty() {
        metadata.set(key, template);
    }
}
