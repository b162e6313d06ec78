//! The metadata of a GGUF file: entries in the file's order, each with its exact type, keys unique.

use std::collections::HashMap;

use super::value::{Array, Value};

/// Ordered metadata with unique keys.
#[derive(Clone, Default, Debug)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Metadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&place| &self.entries[place].1)
    }

    /// Replaces the value in its place, or appends the entry.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        if let Some(&place) = self.index.get(&key) {
            self.entries[place].1 = value;
        } else {
            self.index.insert(key.clone(), self.entries.len());
            self.entries.push((key, value));
        }
    }

    /// Takes an entry out; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.index.remove(key)?;
        for later in self.index.values_mut().filter(|later| **later > place) {
            *later -= 1;
        }
        Some(self.entries.remove(place).1)
    }

    /// Entries in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A number, from any integer type that fits.
    pub fn u32(&self, key: &str) -> Option<u32> {
        self.u64(key)?.try_into().ok()
    }

    /// A number, from any integer type that fits.
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// A number, from either float type.
    pub fn f32(&self, key: &str) -> Option<f32> {
        self.get(key)?.as_f32()
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A string that is UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// An array.
    pub fn array(&self, key: &str) -> Option<&Array> {
        self.get(key)?.as_array()
    }

    /// `general.architecture`: the name that the other keys are prefixed with.
    pub fn architecture(&self) -> Option<&str> {
        self.text("general.architecture")
    }

    /// The value of `{architecture}.{suffix}`.
    pub fn arch(&self, suffix: &str) -> Option<&Value> {
        self.get(&format!("{}.{suffix}", self.architecture()?))
    }
}

/// Same entries in the same order.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut metadata = Self::new();
        for (key, value) in entries {
            metadata.set(key, value);
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_replacing_and_removing() {
        let mut metadata: Metadata =
            [("c", 1_u32), ("a", 2), ("b", 3), ("d", 4)].into_iter().collect();
        metadata.set("a", "two");
        assert_eq!(metadata.remove("c"), Some(Value::U32(1)));
        assert_eq!(metadata.remove("c"), None);
        let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "b", "d"]);
        assert_eq!(metadata.text("a"), Some("two"));
        assert_eq!(metadata.u32("b"), Some(3));
        assert_eq!(metadata.u64("d"), Some(4));
    }

    #[test]
    fn numbers_come_from_any_integer_type_that_fits() {
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", "llama");
        metadata.set("llama.block_count", 5_i64);
        metadata.set("negative", -1_i32);
        metadata.set("large", u64::MAX);
        assert_eq!(metadata.arch("block_count").and_then(Value::as_u64), Some(5));
        assert_eq!(metadata.u32("llama.block_count"), Some(5));
        assert_eq!(metadata.u32("negative"), None);
        assert_eq!(metadata.u32("large"), None);
        assert_eq!(metadata.f32("negative"), None);
    }
}
