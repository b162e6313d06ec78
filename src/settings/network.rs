//! What the environment says about the network: proxies, mirrors, tokens, and whether to use it at all.

use std::path::PathBuf;

/// The hub that is asked unless `HF_ENDPOINT` names a mirror.
const HUB: &str = "https://huggingface.co";

/// The address of the Hugging Face hub or its mirror, without a slash at the end.
pub fn hub_endpoint() -> String {
    let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned());
    endpoint.trim_end_matches('/').to_owned()
}

/// The token for that hub: `HF_TOKEN`, else the file that `hf auth login` writes.
pub fn hub_token() -> Option<String> {
    let from_file = || {
        let path = text("HF_TOKEN_PATH").map_or_else(
            || {
                let home = text("HF_HOME").map(PathBuf::from).or_else(|| {
                    let cache = text("XDG_CACHE_HOME").map(PathBuf::from);
                    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
                    Some(cache.join("huggingface"))
                })?;
                Some(home.join("token"))
            },
            |path| Some(PathBuf::from(path)),
        )?;
        std::fs::read_to_string(path).ok()
    };
    let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(from_file)?;
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// `NFL_REGISTRY_TOKEN`: who we are to one registry, `USER:PASSWORD@HOST` or `TOKEN@HOST`.
pub fn registry_token() -> Option<String> {
    text("NFL_REGISTRY_TOKEN")
}

/// The files in which logins to registries are kept, in the order in which they are asked: the one that
/// `REGISTRY_AUTH_FILE` names, else what `docker login` writes (below `DOCKER_CONFIG`) and what `podman login` does.
pub fn registry_login_files() -> Vec<PathBuf> {
    if let Some(file) = text("REGISTRY_AUTH_FILE") {
        return vec![PathBuf::from(file)];
    }
    let docker = text("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".docker")))
        .map(|folder| folder.join("config.json"));
    let podman = text("XDG_RUNTIME_DIR")
        .map(|folder| PathBuf::from(folder).join("containers").join("auth.json"));
    docker.into_iter().chain(podman).collect()
}

/// Whether `NFL_OFFLINE` (or `HF_HUB_OFFLINE`, which users of the hub have set) cuts all connections.
pub fn offline() -> bool {
    let is_on =
        |name| text(name).is_some_and(|value| !matches!(value.as_str(), "0" | "false" | "no"));
    is_on("NFL_OFFLINE") || is_on("HF_HUB_OFFLINE")
}

/// The proxy for a host, from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` as curl reads them: in lower case
/// too, and `HTTP_PROXY` only in lower case, because in upper case a web server's CGI sets it from a header.
pub fn proxy(scheme: &str, host: &str) -> Option<String> {
    let either = |name: &str| text(&name.to_lowercase()).or_else(|| text(name));
    if either("NO_PROXY").is_some_and(|list| is_exempt(&list, host)) {
        return None;
    }
    let own = match scheme {
        "https" => either("HTTPS_PROXY"),
        _ => text("http_proxy"),
    };
    own.or_else(|| either("ALL_PROXY"))
}

/// Whether a list of `NO_PROXY` names a host: itself, a domain that it is in, or `*`.
fn is_exempt(list: &str, host: &str) -> bool {
    let host = host.trim_matches(['[', ']']).to_lowercase();
    list.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty()).any(
        |entry| {
            let domain = entry.trim_start_matches("*.").trim_start_matches('.');
            entry == "*"
                || host == domain
                || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        },
    )
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemptions_name_hosts_and_domains() {
        for (list, host, exempt) in [
            ("localhost,127.0.0.1", "127.0.0.1", true),
            ("example.com", "hub.example.com", true),
            (".example.com", "hub.example.com", true),
            ("*.example.com", "example.com", true),
            ("example.com", "badexample.com", false),
            ("*", "anything", true),
            ("", "anything", false),
            ("::1", "[::1]", true),
        ] {
            assert_eq!(is_exempt(list, host), exempt, "{list} {host}");
        }
    }
}
