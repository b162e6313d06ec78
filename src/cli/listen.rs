//! Where a server listens, as people and `OLLAMA_HOST` say it, and who has the place when it is taken.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use clap::Args;

use super::failure::Failure;
use crate::hardware::listener;
use crate::settings;

/// Ollama's port, which clients expect.
const PORT: u16 = 11434;

#[derive(Debug, Args)]
pub(super) struct ListenArguments {
    /// Where to listen: an address or a name, with a port or without, also as a URL [default: NFL_HOST, OLLAMA_HOST, else
    /// 127.0.0.1]. Without an address, as in :8080, everybody who reaches this machine is heard.
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// The port to listen on [default: that of the address, else 11434]; 0 takes any free one.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
}

impl ListenArguments {
    /// The address that is meant.
    pub(super) fn address(&self) -> Result<SocketAddr, Failure> {
        let setting = settings::serving("HOST");
        let (text, source) = match (&self.host, &setting) {
            (Some(host), _) => (host.as_str(), "--host"),
            (None, Some(setting)) => (setting.text.as_str(), setting.variable.as_str()),
            (None, None) => ("", "--host"),
        };
        let refused = |reason: String| {
            let hint = "write an address such as 127.0.0.1, 0.0.0.0:8080 or [::1]:11434";
            Failure::usage(format!("{source}: {reason}"), hint)
        };
        let (host, port) = parse(text).map_err(refused)?;
        let port = self.port.unwrap_or(port);
        if host.is_empty() {
            return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        }
        let found = (host.as_str(), port).to_socket_addrs();
        let mut found: Vec<SocketAddr> =
            found.map_err(|error| refused(format!("{host}: {error}")))?.collect();
        // Clients that say localhost try IPv4 at the latest after IPv6, many of them only that.
        found.sort_by_key(SocketAddr::is_ipv6);
        found.first().copied().ok_or_else(|| refused(format!("{host} has no address")))
    }
}

/// Host and port of a text, as Ollama reads `OLLAMA_HOST`: a scheme brings the port that it usually has, a path is passed
/// over, and what is no port is a mistake here. No host is every one.
fn parse(text: &str) -> Result<(String, u16), String> {
    let text = text.trim().trim_matches(['"', '\'']).trim();
    let (usual, rest) = match text.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some(("https", rest)) => (443, rest),
        Some((scheme, _)) => return Err(format!("{scheme}: is no scheme to listen with")),
        None => (PORT, text),
    };
    let place = rest.split('/').next().unwrap_or_default();
    if place.is_empty() {
        return Ok((Ipv4Addr::LOCALHOST.to_string(), usual));
    }
    let bare = place.trim_start_matches('[').trim_end_matches(']');
    // An IPv6 address has no port, unless it stands in brackets.
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    match place.rsplit_once(':').filter(|_| !is_address) {
        None => Ok((bare.to_owned(), usual)),
        Some((host, port)) => {
            let number = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok((host.to_owned(), number))
        }
    }
}

/// Why a server cannot listen there.
pub(super) fn failure(address: SocketAddr, error: &io::Error) -> Failure {
    let message = format!("cannot listen on {address}: {error}");
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = listener::holder(address);
            let holder = holder.map_or(String::new(), |holder| format!(": {holder} has it"));
            let other = address.port().checked_add(1).unwrap_or(PORT);
            let hint = format!(
                "end that program, or choose another port: nfl serve --port {other}; clients then need to be told"
            );
            Failure::new(format!("port {} is taken{holder}", address.port()), Some(&hint))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(message, Some("take a port above 1023: nfl serve --port 11434"))
        }
        io::ErrorKind::AddrNotAvailable => {
            Failure::new(message, Some("take an address of this machine, such as 127.0.0.1"))
        }
        _ => Failure::new(message, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_ollama_reads_them() {
        for (text, host, port) in [
            ("", "127.0.0.1", 11434),
            ("1.2.3.4", "1.2.3.4", 11434),
            ("1.2.3.4:1234", "1.2.3.4", 1234),
            (":1234", "", 1234),
            ("example.com", "example.com", 11434),
            ("example.com:1234", "example.com", 1234),
            ("http://1.2.3.4", "1.2.3.4", 80),
            ("https://1.2.3.4", "1.2.3.4", 443),
            ("https://1.2.3.4:8443/", "1.2.3.4", 8443),
            ("http://example.com:1234/path", "example.com", 1234),
            ("[::1]", "::1", 11434),
            ("::1", "::1", 11434),
            ("[::1]:1234", "::1", 1234),
            ("http://[::]:80", "::", 80),
            (" \"1.2.3.4\" ", "1.2.3.4", 11434),
            ("0.0.0.0:0", "0.0.0.0", 0),
        ] {
            assert_eq!(parse(text), Ok((host.to_owned(), port)), "{text}");
        }
        for text in ["1.2.3.4:66000", "1.2.3.4:x", "example.com:-1", "ftp://1.2.3.4", "a:b:c"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_becomes_an_address_of_this_machine() {
        let arguments =
            ListenArguments { host: Some("localhost:8080".to_owned()), port: Some(9090) };
        assert_eq!(arguments.address().unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)));
        let arguments = ListenArguments { host: Some(":8080".to_owned()), port: None };
        assert!(arguments.address().unwrap().ip().is_unspecified());
    }

    #[test]
    fn who_has_a_port_is_told() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let failure = failure(address, &io::Error::from(io::ErrorKind::AddrInUse));
        assert!(failure.message.starts_with(&format!("port {} is taken", address.port())));
        if cfg!(target_os = "linux") {
            let own = format!("(process {}) has it", std::process::id());
            assert!(failure.message.ends_with(&own), "{}", failure.message);
        }
        assert!(failure.hint.unwrap().contains("--port"));
    }
}
