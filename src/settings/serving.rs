//! What the environment says about how to serve: `NFL_*`, and `OLLAMA_*` where users have set these already.

/// A setting and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The variable.
    pub variable: String,
    /// Its value, without spaces around it.
    pub text: String,
}

impl Setting {
    /// Whether it was made for another program: then a value that means nothing here is no mistake.
    pub fn is_foreign(&self) -> bool {
        !self.variable.starts_with("NFL_")
    }
}

/// A setting of `nfl serve` by its name without prefix, such as `KEEP_ALIVE`; None where it is unset or empty.
pub fn serving(name: &str) -> Option<Setting> {
    ["NFL", "OLLAMA"].into_iter().find_map(|prefix| {
        let variable = format!("{prefix}_{name}");
        let text = std::env::var(&variable).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(Setting { variable, text })
    })
}
