//! Who we are to a registry: what `NFL_REGISTRY_TOKEN` says, or what `docker login` and `podman login` have kept.
//!
//! Nothing is read before a registry asks for it. A login belongs to the host that it was given for and is found by
//! nothing but that host's name and port.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::super::error::HubError;
use super::super::secret::Secret;
use crate::settings;

/// Bytes of a file of logins, and of a helper's answer.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The registry of Docker's hub, and how files of logins call it.
const DOCKER_HUB: [&str; 3] = ["docker.io", "registry-1.docker.io", "index.docker.io"];

/// The user that stands for a token which is exchanged for others.
const TOKEN_USER: &str = "<token>";

/// What proves who we are to one registry.
#[derive(PartialEq, Eq)]
pub(super) enum Login {
    /// A user and a password (or what stands for one).
    Password(String, String),
    /// A token that the registry's token service exchanges for short-lived ones (OAuth 2's refresh token).
    Identity(String),
    /// A token that the registry itself takes.
    Token(Secret),
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Login(…)")
    }
}

/// What Docker's and Podman's files hold of one registry.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Entry {
    /// USER:PASSWORD in base64.
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Logins {
    auths: HashMap<String, Entry>,
    /// The program that keeps the logins of one host.
    cred_helpers: HashMap<String, String>,
    /// The program that keeps all others.
    creds_store: String,
}

/// What a helper knows of a registry.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Login {
    /// The login for the registry at `host` (with its port when that is not the usual one), where there is one.
    pub(super) fn of(host: &str) -> Result<Option<Self>, HubError> {
        if let Some(text) = settings::registry_token() {
            let (login, place) = in_environment(&text)?;
            if is_host(place, host) {
                return Ok(Some(login));
            }
        }
        for path in settings::registry_login_files() {
            if let Some(login) = in_file(&path, host)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    fn of_user(user: &str, password: &str) -> Self {
        match user {
            TOKEN_USER => Self::Identity(password.to_owned()),
            _ => Self::Password(user.to_owned(), password.to_owned()),
        }
    }
}

/// `USER:PASSWORD@HOST` or `TOKEN@HOST`, as login and host.
fn in_environment(text: &str) -> Result<(Login, &str), HubError> {
    let wrong = || HubError::Logins {
        place: "NFL_REGISTRY_TOKEN".to_owned(),
        reason: "it is not USER:PASSWORD@HOST or TOKEN@HOST".to_owned(),
    };
    // Passwords may hold an @, hosts do not.
    let (login, host) = text.rsplit_once('@').ok_or_else(wrong)?;
    let login = match login.split_once(':') {
        Some((user, password)) => Login::of_user(user, password),
        None => Login::Token(Secret::bearer(login).ok_or_else(wrong)?),
    };
    Ok((login, host))
}

fn in_file(path: &Path, host: &str) -> Result<Option<Login>, HubError> {
    let wrong = |reason: String| HubError::Logins { place: path.display().to_string(), reason };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let logins: Logins = serde_json::from_reader(file.take(FILE_BYTES_MAX))
        // Where, but not what: the words of the parser may quote a secret.
        .map_err(|error| wrong(format!("line {} is not the JSON of a login", error.line())))?;
    let helper = logins.cred_helpers.iter().find(|(key, _)| is_host(key, host));
    let entry = logins.auths.iter().find(|(key, _)| is_host(key, host)).map(|(_, entry)| entry);
    match (helper, entry) {
        (Some((key, helper)), _) => ask(helper, key),
        (None, Some(entry)) if !entry.is_empty() => {
            entry.login().map(Some).ok_or_else(|| wrong(format!("its login for {host} is none")))
        }
        // An entry without content says under which name the helper keeps the login.
        (None, _) if !logins.creds_store.is_empty() => {
            let key = logins.auths.keys().find(|key| is_host(key, host));
            ask(&logins.creds_store, key.map_or(host, |key| key))
        }
        _ => Ok(None),
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.identitytoken, &self.registrytoken]
            .iter()
            .all(|text| text.is_empty())
    }

    fn login(&self) -> Option<Login> {
        if !self.registrytoken.is_empty() {
            return Secret::bearer(&self.registrytoken).map(Login::Token);
        }
        if !self.identitytoken.is_empty() {
            return Some(Login::Identity(self.identitytoken.clone()));
        }
        if !self.username.is_empty() {
            return Some(Login::of_user(&self.username, &self.password));
        }
        let text = String::from_utf8(BASE64_STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // Some versions of Docker pad with zero bytes.
        Some(Login::of_user(user, password.trim_end_matches('\0')))
    }
}

/// Asks the program `docker-credential-HELPER` what it keeps for `key`.
fn ask(helper: &str, key: &str) -> Result<Option<Login>, HubError> {
    let program = format!("docker-credential-{helper}");
    let wrong = |reason: String| HubError::Logins { place: program.clone(), reason };
    if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(wrong("no program is called that".to_owned()));
    }
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut answer = || {
        let mut child = command.spawn()?;
        // One that does not read what it is asked says so by its status.
        let _ = child.stdin.take().expect("it is piped").write_all(key.as_bytes());
        let mut answer = Vec::new();
        let output = child.stdout.take().expect("it is piped");
        output.take(FILE_BYTES_MAX).read_to_end(&mut answer)?;
        Ok((child.wait()?, answer))
    };
    let (status, answer) = answer().map_err(|error: std::io::Error| wrong(error.to_string()))?;
    // By the protocol a failure means that it knows nothing of this host.
    if !status.success() {
        return Ok(None);
    }
    let helped: Helped =
        serde_json::from_slice(&answer).map_err(|_| wrong("its answer is no login".to_owned()))?;
    Ok(Some(Login::of_user(&helped.username, &helped.secret)))
}

/// Whether a key of a file of logins (`host:5000`, `https://index.docker.io/v1/`) means the registry at `host`.
fn is_host(key: &str, host: &str) -> bool {
    let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    let key = ["/v1", "/v2", ""].iter().find_map(|end| {
        let name = key.trim_end_matches('/').strip_suffix(end)?;
        (!name.contains('/')).then_some(name)
    });
    let is_hub = |name: &str| DOCKER_HUB.contains(&name);
    key.is_some_and(|key| key.eq_ignore_ascii_case(host) || is_hub(key) && is_hub(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, host: &str) -> Result<Option<Login>, HubError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        in_file(&path, host)
    }

    fn password(user: &str, password: &str) -> Login {
        Login::Password(user.to_owned(), password.to_owned())
    }

    #[test]
    fn logins_are_found_by_their_host_alone() {
        // "me:a:b" and "hub:x" in base64.
        let text = r#"{"auths": {"reg.example:5000": {"auth": "bWU6YTpi"},
            "https://index.docker.io/v1/": {"auth": "aHViOng="},
            "plain.example": {"username": "u", "password": "p"},
            "identity.example": {"auth": "AA==", "identitytoken": "refresh"},
            "token.example": {"registrytoken": "abc"}, "empty.example": {}}}"#;
        let login = |host: &str| find(text, host).unwrap();
        assert_eq!(login("reg.example:5000"), Some(password("me", "a:b")));
        assert_eq!(login("REG.example:5000"), Some(password("me", "a:b")));
        assert_eq!(login("registry-1.docker.io"), Some(password("hub", "x")));
        assert_eq!(login("plain.example"), Some(password("u", "p")));
        assert_eq!(login("identity.example"), Some(Login::Identity("refresh".to_owned())));
        assert_eq!(login("token.example"), Secret::bearer("abc").map(Login::Token));
        for host in ["reg.example", "reg.example:5001", "example", "empty.example", "v1"] {
            assert_eq!(login(host), None, "{host}");
        }
    }

    #[test]
    fn files_that_are_none_are_named_without_their_words() {
        for text in ["{\"auths\": {\"a\": {\"auth\": \"%\"}}}", "{\"auths\": secret}", ""] {
            let error = find(text, "a").unwrap_err().to_string();
            assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
        }
        assert_eq!(in_file(Path::new("/nowhere/config.json"), "a").unwrap(), None);
    }

    #[test]
    fn the_environment_names_the_host() {
        let (login, host) = in_environment("me:p@ss:word@reg.example:5000").unwrap();
        assert_eq!((login, host), (password("me", "p@ss:word"), "reg.example:5000"));
        let (login, host) = in_environment("abc@reg.example").unwrap();
        assert_eq!(format!("{login:?}"), "Login(…)", "it never shows itself");
        assert_eq!((Some(login), host), (Secret::bearer("abc").map(Login::Token), "reg.example"));
        for text in ["abc", "a b@reg.example", "@reg.example"] {
            assert!(in_environment(text).is_err(), "{text}");
        }
    }
}
