//! Where an address lies: on the public network, in a private one, on this machine, or where no model comes from.
//!
//! A server may send us on (redirect) only to where it could have reached itself without us: otherwise a file host on
//! the Internet could make this machine ask its own services, its router, or its cloud's metadata service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of network that an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Zone {
    /// Reachable from anywhere.
    Public,
    /// A network of one's own: RFC 1918, RFC 6598, RFC 4193.
    Private,
    /// This machine.
    Loopback,
    /// Link-local (metadata services of clouds), multicast, unspecified, reserved.
    Special,
}

/// Which zones a connection may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Wherever the person's own words lead.
    Anywhere,
    /// Where a server in this zone may send us.
    SentFrom(Zone),
}

impl Zone {
    /// The zone of an address. Addresses that carry an IPv4 address inside count as that one.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => {
                embedded(address).map_or_else(|| Self::of_v6(address), Self::of_v4)
            }
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, c, _] = address.octets();
        match (a, b, c) {
            (127, ..) => Self::Loopback,
            (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Self::Private,
            (0 | 224..=255, ..) | (169, 254, _) | (192, 0, 0 | 2) | (198, 18..=19, _) => {
                Self::Special
            }
            (198, 51, 100) | (203, 0, 113) => Self::Special,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let first = address.segments()[0];
        match first {
            _ if address.is_loopback() => Self::Loopback,
            _ if first & 0xfe00 == 0xfc00 => Self::Private,
            // Only 2000::/3 is handed out; 2001:db8::/32 is for documentation.
            _ if first & 0xe000 == 0x2000 && address.segments()[..2] != [0x2001, 0xdb8] => {
                Self::Public
            }
            _ => Self::Special,
        }
    }
}

/// The IPv4 address inside an IPv6 one: mapped, NAT64 or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

impl Reach {
    /// Whether a connection to `target` is allowed.
    pub(crate) fn allows(self, target: IpAddr) -> bool {
        let target = Zone::of(target);
        match self {
            Self::Anywhere => true,
            Self::SentFrom(Zone::Loopback) => target != Zone::Special,
            Self::SentFrom(Zone::Private) => matches!(target, Zone::Public | Zone::Private),
            Self::SentFrom(Zone::Public | Zone::Special) => target == Zone::Public,
        }
    }

    /// What remains after an answer from `address`: a redirect never widens the reach.
    pub(crate) fn after(self, address: IpAddr) -> Self {
        match self {
            Self::Anywhere | Self::SentFrom(Zone::Loopback) => Self::SentFrom(Zone::of(address)),
            Self::SentFrom(Zone::Private) if Zone::of(address) == Zone::Public => {
                Self::SentFrom(Zone::Public)
            }
            narrow @ Self::SentFrom(_) => narrow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(text: &str) -> Zone {
        Zone::of(text.parse().unwrap())
    }

    #[test]
    fn zones_follow_the_registries() {
        for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert_eq!(zone(text), Zone::Loopback, "{text}");
        }
        for text in ["10.0.0.1", "172.16.0.1", "172.31.9.9", "192.168.1.1", "100.64.0.1", "fd00::1"]
        {
            assert_eq!(zone(text), Zone::Private, "{text}");
        }
        for text in ["169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "fe80::1", "::"]
        {
            assert_eq!(zone(text), Zone::Special, "{text}");
        }
        assert_eq!(zone("2002:a9fe:a9fe::"), Zone::Special);
        for text in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111"] {
            assert_eq!(zone(text), Zone::Public, "{text}");
        }
    }

    #[test]
    fn a_redirect_never_reaches_further_than_its_sender() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (public, private, own) =
            (address("8.8.8.8"), address("10.0.0.1"), address("127.0.0.1"));
        let metadata = address("169.254.169.254");
        let from_public = Reach::Anywhere.after(public);
        assert_eq!(
            [public, private, own, metadata].map(|a| from_public.allows(a)),
            [true, false, false, false]
        );
        let from_private = Reach::Anywhere.after(private);
        assert_eq!(
            [public, private, own, metadata].map(|a| from_private.allows(a)),
            [true, true, false, false]
        );
        let from_own = Reach::Anywhere.after(own);
        assert_eq!(
            [public, private, own, metadata].map(|a| from_own.allows(a)),
            [true, true, true, false]
        );
        assert_eq!(from_own.after(public), from_public);
        assert_eq!(from_private.after(public).after(private), from_public);
    }
}
