//! What the environment says about who may ask a server.

/// Names by which a server may be asked: `NFL_HOSTS`, divided by commas.
pub fn allowed_hosts() -> Vec<String> {
    list("NFL_HOSTS").unwrap_or_default()
}

/// Origins of pages that may ask a server: `NFL_ORIGINS`, else `OLLAMA_ORIGINS`, divided by commas.
pub fn allowed_origins() -> Vec<String> {
    list("NFL_ORIGINS").or_else(|| list("OLLAMA_ORIGINS")).unwrap_or_default()
}

fn list(name: &str) -> Option<Vec<String>> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    Some(entries.map(str::to_owned).collect())
}
