//! Why the network did not give what was asked, in words that say what to do.

use nfl_models::Hint;

/// A failure of the network, of a server, or of our rules for them.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Connections are cut.
    #[error("not connecting to {what}: offline")]
    Offline {
        /// What would have been asked.
        what: String,
    },
    /// The system's certificates, the proxies of the environment, or threads.
    #[error("cannot prepare network connections: {0}")]
    Setup(String),
    /// No connection, or no answer.
    #[error("cannot reach {place}: {reason}")]
    Unreachable {
        /// What was asked.
        place: String,
        /// What happened.
        reason: String,
    },
    /// A redirect against the rules.
    #[error("{from} sends us to {to}: {reason}")]
    Redirect {
        /// Who redirects.
        from: String,
        /// Where to.
        to: String,
        /// Why that is refused.
        reason: &'static str,
    },
    /// A server that answers with an error.
    #[error("{place}: HTTP status {status}{}", words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Status {
        /// What was asked.
        place: String,
        /// The HTTP status.
        status: u16,
        /// What the server says about it.
        words: Option<String>,
    },
    /// A server that does not follow its protocol.
    #[error("{place}: {what}")]
    Protocol {
        /// What was asked.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Plain http to another machine.
    #[error("plain http to {host}, which is another machine")]
    Insecure {
        /// The host.
        host: String,
    },
    /// A name that no such place can have.
    #[error("{name} names no model on {place}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Where it was looked for.
        place: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A repository without a file that would do.
    #[error(transparent)]
    Choice(#[from] super::repository::ChoiceError),
    /// A repository whose terms must be accepted first.
    #[error("{repository} on {hub} is gated{}", if *with_token { ", and this token has no access" } else { "" })]
    Gated {
        /// The repository.
        repository: String,
        /// The hub.
        hub: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// No such repository, or one that is not ours to see: hubs do not tell which.
    #[error("{hub} has no repository {repository}, or it is private")]
    Repository {
        /// The repository.
        repository: String,
        /// The hub.
        hub: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// No such branch, tag or commit.
    #[error("{repository} on {hub} has no such revision")]
    Revision {
        /// The repository.
        repository: String,
        /// The hub.
        hub: String,
    },
    /// A repository that we may not write to.
    #[error("{hub} does not let us write to {repository}")]
    Denied {
        /// The repository.
        repository: String,
        /// The hub.
        hub: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// An index with several models, and nothing that says which is meant.
    #[error("{place} lists several models: {models}")]
    Ambiguous {
        /// What was asked.
        place: String,
        /// Their digests, and what they are for.
        models: String,
    },
    /// A registry that wants to know who asks, or does not let that one.
    #[error("{registry} {} {repository}{}", if *with_login { "does not let this login use" } else { "wants a login for" },
        words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Login {
        /// The registry.
        registry: String,
        /// What was asked for there.
        repository: String,
        /// Whether there is a login for the registry.
        with_login: bool,
        /// What the server says about it.
        words: Option<String>,
    },
    /// A registry that wants the login to go to another host.
    #[error("{registry} names {realm} for its tokens: its login is not shown to another host")]
    Realm {
        /// The registry.
        registry: String,
        /// Where it wants the login to go.
        realm: String,
    },
    /// Logins that cannot be read.
    #[error("cannot read the logins of {place}: {reason}")]
    Logins {
        /// The file, the variable or the program.
        place: String,
        /// What is wrong with it; nothing secret.
        reason: String,
    },
    /// Troubles without end.
    #[error("{place}: gave up after {attempts} attempts in a row: {reason}")]
    GaveUp {
        /// What was asked.
        place: String,
        /// How many times in a row.
        attempts: u32,
        /// What happened last.
        reason: String,
    },
}

impl Hint for HubError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Offline { .. } => {
                "leave --offline out, and NFL_OFFLINE unset, to use the network"
            }
            Self::Setup(_) => {
                "check the system's certificates and the variables HTTPS_PROXY and HTTP_PROXY"
            }
            Self::Unreachable { .. } => {
                "check the name and your connection; behind a proxy, set HTTPS_PROXY; a mirror is named by HF_ENDPOINT"
            }
            Self::Redirect { .. } => {
                "the server is misconfigured or hostile; nothing was sent there"
            }
            Self::Status { status: 401 | 403, .. } => {
                "a private or gated model needs a token: accept its terms on its page and set HF_TOKEN"
            }
            Self::Status { status: 404, .. } => {
                "check the spelling of the name, its tag and its revision"
            }
            Self::Status { status: 429, .. } => "the server asks for patience: pull again later",
            Self::Status { .. } => "the server has a problem: pull again later",
            Self::Protocol { .. } => {
                "the server does not speak the expected protocol: check the address"
            }
            Self::Insecure { .. } => {
                "--insecure is for registries on this machine; serve others over https"
            }
            Self::Name { .. } => "write hf.co/OWNER/NAME:LEVEL, or HOST:PORT/NAMESPACE/NAME:TAG",
            Self::Gated { repository, hub, with_token } => {
                let token =
                    if *with_token { "with that account" } else { "and set HF_TOKEN to a token" };
                return Some(format!("accept its terms at {hub}/{repository} {token}"));
            }
            Self::Repository { with_token: true, .. } => {
                "check the spelling (nfl search WORDS), and that the token may read it"
            }
            Self::Repository { .. } => {
                "check the spelling (nfl search WORDS); for a private one, set HF_TOKEN"
            }
            Self::Revision { .. } => "name a branch, a tag or a commit of it with --revision",
            Self::Denied { with_token: true, .. } => {
                "use a token with write access to that account, and the account's own name"
            }
            Self::Denied { .. } => "set HF_TOKEN to a token with write access",
            Self::Ambiguous { .. } => {
                "pull a tag that names one of them: its publisher knows which are there"
            }
            Self::Login { registry, with_login: true, .. } => {
                return Some(format!(
                    "check the name, and the login: docker login {registry}, or \
                     NFL_REGISTRY_TOKEN=USER:PASSWORD@{registry}"
                ));
            }
            Self::Login { registry, .. } => {
                return Some(format!(
                    "log in with docker login {registry}, or set NFL_REGISTRY_TOKEN=USER:PASSWORD@{registry}; \
                     or the name is mistyped"
                ));
            }
            Self::Realm { .. } => {
                "the registry is misconfigured or hostile; nothing was sent there"
            }
            Self::Logins { .. } => {
                "docker login HOST writes one that can be read, or set NFL_REGISTRY_TOKEN=USER:PASSWORD@HOST"
            }
            Self::Choice(error) => return error.hint(),
            Self::GaveUp { .. } => "pull again: it goes on where it stopped",
        };
        Some(hint.to_owned())
    }
}
