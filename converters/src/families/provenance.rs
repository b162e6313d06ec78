//! `general.*`: where a model comes from, and the sampling its authors recommend.
//!
//! Keys, types and order are those of upstream's converter; a wrong or missing hint here changes
//! nothing but what `nfl show` tells.

use super::card::{CARD_BYTES_MAX, Card};
use super::name::{NameParts, title};
use super::tensors::Recipe;
use crate::checkpoint::Checkpoint;
use nfl_models::gguf::{Metadata, Text, Value};

/// Bytes of `generation_config.json`; real ones have a few hundred.
const GENERATION_BYTES_MAX: u64 = 1 << 20;

/// Sampling defaults: the keys in `generation_config.json`, the key in GGUF, and whether it is an
/// integer.
const SAMPLING: [(&[&str], &str, bool); 11] = [
    (&["top_k"], "top_k", true),
    (&["top_p"], "top_p", false),
    (&["min_p"], "min_p", false),
    (&["xtc_probability"], "xtc_probability", false),
    (&["xtc_threshold"], "xtc_threshold", false),
    (&["temperature"], "temp", false),
    (&["penalty_last_n"], "penalty_last_n", true),
    (&["penalty_repeat", "repetition_penalty"], "penalty_repeat", false),
    (&["mirostat"], "mirostat", true),
    (&["mirostat_tau"], "mirostat_tau", false),
    (&["mirostat_eta"], "mirostat_eta", false),
];

/// Appends what is known about the model to `metadata`.
pub(super) fn describe(
    checkpoint: &Checkpoint,
    recipes: &[Recipe],
    metadata: &mut Metadata,
    warnings: &mut Vec<String>,
) {
    sampling(checkpoint, metadata, warnings);
    let card = checkpoint.folder().read_text("README.md", CARD_BYTES_MAX);
    let card = match card {
        Ok(text) => Card::parse(&text.unwrap_or_default()),
        Err(error) => {
            warnings.push(format!("model card passed over: {error}"));
            Card::default()
        }
    };
    let parameters = recipes.iter().map(Recipe::elements).sum();
    let mut parts = NameParts::default();
    let path = checkpoint.config().entries().get("_name_or_path").and_then(|path| path.as_str());
    // a longer path is a directory of whoever trained it
    if let Some(id) = path.filter(|id| !id.is_empty() && id.matches('/').count() <= 1) {
        fill(&mut parts, NameParts::of(id, parameters));
    }
    fill(&mut parts, NameParts::of(checkpoint.name(), parameters));
    let size = parts.size_label.or_else(|| size_label(recipes));
    let license = card.words(&["license"]).join(",");
    let entries: [(&str, &[&str], Option<String>); 11] = [
        ("name", &["name", "model_name"], parts.name.as_deref().map(title)),
        ("author", &["author", "model_author", "model_creator"], None),
        ("version", &["version", "model_version"], parts.version),
        (
            "organization",
            &["organization", "model_organization"],
            parts.organization.as_deref().map(title),
        ),
        ("finetune", &["finetune", "model_finetune"], parts.finetune),
        ("basename", &["basename", "model_basename", "model_type"], parts.basename),
        ("description", &["description", "model_description"], None),
        ("size_label", &["size_label", "model_size_label"], size),
        ("license", &[], Some(license).filter(|license| !license.is_empty())),
        ("license.name", &["license_name"], None),
        ("license.link", &["license_link"], None),
    ];
    for (key, card_keys, told) in entries {
        if let Some(value) = card.word(card_keys).map(str::to_owned).or(told) {
            metadata.set(format!("general.{key}"), value);
        }
    }
    let base = card.words(&["base_model", "base_models", "base_model_sources"]);
    origins("base_model", base, parameters, metadata);
    let data = card.words(&["datasets", "dataset", "dataset_sources"]);
    origins("dataset", data, parameters, metadata);
    let tags = [card.words(&["tags"]), card.words(&["pipeline_tag"])].concat();
    set_list("general.tags", tags, metadata);
    let languages = [card.words(&["languages"]), card.words(&["language"])].concat();
    set_list("general.languages", languages, metadata);
}

fn fill(parts: &mut NameParts, more: NameParts) {
    let or = |mine: &mut Option<String>, other: Option<String>| {
        if mine.is_none() {
            *mine = other;
        }
    };
    or(&mut parts.name, more.name);
    or(&mut parts.organization, more.organization);
    or(&mut parts.basename, more.basename);
    or(&mut parts.finetune, more.finetune);
    or(&mut parts.version, more.version);
    or(&mut parts.size_label, more.size_label);
}

/// The sampling that the authors recommend. A file that cannot be read is passed over, as upstream
/// does, with a line.
fn sampling(checkpoint: &Checkpoint, metadata: &mut Metadata, warnings: &mut Vec<String>) {
    let config = match checkpoint.folder().read_json("generation_config.json", GENERATION_BYTES_MAX)
    {
        Ok(config) => config.unwrap_or_default(),
        Err(error) => {
            warnings.push(format!("generation defaults passed over: {error}"));
            return;
        }
    };
    if let Some(sequence) = config.get("sequence").and_then(serde_json::Value::as_str) {
        metadata.set("general.sampling.sequence", sequence);
    }
    for (keys, target, is_integer) in SAMPLING {
        let Some(found) = keys.iter().find_map(|key| config.get(key)) else { continue };
        let value = if is_integer {
            found.as_i64().and_then(|number| i32::try_from(number).ok()).map(Value::from)
        } else {
            found.as_f64().map(|number| Value::from(number as f32))
        };
        if let Some(value) = value {
            metadata.set(format!("general.sampling.{target}"), value);
        }
    }
}

/// Models or data that this one was made from: `owner/name`, or an address.
fn origins(kind: &str, ids: &[String], parameters: u64, metadata: &mut Metadata) {
    if ids.is_empty() {
        return;
    }
    metadata.set(format!("general.{kind}.count"), ids.len() as u32);
    for (index, id) in ids.iter().enumerate() {
        let is_address =
            ["http://", "https://", "ssh://"].iter().any(|start| id.starts_with(start));
        let hub = id.strip_prefix("https://huggingface.co/");
        let hub = hub.or_else(|| id.strip_prefix("http://huggingface.co/"));
        let known =
            if is_address { hub.filter(|id| id.matches('/').count() == 1) } else { Some(&**id) };
        let parts = known.map(|id| NameParts::of(id, parameters)).unwrap_or_default();
        let address = match (&parts.organization, &parts.name) {
            _ if is_address => Some(id.clone()),
            (Some(owner), Some(name)) => Some(format!("https://huggingface.co/{owner}/{name}")),
            _ => None,
        };
        let entries = [
            ("name", parts.name.as_deref().map(title)),
            ("version", parts.version),
            ("organization", parts.organization.as_deref().map(title)),
            ("repo_url", address),
        ];
        for (key, value) in entries {
            if let Some(value) = value {
                metadata.set(format!("general.{kind}.{index}.{key}"), value);
            }
        }
    }
}

fn set_list(key: &str, words: Vec<String>, metadata: &mut Metadata) {
    if !words.is_empty() {
        let words: Vec<Text> = words.into_iter().map(Text::from).collect();
        metadata.set(key, Value::from(words));
    }
}

/// `7.2B`, or `8x7.0B` with experts: all shared parameters and those of one expert.
fn size_label(recipes: &[Recipe]) -> Option<String> {
    let (mut all, mut shared, mut one_expert, mut experts, mut stacks) = (0, 0, 0, 0, 0_u64);
    for recipe in recipes {
        let elements = recipe.elements();
        all += elements;
        match recipe.dimensions.last() {
            Some(count) if recipe.name.contains("_exps.") && recipe.dimensions.len() > 2 => {
                one_expert += elements.checked_div(*count).unwrap_or(0);
                experts += count;
                stacks += 1;
            }
            _ => shared += elements,
        }
    }
    let size = match experts.checked_div(stacks) {
        Some(experts) => format!("{experts}x{}", rounded(shared + one_expert)),
        None => rounded(all),
    };
    (all > 0).then_some(size)
}

/// At least two digits: `293K`, `7.2B`.
fn rounded(parameters: u64) -> String {
    let parameters = parameters as f64;
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M")];
    let found = units.into_iter().find(|(unit, _)| parameters > *unit);
    let (unit, letter) = found.unwrap_or((1e3, "K"));
    let scaled = parameters * (1.0 / unit);
    let digits = format!("{scaled:.0}").trim_start_matches('0').len();
    let decimals = 2_usize.saturating_sub(digits);
    format!("{scaled:.decimals$}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_at_least() {
        assert_eq!(rounded(292_800), "293K");
        assert_eq!(rounded(7_248_023_552), "7.2B");
        assert_eq!(rounded(46_702_792_704), "47B");
        assert_eq!(rounded(1_000), "1.0K");
        assert_eq!(rounded(400), "0.40K");
    }
}
