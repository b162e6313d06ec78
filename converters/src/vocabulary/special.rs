//! Special tokens and the tokenizer's flags: which ids begin, end, separate and pad, and which of them the
//! tokenizer adds by itself.
//!
//! The rules are those of `gguf-py`'s `SpecialVocab`, order included: the post-processor of `tokenizer.json` first,
//! then `tokenizer_config.json` (its names become ids through the added tokens of `tokenizer.json`), then the ids of
//! `config.json`. What remains unknown after that and would leave a model without an end is looked up in
//! `special_tokens_map.json` and `generation_config.json`, which upstream does not read.

use nfl_models::gguf::Metadata;
use serde_json::Value;

use super::files::Object;
use super::json::{AddedToken, TokenizerJson};

/// The roles that are looked for, in the order in which they are written.
pub(super) const ROLES: [&str; 7] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];

/// Ids by role, flags by role, normalizer flags; all in the order in which they were found.
#[derive(Default, Debug)]
pub(super) struct SpecialTokens {
    roles: Vec<String>,
    size: Option<usize>,
    ids: Vec<(String, u64)>,
    flags: Vec<(String, bool)>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
}

impl SpecialTokens {
    /// `size`: ids from there on are left out.
    pub(super) fn new(roles: &[&str], size: Option<usize>) -> Self {
        let roles = roles.iter().map(|&role| role.to_owned()).collect();
        Self { roles, size, ..Self::default() }
    }

    /// Reads the roles from the files' contents. `tokenizer_config` is changed where the post-processor knows better.
    pub(super) fn read(
        &mut self,
        tokenizer: Option<&TokenizerJson>,
        tokenizer_config: Option<&Object>,
        config: Option<&Object>,
        warnings: &mut Vec<String>,
    ) {
        // An empty configuration counts as none, as upstream.
        let mut tokenizer_config = tokenizer_config.filter(|config| !config.is_empty()).cloned();
        if let Some(tokenizer) = tokenizer {
            self.read_normalizer(&tokenizer.normalizer);
            Template::new(self, tokenizer_config.as_mut(), warnings)
                .read(&tokenizer.post_processor);
        }
        if let Some(tokenizer_config) = &tokenizer_config {
            let added = tokenizer.map_or(&[][..], |tokenizer| &tokenizer.added);
            self.read_tokenizer_config(tokenizer_config, added, warnings);
        }
        if let Some(config) = config {
            self.read_config(config, warnings);
        }
    }

    /// Sets the id of a role, unless it has one already.
    pub(super) fn set(&mut self, role: &str, id: u64, warnings: &mut Vec<String>) {
        if self.size.is_some_and(|size| id >= size as u64) {
            warnings.push(format!("{role} token: id {id} is out of range and was left out"));
        } else if !self.has(role) {
            self.ids.push((role.to_owned(), id));
        }
    }

    pub(super) fn has(&self, role: &str) -> bool {
        self.ids.iter().any(|(known, _)| known == role)
    }

    fn set_value(&mut self, role: &str, value: Option<&Value>, warnings: &mut Vec<String>) {
        match value.and_then(Value::as_i64).map(u64::try_from) {
            Some(Ok(id)) => self.set(role, id, warnings),
            // Some early checkpoints say -1 where they mean "none".
            Some(Err(_)) => warnings.push(format!("{role} token: a negative id was left out")),
            None => {}
        }
    }

    fn flag(&self, role: &str) -> Option<bool> {
        self.flags.iter().find(|(known, _)| known == role).map(|(_, flag)| *flag)
    }

    fn set_flag(&mut self, role: &str, flag: bool) {
        match self.flags.iter_mut().find(|(known, _)| known == role) {
            Some((_, known)) => *known = flag,
            None => self.flags.push((role.to_owned(), flag)),
        }
    }

    fn read_normalizer(&mut self, normalizer: &Value) {
        let flag = |name: &str| normalizer.get(name).and_then(Value::as_bool);
        match normalizer.get("type").and_then(Value::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                self.lowercase = flag("lowercase").or(self.lowercase);
                self.strip_accents = flag("strip_accents").or(self.strip_accents);
            }
            Some("Sequence") => {
                for step in
                    normalizer.get("normalizers").and_then(Value::as_array).into_iter().flatten()
                {
                    self.read_normalizer(step);
                }
            }
            _ => {}
        }
    }

    fn read_tokenizer_config(
        &mut self,
        config: &Object,
        added: &[AddedToken],
        warnings: &mut Vec<String>,
    ) {
        for role in self.roles.clone() {
            if let Some(flag) = config.get(&format!("add_{role}_token")).and_then(Value::as_bool) {
                match self.flag(&role) {
                    None => self.set_flag(&role, flag),
                    Some(known) if known != flag => warnings.push(format!(
                        "add_{role}_token: tokenizer_config.json says {flag}, the post-processor of \
                         tokenizer.json says {known}; the latter was taken"
                    )),
                    Some(_) => {}
                }
            }
            let Some(content) = content_of(config.get(&format!("{role}_token"))) else { continue };
            if let Some(token) = added.iter().find(|token| token.content == content) {
                self.set(&role, token.id, warnings);
            }
        }
    }

    fn read_config(&mut self, config: &Object, warnings: &mut Vec<String>) {
        for role in self.roles.clone() {
            let name = format!("{role}_token_id");
            let id = config.get(&name).filter(|id| !id.is_null()).or_else(|| {
                config.get("text_config").and_then(|text_config| text_config.get(&name))
            });
            self.set_value(&role, id, warnings);
        }
    }

    /// Appends ids and flags for which llama.cpp has a key.
    pub(super) fn write(&self, metadata: &mut Metadata) {
        for (role, id) in &self.ids {
            let name = match role.as_str() {
                "bos" | "eos" | "eot" | "eom" | "mask" => role.as_str(),
                "unk" => "unknown",
                // The key's own spelling.
                "sep" => "seperator",
                "pad" => "padding",
                _ => continue,
            };
            if let Ok(id) = u32::try_from(*id) {
                metadata.set(format!("tokenizer.ggml.{name}_token_id"), id);
            }
        }
        for (role, flag) in &self.flags {
            if matches!(role.as_str(), "bos" | "eos" | "sep") {
                metadata.set(format!("tokenizer.ggml.add_{role}_token"), *flag);
            }
        }
    }

    /// Appends the normalizer's flags, which stand after the chat template.
    pub(super) fn write_normalizer(&self, metadata: &mut Metadata) {
        if let Some(lowercase) = self.lowercase {
            metadata.set("tokenizer.ggml.normalizer.lowercase", lowercase);
        }
        if let Some(strip_accents) = self.strip_accents {
            metadata.set("tokenizer.ggml.normalizer.strip_accents", strip_accents);
        }
    }
}

/// The text of a token that is given as a string or as an object.
pub(super) fn content_of(token: Option<&Value>) -> Option<&str> {
    match token? {
        Value::String(text) => Some(text),
        token => token.get("content")?.as_str(),
    }
}

/// The reading of the post-processor: which special tokens it puts around a text.
struct Template<'a> {
    tokens: &'a mut SpecialTokens,
    config: Option<&'a mut Object>,
    warnings: &'a mut Vec<String>,
    bos: Value,
    eos: Value,
    cls: Value,
    sep: Value,
}

impl<'a> Template<'a> {
    fn new(
        tokens: &'a mut SpecialTokens,
        mut config: Option<&'a mut Object>,
        warnings: &'a mut Vec<String>,
    ) -> Self {
        let mut get = |role: &str| {
            let token = config.as_mut().and_then(|config| config.get(&format!("{role}_token")));
            token.cloned().unwrap_or_default()
        };
        let (bos, eos, cls, sep) = (get("bos"), get("eos"), get("cls"), get("sep"));
        let mut template = Self { tokens, config, warnings, bos, eos, cls, sep };
        if !is_given(&template.bos) && is_given(&template.cls) {
            template.set_bos(template.cls.clone());
        }
        if !is_given(&template.eos) && is_given(&template.sep) {
            template.set_eos(template.sep.clone());
        }
        template
    }

    fn configure(&mut self, role: &str, token: &Value) {
        if let Some(config) = &mut self.config {
            config.insert(format!("{role}_token"), token.clone());
        }
    }

    fn set_bos(&mut self, token: Value) {
        self.configure("bos", &token);
        self.bos = token;
    }

    fn set_eos(&mut self, token: Value) {
        self.configure("eos", &token);
        self.eos = token;
    }

    fn set_cls(&mut self, token: Value) {
        self.configure("cls", &token);
        self.cls = token;
    }

    fn read(&mut self, post_processor: &Value) {
        let single = std::slice::from_ref(post_processor);
        let processors = post_processor.get("processors").and_then(Value::as_array);
        for processor in processors.map_or(single, Vec::as_slice) {
            match processor.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => {
                    for role in ["bos", "eos"] {
                        if self.tokens.flag(role).is_none() {
                            self.tokens.set_flag(role, false);
                        }
                    }
                }
                Some("RobertaProcessing") => self.read_roberta(processor),
                Some("TemplateProcessing") => self.read_template(processor),
                _ => {}
            }
        }
    }

    fn read_roberta(&mut self, processor: &Value) {
        for role in ["bos", "eos", "sep"] {
            self.tokens.set_flag(role, true);
        }
        let first = |name: &str| processor.get(name).and_then(|token| token.get(0)).cloned();
        if self.config.is_some() && !is_given(&self.cls) {
            let cls = first("cls").unwrap_or_else(|| self.bos.clone());
            self.set_cls(cls);
        }
        if self.config.is_some() && !is_given(&self.sep) {
            self.sep = first("sep").unwrap_or_else(|| self.eos.clone());
            self.configure("sep", &self.sep.clone());
        }
    }

    fn read_template(&mut self, processor: &Value) {
        let list = |name: &str| {
            processor.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
        };
        let (single, pair) = (list("single"), list("pair"));
        let (mut first, mut last) = (None, None);
        if single.len() > 1 {
            first = single.first().and_then(special_of);
            last = single.last().and_then(special_of);
        }
        if let Some(first) = first {
            self.read_first(first);
        }
        if let Some(last) = last {
            self.read_last(last);
        }
        self.read_pair(pair, first, last);
    }

    fn read_first(&mut self, first: &str) {
        let token = Value::from(first);
        if self.config.is_none() {
            self.bos = token.clone();
        } else if token != self.bos && token != self.cls {
            if !is_given(&self.bos) {
                self.set_bos(token.clone());
            }
            if !is_given(&self.cls) {
                self.set_cls(token.clone());
            }
        }
        let known = token == self.bos || token == self.cls;
        self.tokens.set_flag("bos", known);
        if !known {
            self.warn(&format!("unknown special token {first:?} before the text"));
        }
    }

    fn read_last(&mut self, last: &str) {
        let token = Value::from(last);
        if self.config.is_none() {
            self.eos = token;
        } else if token != self.eos {
            // The configured end of text becomes the end of turn (or message), the template's the end of text.
            let roles = &mut self.tokens.roles;
            let free =
                ["eot", "eom"].into_iter().find(|free| !roles.iter().any(|role| role == free));
            match free {
                Some(role) => {
                    roles.push(role.to_owned());
                    self.configure(role, &self.eos.clone());
                }
                None => self.warn(&format!("end of text {} was replaced by {last:?}", self.eos)),
            }
            self.set_eos(token);
        }
        self.tokens.set_flag("eos", true);
    }

    /// The template of two texts tells whether a separator stands between them: `A [sep] [eos] B`.
    fn read_pair(&mut self, pair: &[Value], first: Option<&str>, last: Option<&str>) {
        let mut inner = pair;
        let starts = first.is_some() && pair.first().and_then(special_of) == first;
        let stops = last.is_some() && pair.last().and_then(special_of) == last;
        if !pair.is_empty() && ((first.is_some() && !starts) || (last.is_some() && !stops)) {
            self.warn("the templates of one text and of two texts differ");
        }
        inner = if starts { &inner[1..] } else { inner };
        inner = if stops && !inner.is_empty() { &inner[..inner.len() - 1] } else { inner };
        let [text_a, between @ .., text_b] = inner else { return };
        if sequence_of(text_a) != Some("A") || sequence_of(text_b) != Some("B") {
            self.warn("a template of two texts that are not A and B");
            return;
        }
        let Some(separator) = between.first() else { return };
        let separates = |special: Option<&str>| {
            special.is_some_and(|special| self.sep == special || self.eos == special)
        };
        let mut add = separates(special_of(separator)) && last.is_none();
        if let [_, second] = between {
            add |= separates(special_of(second));
        }
        self.tokens.set_flag("sep", add);
        if add && !is_given(&self.sep) {
            self.configure("sep", &self.eos.clone());
        }
    }

    fn warn(&mut self, what: &str) {
        self.warnings.push(format!("post-processor of tokenizer.json: {what}"));
    }
}

/// Whether a token of the configuration says something: neither missing, nor null, nor empty.
fn is_given(token: &Value) -> bool {
    match token {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

fn special_of(step: &Value) -> Option<&str> {
    step.get("SpecialToken")?.get("id")?.as_str().filter(|id| !id.is_empty())
}

fn sequence_of(step: &Value) -> Option<&str> {
    step.get("Sequence")?.get("id")?.as_str()
}
