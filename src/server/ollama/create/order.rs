//! What a request to make a model asks for, checked before anything is done.

use nfl_models::Level;
use nfl_models::template::ChatTemplate;
use serde_json::{Map, Value};

use super::super::super::problem::Problem;
use super::super::blobs;
use super::super::{model, wire};
use crate::store::{Digest, Modelfile, Parameters, Reference, is_for_go};

/// A model to make.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) name: Reference,
    /// The model that it is made from; the files below when there is none.
    pub(super) from: Option<String>,
    /// Names and contents, by name.
    pub(super) files: Vec<(String, Digest)>,
    pub(super) adapters: Vec<(String, Digest)>,
    /// What the weights become.
    pub(super) level: Option<Level>,
    /// All the rest.
    pub(super) modelfile: Modelfile,
}

impl Order {
    /// Checks what a client sent.
    pub(super) fn read(sent: wire::Create) -> Result<Self, Problem> {
        let files = files(sent.files)?;
        let adapters = files_of(sent.adapters)?;
        let name = model::named(sent.model, sent.name).unwrap_or_default();
        let name = model::valid(&name)?;
        for (what, is_there) in [
            ("draft_files", sent.draft_files.is_some_and(|files| !files.is_empty())),
            ("draft_quantize", sent.draft_quantize.is_some_and(|text| !text.is_empty())),
            ("info", sent.info.is_some_and(|info| !info.is_empty())),
        ] {
            if is_there {
                return Err(Problem::invalid(format!("{what} is not supported")));
            }
        }
        if sent.remote_host.is_some_and(|host| !host.is_empty()) {
            return Err(Problem::invalid("remote_host: models of other servers are not supported"));
        }
        let from = sent.from.filter(|from| !from.is_empty());
        if let Some(from) = &from {
            model::valid(from)?;
        }
        if from.is_none() && files.is_none() {
            return Err(Problem::invalid("neither 'from' or 'files' was specified"));
        }
        let level = sent.quantize.or(sent.quantization).filter(|text| !text.is_empty());
        let level = level.map(|text| {
            let unknown = |_| Problem::invalid(format!("unsupported quantization type: {text:?}"));
            text.parse::<Level>().map_err(unknown)
        });
        let template = sent.template.filter(|text| !text.is_empty());
        if let Some(text) = template.as_ref().filter(|text| !is_for_go(text)) {
            ChatTemplate::parse(text)
                .map_err(|error| Problem::invalid(format!("template error: {error}")))?;
        }
        let source = |files: &Option<Vec<(String, Digest)>>| {
            files.iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        let modelfile = Modelfile {
            from: from.clone().map_or_else(|| source(&files), |from| vec![from]),
            adapters: adapters.iter().map(|(name, _)| name.clone()).collect(),
            parameters: parameters(sent.parameters)?,
            template,
            system: sent.system.filter(|text| !text.is_empty()),
            messages: messages(sent.messages)?,
            licences: licences(sent.license)?,
            requires: sent.requires.filter(|text| !text.is_empty()),
            renderer: sent.renderer.filter(|text| !text.is_empty()),
            parser: sent.parser.filter(|text| !text.is_empty()),
        };
        let (files, level) = (files.unwrap_or_default(), level.transpose()?);
        Ok(Self { name, from, files, adapters, level, modelfile })
    }
}

fn files(sent: Option<Map<String, Value>>) -> Result<Option<Vec<(String, Digest)>>, Problem> {
    sent.map(|files| files_of(Some(files))).transpose()
}

/// Names and contents, by name; names are those of files in one folder.
fn files_of(sent: Option<Map<String, Value>>) -> Result<Vec<(String, Digest)>, Problem> {
    let file = |(name, digest): (String, Value)| {
        let is_relative = !name.is_empty()
            && !name.contains(['\\', ':', '\0'])
            && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_relative {
            return Err(Problem::invalid("file path must be relative"));
        }
        let digest = blobs::read(digest.as_str().unwrap_or_default())?;
        Ok((name, digest))
    };
    let mut files: Vec<_> =
        sent.unwrap_or_default().into_iter().map(file).collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}

fn parameters(sent: Option<Map<String, Value>>) -> Result<Parameters, Problem> {
    let mut parameters = Parameters::default();
    for (name, value) in sent.unwrap_or_default() {
        let values = match value {
            Value::Null => continue,
            Value::Array(values) => values,
            single => vec![single],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            parameters.set(&name, &text).map_err(Problem::invalid)?;
        }
    }
    Ok(parameters)
}

fn licences(sent: Option<Value>) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::invalid("license must be a text or several");
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong()),
    };
    let texts: Vec<String> = match sent {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(texts)) => texts.into_iter().map(text).collect::<Result<_, _>>()?,
        Some(single) => vec![text(single)?],
    };
    Ok(texts.into_iter().filter(|text| !text.is_empty()).collect())
}

fn messages(sent: Option<Vec<wire::Message>>) -> Result<Vec<(String, String)>, Problem> {
    let message = |message: wire::Message| {
        let role = message.role.to_lowercase();
        if !matches!(role.as_str(), "system" | "user" | "assistant") {
            return Err(Problem::invalid(format!("invalid role: {:?}", message.role)));
        }
        Ok((role, message.content))
    };
    sent.unwrap_or_default().into_iter().map(message).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn refusals_are_ollamas() {
        let digest = Digest::of(b"x").to_string();
        for (sent, words) in [
            (json!({"model": "m"}), "neither 'from' or 'files' was specified"),
            (json!({"model": "../m", "from": "a"}), "invalid model name"),
            (json!({"from": "a"}), "invalid model name"),
            (json!({"model": "m", "from": "/etc/passwd"}), "invalid model name"),
            (json!({"model": "m", "files": {"a.gguf": ""}}), "invalid digest format"),
            (json!({"model": "m", "files": {"a.gguf": "sha256:x"}}), "invalid digest format"),
            (json!({"model": "m", "files": {"../a": &digest}}), "file path must be relative"),
            (json!({"model": "m", "files": {"/a": &digest}}), "file path must be relative"),
            (json!({"model": "m", "adapters": {"a": ""}, "from": "a"}), "invalid digest format"),
            (
                json!({"model": "m", "from": "a", "quantize": "q9"}),
                "unsupported quantization type: \"q9\"",
            ),
            (json!({"model": "m", "from": "a", "license": 1}), "license must be a text or several"),
        ] {
            let sent: wire::Create = serde_json::from_value(sent).unwrap();
            assert_eq!(Order::read(sent).unwrap_err().message, words);
        }
        let bad = json!({"model": "m", "from": "a", "template": "{% if %}"});
        let problem = Order::read(serde_json::from_value(bad).unwrap()).unwrap_err();
        assert!(problem.message.starts_with("template error: "), "{}", problem.message);
    }

    #[test]
    fn what_is_asked_becomes_a_modelfile() {
        let sent = json!({"name": "m", "from": "a", "license": ["x", "y"], "system": "s",
            "parameters": {"temperature": 1, "stop": ["a", "b"], "num_ctx": 64},
            "messages": [{"role": "User", "content": "hi"}], "quantize": "q8_0",
            "template": "{{ .Prompt }}"});
        let order = Order::read(serde_json::from_value(sent).unwrap()).unwrap();
        let modelfile = &order.modelfile;
        assert_eq!((order.name.to_string().as_str(), order.level), ("m", Some(Level::Q8_0)));
        assert_eq!(modelfile.licences, ["x", "y"]);
        assert_eq!(modelfile.parameters.texts("stop"), ["a", "b"]);
        assert_eq!(modelfile.parameters.integer("num_ctx"), Some(64));
        assert_eq!(modelfile.messages, [("user".to_owned(), "hi".to_owned())]);
        assert_eq!(modelfile.template.as_deref(), Some("{{ .Prompt }}"));
    }
}
