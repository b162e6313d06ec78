//! Models by the names that Ollama's clients give them.

use super::super::Server;
use super::super::problem::{Kind, Problem};
use super::refuse;
use super::wire::Details;
use crate::chat::pool::Ask;
use crate::engine::runner::Cancel;
use crate::store::{Capability, Manifest, Reference, Store, Wanted};

/// What names of Ollama's library may begin with.
const LIBRARY: [&str; 2] = ["registry.ollama.ai/library/", "library/"];

/// A name: never a path or an address, which are nobody's business over a network.
pub(super) fn name(text: &str) -> Option<Reference> {
    match Wanted::of(text) {
        Ok(Wanted::Name(name)) => Some(name),
        _ => None,
    }
}

/// A name with its tag, as Ollama writes names.
pub(super) fn full(name: &Reference) -> String {
    if name.has_default_tag() { format!("{name}:{}", name.tag()) } else { name.to_string() }
}

/// The stored model of a name; one of Ollama's library goes by its short name too.
pub(super) fn find(store: &Store, text: &str) -> Result<Manifest, Problem> {
    let missing = || refuse::no_model(text);
    let short = LIBRARY.iter().find_map(|prefix| text.strip_prefix(prefix));
    for each in [Some(text), short].into_iter().flatten() {
        if let Some(manifest) = store.read(&name(each).ok_or_else(missing)?)? {
            return Ok(manifest);
        }
    }
    Err(missing())
}

/// A model that is about to be asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) manifest: Manifest,
    /// The name as the client wrote it.
    pub(super) name: String,
}

impl Asked {
    /// Finds the model that a request names.
    pub(super) fn find(server: &Server, name: &str) -> Result<Self, Problem> {
        let manifest = find(&server.pool.store()?, name)?;
        Ok(Self { manifest, name: name.to_owned() })
    }

    /// Whether the model can do something.
    pub(super) fn can(&self, capability: Capability) -> bool {
        self.manifest.facts.capabilities.contains(&capability)
    }

    /// Refuses what the model cannot do.
    pub(super) fn must(&self, capability: Capability) -> Result<(), Problem> {
        if self.can(capability) {
            return Ok(());
        }
        let name = full(&self.manifest.name);
        Err(Problem::invalid(format!("{name} does not support {}", capability.name())))
    }

    /// Refuses what only some models can do, with Ollama's quotation marks.
    pub(super) fn cannot(&self, what: &str) -> Problem {
        Problem::invalid(format!("\"{}\" does not support {what}", self.name))
    }

    /// The question to the pool, without anything special.
    pub(super) fn ask(&self) -> Ask {
        Ask { cancel: Cancel::default(), ..Ask::new(self.manifest.name.to_string()) }
    }
}

/// The name of a request's `model`, or of `name` as it was once called.
pub(super) fn named(model: Option<String>, name: Option<String>) -> Option<String> {
    model.filter(|text| !text.is_empty()).or(name.filter(|text| !text.is_empty()))
}

/// A valid name, or Ollama's words for one that is none.
pub(super) fn valid(text: &str) -> Result<Reference, Problem> {
    name(text).ok_or_else(|| Problem::new(Kind::Invalid, "invalid model name"))
}

/// What is told of every model.
pub(super) fn details(manifest: &Manifest) -> Details {
    let facts = &manifest.facts;
    let family = facts.architecture.clone().unwrap_or_default();
    Details {
        parent_model: String::new(),
        format: "gguf",
        families: if family.is_empty() { Vec::new() } else { vec![family.clone()] },
        family,
        parameter_size: facts.parameters.map(size).unwrap_or_default(),
        quantization_level: facts.level.clone().unwrap_or_else(|| "unknown".to_owned()),
        context_length: facts.context,
        embedding_length: facts.embedding,
    }
}

/// What a model can do, by name.
pub(super) fn capabilities(manifest: &Manifest) -> Vec<&'static str> {
    let known = manifest.facts.capabilities.iter().filter(|each| **each != Capability::Unknown);
    known.map(|each| each.name()).collect()
}

/// A number of weights as Ollama writes it: `7.6B`, `494.03M`, `293K`.
fn size(parameters: u64) -> String {
    let number = parameters as f64;
    let whole = |unit: f64| number % unit == 0.0;
    match parameters {
        1_000_000_000.. if whole(1e9) => format!("{:.0}B", number / 1e9),
        1_000_000_000.. => format!("{:.1}B", number / 1e9),
        1_000_000.. if whole(1e6) => format!("{:.0}M", number / 1e6),
        1_000_000.. => format!("{:.2}M", number / 1e6),
        1_000.. => format!("{:.0}K", number / 1e3),
        _ => parameters.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_have_tags() {
        assert_eq!(full(&name("qwen3").unwrap()), "qwen3:latest");
        assert_eq!(full(&name("hf.co/a/b:Q8_0").unwrap()), "hf.co/a/b:Q8_0");
        for text in ["/etc/passwd", "./x", "x.gguf", "https://a/b", "a b", "", "file:/x"] {
            assert_eq!(name(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_of_weights_are_short() {
        for (parameters, text) in [
            (7_615_616_512, "7.6B"),
            (8_000_000_000, "8B"),
            (494_032_768, "494.03M"),
            (137_000_000, "137M"),
            (292_800, "293K"),
            (32, "32"),
        ] {
            assert_eq!(size(parameters), text);
        }
    }
}
