//! `config.json` with typed getters.
//!
//! Entries of `text_config` come before those of the top level, as in llama.cpp's converter: models
//! that also see or hear keep the numbers of their language part there.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use super::{CheckpointError, Folder};

/// Bytes of `config.json`. Real ones have up to some hundred kilobytes (lists of layers that stay
/// unquantised).
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The settings of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    entries: Map<String, Value>,
}

impl Config {
    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    /// When it is absent, too long or no JSON object.
    pub fn read(folder: &Folder) -> Result<Self, CheckpointError> {
        let value = folder
            .read_json("config.json", CONFIG_BYTES_MAX)?
            .ok_or_else(|| CheckpointError::NoConfig { directory: folder.path().to_path_buf() })?;
        Self::from_value(value)
    }

    /// Reads a `config.json` by whatever name, or that of a directory.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let absent = || CheckpointError::NotFound { path: path.to_path_buf() };
        // The user named this file, so it may be a link; what it leads to is read by its own name.
        let found = fs::canonicalize(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => absent(),
            _ => CheckpointError::io(path, error),
        })?;
        if found.is_dir() {
            return Self::read(&Folder::open(&found)?);
        }
        let name = found.file_name().and_then(OsStr::to_str);
        let (Some(parent), Some(name)) = (found.parent(), name) else { return Err(absent()) };
        let value = Folder::open(parent)?.read_json(name, CONFIG_BYTES_MAX)?;
        Self::from_value(value.ok_or_else(absent)?)
    }

    /// The settings in a JSON value, which must be an object, as must its `text_config` when
    /// present.
    ///
    /// # Errors
    /// When it is not.
    pub fn from_value(value: Value) -> Result<Self, CheckpointError> {
        match value {
            Value::Object(entries) => match entries.get("text_config") {
                None | Some(Value::Null | Value::Object(_)) => Ok(Self { entries }),
                Some(other) => Err(wrong("text_config", other, "an object")),
            },
            other => Err(wrong("the whole file", &other, "an object")),
        }
    }

    /// The entries of the top level as they stand in the file.
    pub fn entries(&self) -> &Map<String, Value> {
        &self.entries
    }

    /// The first name in `architectures`, that of `text_config` first.
    ///
    /// # Errors
    /// When there is none.
    pub fn architecture(&self) -> Result<&str, CheckpointError> {
        let list = self.array("architectures")?;
        list.first()
            .and_then(Value::as_str)
            .ok_or_else(|| wrong("architectures", &Value::Array(list.clone()), "a list of names"))
    }

    /// The entry `key`, `None` when it is absent or null.
    pub fn value(&self, key: &str) -> Option<&Value> {
        let inner = self.entries.get("text_config").and_then(|text| text.get(key));
        let present = |value: &&Value| !value.is_null();
        inner.filter(present).or_else(|| self.entries.get(key).filter(present))
    }

    /// An unsigned integer that must be there.
    ///
    /// # Errors
    /// When it is absent, negative, fractional or no number.
    pub fn u64(&self, key: &str) -> Result<u64, CheckpointError> {
        required(key, self.optional_u64(key)?)
    }

    /// An unsigned integer within `range` that must be there.
    ///
    /// # Errors
    /// When it is absent, no integer or out of range.
    pub fn within(&self, key: &str, range: RangeInclusive<u64>) -> Result<u64, CheckpointError> {
        let found = self.u64(key)?;
        if range.contains(&found) {
            return Ok(found);
        }
        let expected = format!("{} to {}", range.start(), range.end());
        Err(wrong(key, &Value::from(found), &expected))
    }

    /// An unsigned integer, `None` when absent or null.
    ///
    /// # Errors
    /// When it is negative, fractional or no number.
    pub fn optional_u64(&self, key: &str) -> Result<Option<u64>, CheckpointError> {
        self.typed(key, "an integer from 0", Value::as_u64)
    }

    /// A finite number that must be there.
    ///
    /// # Errors
    /// When it is absent or no number.
    pub fn f64(&self, key: &str) -> Result<f64, CheckpointError> {
        required(key, self.optional_f64(key)?)
    }

    /// A finite number, `None` when absent or null.
    ///
    /// # Errors
    /// When it is no number.
    pub fn optional_f64(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.typed(key, "a finite number", |value| value.as_f64().filter(|n| n.is_finite()))
    }

    /// True or false that must be there.
    ///
    /// # Errors
    /// When it is absent or neither.
    pub fn bool(&self, key: &str) -> Result<bool, CheckpointError> {
        required(key, self.optional_bool(key)?)
    }

    /// True or false, `None` when absent or null.
    ///
    /// # Errors
    /// When it is neither.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// When it is absent or no text.
    pub fn str(&self, key: &str) -> Result<&str, CheckpointError> {
        required(key, self.optional_str(key)?)
    }

    /// A text, `None` when absent or null.
    ///
    /// # Errors
    /// When it is no text.
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A list that must be there.
    ///
    /// # Errors
    /// When it is absent or no list.
    pub fn array(&self, key: &str) -> Result<&Vec<Value>, CheckpointError> {
        required(key, self.optional_array(key)?)
    }

    /// A list, `None` when absent or null.
    ///
    /// # Errors
    /// When it is no list.
    pub fn optional_array(&self, key: &str) -> Result<Option<&Vec<Value>>, CheckpointError> {
        self.typed(key, "a list", Value::as_array)
    }

    /// An object, such as `rope_scaling`, as settings of its own; `None` when absent or null.
    ///
    /// # Errors
    /// When it is no object.
    pub fn optional_object(&self, key: &str) -> Result<Option<Config>, CheckpointError> {
        let entries = self.typed(key, "an object", Value::as_object)?;
        Ok(entries.map(|entries| Config { entries: entries.clone() }))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong(key, value, expected)),
        }
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, CheckpointError> {
    value.ok_or_else(|| CheckpointError::SettingAbsent { key: key.to_owned() })
}

/// The error for a value that is not what it should be; long values are described, not printed.
pub(crate) fn wrong(key: &str, found: &Value, expected: &str) -> CheckpointError {
    const TEXT_SHOWN_MAX: usize = 60;
    let found = match found {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::String(text) if text.len() > TEXT_SHOWN_MAX => {
            format!("a text of {} bytes", text.len())
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    CheckpointError::Setting { key: key.to_owned(), found, expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> Config {
        Config::from_value(value).unwrap()
    }

    #[test]
    fn text_config_comes_first_and_null_counts_as_absent() {
        let config = config(json!({
            "hidden_size": 1, "vocab_size": 7, "architectures": ["Outer"],
            "text_config": {"hidden_size": 2, "vocab_size": null}
        }));
        assert_eq!(config.u64("hidden_size").unwrap(), 2);
        assert_eq!(config.u64("vocab_size").unwrap(), 7);
        assert_eq!(config.architecture().unwrap(), "Outer");
        assert_eq!(config.optional_u64("head_dim").unwrap(), None);
    }

    #[test]
    fn a_wrong_type_says_what_it_found_and_what_it_wanted() {
        let config = config(json!({
            "negative": -32, "fraction": 1.5, "word": "many", "huge": 1e300, "list": [1, 2, 3],
            "long": "x".repeat(100_000)
        }));
        let check = |error: CheckpointError, text: &str| assert_eq!(error.to_string(), text);
        check(
            config.u64("negative").unwrap_err(),
            "config.json: negative: -32, expected an integer from 0",
        );
        check(
            config.u64("fraction").unwrap_err(),
            "config.json: fraction: 1.5, expected an integer from 0",
        );
        check(
            config.u64("word").unwrap_err(),
            "config.json: word: \"many\", expected an integer from 0",
        );
        check(config.u64("none").unwrap_err(), "config.json: none: absent");
        check(
            config.bool("list").unwrap_err(),
            "config.json: list: a list of 3, expected true or false",
        );
        check(
            config.u64("long").unwrap_err(),
            "config.json: long: a text of 100000 bytes, expected an integer from 0",
        );
        assert!(config.u64("huge").is_err());
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        let config = config(json!({"num_hidden_layers": 4_000_000_000_u64}));
        let error = config.within("num_hidden_layers", 1..=512).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.json: num_hidden_layers: 4000000000, expected 1 to 512"
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for value in [json!([1]), json!("x"), json!({"text_config": 3})] {
            assert!(Config::from_value(value).is_err());
        }
    }
}
