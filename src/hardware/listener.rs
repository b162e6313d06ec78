//! Who listens on a port of this machine, where the system tells.

use std::fmt;
use std::net::SocketAddr;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub process_id: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (process {})", self.name, self.process_id)
    }
}

/// The process that listens where one would listen on `address`; None where that is not told: of other users' processes it
/// is not.
pub fn holder(address: SocketAddr) -> Option<Holder> {
    system::holder(address)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::net::SocketAddr;

    use super::Holder;

    /// The state of a socket that listens, in the kernel's tables.
    const LISTENS: &str = "0A";

    pub(super) fn holder(address: SocketAddr) -> Option<Holder> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
        let sockets: Vec<String> = tables
            .iter()
            .flatten()
            .flat_map(|table| table.lines().skip(1))
            .filter_map(|line| listening_on(line, address.port()))
            .map(|socket| format!("socket:[{socket}]"))
            .collect();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let process_id = numbers.find(|process_id| has_open(*process_id, &sockets))?;
        let name = fs::read_to_string(format!("/proc/{process_id}/comm")).ok()?;
        Some(Holder { process_id, name: name.trim().to_owned() })
    }

    /// The socket of a line of the table, if it listens on a port: "N: ADDRESS:PORT REMOTE STATE … UID TIMEOUT SOCKET …".
    fn listening_on(line: &str, port: u16) -> Option<&str> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, own_port) = fields.get(1)?.rsplit_once(':')?;
        let is_it = *fields.get(3)? == LISTENS && u16::from_str_radix(own_port, 16) == Ok(port);
        fields.get(9).copied().filter(|_| is_it)
    }

    fn has_open(process_id: u32, sockets: &[String]) -> bool {
        let files = fs::read_dir(format!("/proc/{process_id}/fd"));
        files.into_iter().flatten().flatten().any(|file| {
            let target = fs::read_link(file.path()).ok();
            let target = target.as_ref().and_then(|target| target.to_str());
            target.is_some_and(|target| sockets.iter().any(|socket| socket == target))
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::net::SocketAddr;

    use super::Holder;

    pub(super) fn holder(_: SocketAddr) -> Option<Holder> {
        None
    }
}
