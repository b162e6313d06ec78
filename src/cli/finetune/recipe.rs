//! Recipes: a file that says everything that a run is made of, so that it can be run again.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::settings::Settings;
use crate::cli::failure::Failure;
use crate::learn::{Identity, LearnError, outputs};

/// The recipe's name in a run's folder.
pub(super) const FILE: &str = "recipe.toml";

/// Bytes of a recipe that is read.
const BYTES_MAX: u64 = 1 << 20;

/// What a run is made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Recipe {
    /// The model's file or name.
    pub(super) model: Option<PathBuf>,
    /// The examples.
    pub(super) data: Option<PathBuf>,
    /// The numbers.
    pub(super) settings: Settings,
    /// SHA-256 of the base's weights and of the examples as tokens, where the recipe is of a run.
    pub(super) made_of: Option<(String, String)>,
}

impl Recipe {
    /// Reads a recipe; paths in it are from its own folder.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let refuse = |reason: &dyn std::fmt::Display| {
            let hint = "nfl finetune writes a recipe.toml into each run's folder; its keys are the flags' names";
            Failure::new(format!("{}: {reason}", path.display()), Some(hint))
        };
        let text = crate::term::read_text(path, BYTES_MAX).map_err(|error| refuse(&error))?;
        let mut table: Table =
            text.parse().map_err(|error: toml::de::Error| refuse(&error.message()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut file = |name: &str| match table.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(PathBuf::from(text))),
            Some(_) => Err(refuse(&format!("{name} is no text"))),
        };
        let (model, data) = (file("model")?, file("data")?.map(|data| folder.join(data)));
        let made_of = table.remove("made-of").and_then(|made_of| {
            let digest = |name: &str| made_of.get(name)?.as_str().map(str::to_owned);
            Some((digest("base")?, digest("data")?))
        });
        let mut settings: Settings =
            table.try_into().map_err(|error: toml::de::Error| refuse(&error.message()))?;
        settings.eval = settings.eval.map(|eval| folder.join(eval));
        Ok(Self { model, data, settings, made_of })
    }

    /// Writes it into a run's folder.
    pub(super) fn write(&self, folder: &Path, identity: &Identity) -> Result<(), LearnError> {
        let path = |path: &Path| Value::String(absolute(path).to_string_lossy().into_owned());
        let mut table = Table::new();
        table.extend(self.model.as_deref().map(|model| ("model".to_owned(), path(model))));
        table.extend(self.data.as_deref().map(|data| ("data".to_owned(), path(data))));
        let mut settings = self.settings.clone();
        settings.eval = settings.eval.map(|eval| absolute(&eval));
        table.extend(Table::try_from(&settings).expect("settings are plain values"));
        let made_of = [("base", &identity.base), ("data", &identity.data)];
        let made_of =
            made_of.map(|(name, digest)| (name.to_owned(), Value::String(digest.clone())));
        table.insert("made-of".to_owned(), Value::Table(made_of.into_iter().collect()));
        let text = format!(
            "# nfl finetune --recipe {FILE} --output DIR runs this again; flags come before what is here.\n{table}"
        );
        outputs::write(&folder.join(FILE), text.as_bytes())
    }

    /// What is not as it was when the recipe was written.
    pub(super) fn changes(&self, identity: &Identity) -> Vec<&'static str> {
        let Some((base, data)) = &self.made_of else { return Vec::new() };
        let parts = [(base, &identity.base, "weights"), (data, &identity.data, "examples")];
        parts.iter().filter(|(old, new, _)| old != new).map(|(.., what)| *what).collect()
    }
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_that_was_written_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let settings =
            Settings { rank: Some(4), rate: Some(1e-3), dpo: true, ..Settings::default() };
        let recipe = Recipe {
            model: Some("/m.gguf".into()),
            data: Some("/d.jsonl".into()),
            settings,
            made_of: None,
        };
        let [recipe_digest, data, base] = ["r", "d", "b"].map(str::to_owned);
        let identity = Identity { recipe: recipe_digest, data, base };
        recipe.write(folder.path(), &identity).unwrap();
        let read = Recipe::read(&folder.path().join(FILE)).unwrap();
        assert_eq!(read, Recipe { made_of: Some(("b".into(), "d".into())), ..recipe });
        assert_eq!(read.changes(&identity), [""; 0]);
        let other = Identity { data: "e".into(), ..identity };
        assert_eq!(read.changes(&other), ["examples"]);
    }

    #[test]
    fn what_no_recipe_has_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        for (text, reason) in
            [("rnak = 3", "rnak"), ("rank =", "rank"), ("data = 3", "data is no text")]
        {
            fs::write(&path, text).unwrap();
            let message = Recipe::read(&path).unwrap_err().message;
            assert!(message.contains(reason) || message.contains("r.toml"), "{text}: {message}");
        }
    }
}
