//! Short names: what `qwen3:8b` stands for. Ours are embedded; a user's own file comes before them.

use std::path::Path;

use super::error::StoreError;
use super::files;
use super::reference::Reference;
use super::resolve::Wanted;

/// The user's own catalogue, in the home folder.
const FILE: &str = "catalogue.txt";

/// Bytes of the user's catalogue.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Short names and what they stand for.
#[derive(Debug)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

/// One short name.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name, with its tag.
    pub name: Reference,
    /// Where the model is: a full name or a web address.
    pub source: String,
}

impl Catalogue {
    /// The embedded catalogue behind that of the user's home folder.
    ///
    /// # Errors
    /// When the user's file cannot be read; the message says the line.
    pub fn read(home: &Path) -> Result<Self, StoreError> {
        let path = home.join(FILE);
        let mut entries = match files::read(&path, FILE_BYTES_MAX)? {
            Some(text) => parse(&String::from_utf8_lossy(&text), &path)?,
            None => Vec::new(),
        };
        entries.extend(parse(include_str!("../../assets/catalogue.txt"), Path::new("embedded"))?);
        Ok(Self { entries })
    }

    /// What a short name stands for: that name and tag, or without a tag the first of that name. `None` for a name that is
    /// not in it, or that has a host.
    pub fn find(&self, name: &Reference) -> Option<&Entry> {
        let same_name =
            |each: &&Entry| each.name.repository().eq_ignore_ascii_case(&name.repository());
        self.entries.iter().find(|each| each.name == *name).or_else(|| {
            let is_untagged = name.host().is_none() && name.has_default_tag();
            self.entries.iter().filter(same_name).find(|_| is_untagged)
        })
    }

    /// All entries, the user's first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The short name that was probably meant.
    pub fn nearest(&self, name: &Reference) -> Option<String> {
        let names: Vec<String> = self.entries.iter().map(|each| each.name.to_string()).collect();
        let found = nfl_models::nearest(&name.to_string(), names.iter().map(String::as_str));
        found.map(str::to_owned)
    }
}

fn parse(text: &str, path: &Path) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let broken = |reason: &str| StoreError::Catalogue {
            path: path.to_owned(),
            line: number,
            reason: reason.to_owned(),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, source] = words[..] else { return Err(broken("it is not NAME SOURCE")) };
        let name: Reference =
            name.parse().map_err(|error: StoreError| broken(&error.to_string()))?;
        match Wanted::of(source).map_err(|error| broken(&error.to_string()))? {
            Wanted::Name(found) if found.host().is_none() => {
                return Err(broken("the source has no host"));
            }
            _ => entries.push(Entry { name, source: source.to_owned() }),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use super::*;

    #[test]
    fn ours_is_sound_and_the_users_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let ours = Catalogue::read(home.path()).unwrap();
        let names: HashSet<String> = ours.entries().iter().map(|each| each.name.key()).collect();
        assert_eq!(names.len(), ours.entries().len(), "a name twice");
        let find = |catalogue: &Catalogue, text: &str| {
            catalogue.find(&text.parse().unwrap()).map(|entry| entry.source.clone())
        };
        let eight = Some("hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M".to_owned());
        assert_eq!(find(&ours, "Qwen3"), eight);
        assert_eq!(find(&ours, "qwen3:8B"), eight);
        assert_eq!(find(&ours, "qwen3:9b"), None);
        assert_eq!(find(&ours, "hf.co/a/qwen3"), None);
        assert_eq!(ours.nearest(&"qwen3:30b-a3".parse().unwrap()).unwrap(), "qwen3:30b-a3b");
        let file = home.path().join(FILE);
        fs::write(&file, "# mine\nqwen3:mine  localhost:5000/me/q:x # tuned\n").unwrap();
        let mine = Catalogue::read(home.path()).unwrap();
        assert_eq!(find(&mine, "qwen3").unwrap(), "localhost:5000/me/q:x");
        for bad in ["qwen3", "qwen3 a b", "../x hf.co/a/b", "a b", "a hf.co/../b"] {
            fs::write(&file, format!("\n{bad}")).unwrap();
            let error = Catalogue::read(home.path()).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }
}
