//! Reranking: how a query and a document become one text, and what the scores of a classifier stand for.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use nfl_models::gguf::Gguf;

use super::{LlamaError, Model, Token, TokenizeOptions, text};

/// Where a reranking model's file says how query and document are put together.
const TEMPLATE: &str = "tokenizer.chat_template.rerank";

/// The places of both in it.
const PLACES: [&str; 2] = ["{query}", "{document}"];

/// The tokens of a query and a document beside each other, as llama.cpp's server puts them: by the file's own template,
/// which then has all special tokens and whose texts may name some, too; else
/// `[begin] query [end] [separator] document [end]`, each special token only where the vocabulary asks for it.
pub fn pair(model: &Arc<Model>, query: &str, document: &str) -> Result<Vec<Token>, LlamaError> {
    let vocabulary = model.vocabulary();
    let template = model.metadata_of_any_length(TEMPLATE).filter(|template| !template.is_empty());
    if let Some(template) = template {
        let options = TokenizeOptions { add_special: false, parse_special: true };
        return vocabulary.tokenize(&filled(&template, [query, document]), options);
    }
    let (separator, end) = (vocabulary.separator(), vocabulary.end());
    let end = end.or(separator).ok_or(LlamaError::NoSeparator)?;
    let plain = TokenizeOptions { add_special: false, parse_special: false };
    let mut tokens = Vec::new();
    tokens.extend(vocabulary.begin().filter(|_| vocabulary.adds_begin()));
    tokens.extend(vocabulary.tokenize(query, plain)?);
    tokens.extend(vocabulary.adds_end().then_some(end));
    tokens.extend(separator.filter(|_| vocabulary.adds_separator()));
    tokens.extend(vocabulary.tokenize(document, plain)?);
    tokens.extend(vocabulary.adds_end().then_some(end));
    Ok(tokens)
}

/// A template with texts in its places; places that a text names stay as they are.
fn filled(template: &str, texts: [&str; 2]) -> String {
    let mut whole = String::new();
    let mut rest = template;
    loop {
        let next = PLACES.iter().zip(texts).filter_map(|(place, text)| {
            rest.find(place).map(|start| (start, start + place.len(), text))
        });
        let Some((start, end, text)) = next.min() else { return whole + rest };
        whole.push_str(&rest[..start]);
        whole.push_str(text);
        rest = &rest[end..];
    }
}

/// What the scores of a reranking model stand for, when its file names all of them.
pub fn labels(model: &Model) -> Vec<String> {
    let names = (0..model.classes() as u32).map(|class| {
        // SAFETY: the model is alive; unknown classes give null.
        text(unsafe { sys::llama_model_cls_label(model.as_ptr(), class) })
    });
    let names: Vec<String> = names.collect();
    if names.iter().any(String::is_empty) { Vec::new() } else { names }
}

/// How many scores the classifier of a file gives; None without a classifier.
pub fn classifier_scores(gguf: &Gguf) -> Option<u64> {
    let tensor = gguf.tensor("cls.output.weight").or_else(|| gguf.tensor("cls.weight"))?;
    // A single row may be stored as a vector.
    Some(tensor.dimensions.get(1).copied().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_once() {
        let fill = |template: &str| filled(template, ["{document}?", "a {query} b"]);
        assert_eq!(fill("Q: {query} D: {document}."), "Q: {document}? D: a {query} b.");
        assert_eq!(fill("{document}{query}{document}"), "a {query} b{document}?a {query} b");
        assert_eq!(fill("nothing {quer"), "nothing {quer");
    }
}
