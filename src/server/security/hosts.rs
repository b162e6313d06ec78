//! Names by which this server may be asked.
//!
//! A page of a foreign site can have its own name resolve to this machine (DNS rebinding) and is then, for the browser,
//! of the same origin as the server. What it cannot change is the name in `Host`. So names count only when they are
//! known, whatever the server is bound to. An address cannot be rebound: a page's name never becomes one.

use std::net::{IpAddr, Ipv6Addr};

/// What comes before the port in `Host` or in an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without the dot at the end.
    Name(String),
    /// IPv4 written as IPv6 is IPv4.
    Address(IpAddr),
}

impl Host {
    /// Whether it is this machine as it calls itself. Names below `localhost` are (RFC 6761, section 6.3).
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Self::Address(address) => address.is_loopback(),
        }
    }
}

/// A host and a port, `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

impl Authority {
    /// Reads what stands in `Host`; None when it is nothing that a client would send.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => in_brackets(rest)?,
            None => match text.split_once(':') {
                Some((host, port)) => (name_or_address(host)?, Some(port)),
                None => (name_or_address(text)?, None),
            },
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
            None => None,
        };
        Some(Self { host, port })
    }
}

/// IPv6 after its bracket, and the digits of a port.
fn in_brackets(rest: &str) -> Option<(Host, Option<&str>)> {
    let (inside, after) = rest.split_once(']')?;
    let address: Ipv6Addr = inside.parse().ok()?;
    let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
    Some((Host::Address(IpAddr::V6(address).to_canonical()), port))
}

fn name_or_address(text: &str) -> Option<Host> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let labels = name.split('.');
    if !labels.into_iter().all(|label| !label.is_empty() && label.bytes().all(is_label)) {
        return None;
    }
    Some(match name.parse() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(name),
    })
}

/// Names that are known.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    /// As the user wrote them: a name, an address, `*.DOMAIN`, or `*`.
    allowed: Vec<String>,
    /// Other machines may ask, at whatever address they reach this one by.
    is_open: bool,
}

impl Hosts {
    /// What the user allows, for a server that listens at an address.
    pub(super) fn new(allowed: &[String], bound: IpAddr) -> Self {
        let allowed = allowed.iter().map(|name| name.trim().trim_end_matches('.').to_lowercase());
        Self { allowed: allowed.collect(), is_open: !bound.is_loopback() }
    }

    /// Whether the server may be asked by this name.
    pub(super) fn knows(&self, host: &Host) -> bool {
        let is_ours = match host {
            Host::Address(_) if self.is_open => true,
            host => host.is_loopback(),
        };
        is_ours || self.allowed.iter().any(|allowed| is_named(allowed, host))
    }
}

fn is_named(allowed: &str, host: &Host) -> bool {
    match (allowed, host) {
        ("*", _) => true,
        (allowed, Host::Address(address)) => {
            let inside = allowed.trim_start_matches('[').trim_end_matches(']');
            inside.parse::<IpAddr>().is_ok_and(|known| known.to_canonical() == *address)
        }
        (allowed, Host::Name(name)) => match allowed.strip_prefix("*.") {
            Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None => name == allowed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knows(hosts: &Hosts, text: &str) -> bool {
        Authority::parse(text).is_some_and(|authority| hosts.knows(&authority.host))
    }

    #[test]
    fn only_known_names_may_ask() {
        let local = Hosts::new(&[], "127.0.0.1".parse().unwrap());
        for name in [
            "localhost",
            "LOCALHOST:11434",
            "localhost.",
            "localhost.:80",
            "tauri.localhost",
            "127.0.0.1:1",
            "127.0.0.2",
            "[::1]",
            "[::1]:11434",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(knows(&local, name), "{name}");
        }
        for name in [
            "",
            ".",
            "evil.com",
            "evil.com:11434",
            "localhost.evil.com",
            "localhost.evil.com.",
            "evillocalhost",
            "localhost..",
            "localhost:port",
            "localhost:+80",
            "localhost:99999",
            "localhost:80:80",
            "user@localhost",
            "localhost/evil.com",
            "localhost evil.com",
            "127.0.0.1.evil.com",
            "127.1",
            "0x7f000001",
            "0.0.0.0",
            "192.168.1.5",
            "169.254.169.254",
            "::1",
            "[::1",
            "[::1]x",
            "[::1%lo]",
            "[fe80::1]",
            "[127.0.0.1]",
            "local\u{f6}host",
            "mymachine.local",
        ] {
            assert!(!knows(&local, name), "{name}");
        }
    }

    #[test]
    fn off_loopback_addresses_are_known_and_names_are_not() {
        let everywhere = Hosts::new(&[], "0.0.0.0".parse().unwrap());
        for name in ["192.168.1.5:11434", "[fd00::5]:1", "localhost", "127.0.0.1"] {
            assert!(knows(&everywhere, name), "{name}");
        }
        for name in ["evil.com", "192.168.1.5.evil.com", "mymachine"] {
            assert!(!knows(&everywhere, name), "{name}");
        }
    }

    #[test]
    fn users_allow_names_domains_and_addresses() {
        let allowed = ["Box.lan.", "*.example.com", "10.0.0.1", "[fd00::5]"].map(str::to_owned);
        let hosts = Hosts::new(&allowed, "127.0.0.1".parse().unwrap());
        for name in [
            "box.lan",
            "BOX.LAN.:80",
            "a.example.com",
            "a.b.example.com",
            "10.0.0.1",
            "[fd00::5]:1",
        ] {
            assert!(knows(&hosts, name), "{name}");
        }
        for name in ["example.com", "badexample.com", "a.box.lan", "10.0.0.2", "[fd00::6]"] {
            assert!(!knows(&hosts, name), "{name}");
        }
        let all = Hosts::new(&["*".to_owned()], "127.0.0.1".parse().unwrap());
        assert!(knows(&all, "evil.com") && !knows(&all, "evil.com:x"));
    }
}
