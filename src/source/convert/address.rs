//! IP addresses as Kubernetes accepts them, in canonical form, and only those that can be proxied.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a text is no frontend and no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAddress {
    /// kube-proxy passes over it.
    #[error("{0:?} is not an IP address")]
    Malformed(String),
    /// kube-proxy would program it.
    #[error("{0} is {1}, which cannot be proxied")]
    Unusable(IpAddr, &'static str),
}

/// The address in `text`, or why it cannot be a frontend or an endpoint.
pub(super) fn address(text: &str) -> Result<IpAddr, BadAddress> {
    let address = parse(text).ok_or_else(|| BadAddress::Malformed(text.to_owned()))?;
    match unusable(address) {
        Some(what) => Err(BadAddress::Unusable(address, what)),
        None => Ok(address),
    }
}

/// The address range in `text`, such as `192.0.2.0/24`; as kube-proxy's `ParseCIDRSloppy`. Bits behind the prefix are
/// cleared.
pub(super) fn range(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let digits = prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix = digits.then(|| prefix.parse().ok()).flatten()?;
    IpNet::new(parse(address)?, prefix).ok().map(|range| range.trunc())
}

/// As kube-proxy's `ParseIPSloppy`: leading zeros in IPv4 are accepted and mean decimal, because manifests from
/// before Go 1.17 have them and the API server keeps them.
fn parse(text: &str) -> Option<IpAddr> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Some(address.into()),
        Err(_) => ipv4(text).map(IpAddr::V4),
    }
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(octet);
    let octets = [parts.next()??, parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn octet(text: &str) -> Option<u8> {
    // `u8::from_str` takes a plus sign.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The kinds of addresses that the API server refuses for endpoints, and that no VIP can be either: a route to
/// one of them would break the node itself.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let kinds = [
        (address.is_unspecified(), "the unspecified address"),
        (address.is_loopback(), "a loopback address"),
        (address.is_multicast(), "a multicast address"),
        (link_local, "a link-local address"),
        (address == IpAddr::V4(Ipv4Addr::BROADCAST), "the broadcast address"),
        (matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()), "an IPv4 address mapped to IPv6"),
    ];
    kinds.into_iter().find_map(|(is, what)| is.then_some(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_out_canonical() {
        for (text, canonical) in [
            ("10.0.0.1", "10.0.0.1"),
            ("172.30.0.041", "172.30.0.41"),
            ("010.000.0000.08", "10.0.0.8"),
            ("FD00:0:0::01", "fd00::1"),
            ("64:ff9b::192.0.2.1", "64:ff9b::c000:201"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_proxied_is_named() {
        for (text, message) in [
            ("", "\"\" is not an IP address"),
            ("10.0.0", "\"10.0.0\" is not an IP address"),
            ("10.0.0.1.2", "\"10.0.0.1.2\" is not an IP address"),
            ("10.0.0.256", "\"10.0.0.256\" is not an IP address"),
            ("10.0.0.+1", "\"10.0.0.+1\" is not an IP address"),
            ("10.0.0.", "\"10.0.0.\" is not an IP address"),
            ("fe80::1%eth0", "\"fe80::1%eth0\" is not an IP address"),
            ("10.0.0.1/24", "\"10.0.0.1/24\" is not an IP address"),
            ("backend", "\"backend\" is not an IP address"),
            ("0.0.0.0", "0.0.0.0 is the unspecified address, which cannot be proxied"),
            ("::", ":: is the unspecified address, which cannot be proxied"),
            ("127.1.2.3", "127.1.2.3 is a loopback address, which cannot be proxied"),
            ("::1", "::1 is a loopback address, which cannot be proxied"),
            ("224.0.0.1", "224.0.0.1 is a multicast address, which cannot be proxied"),
            ("ff02::1", "ff02::1 is a multicast address, which cannot be proxied"),
            ("169.254.1.1", "169.254.1.1 is a link-local address, which cannot be proxied"),
            ("fe80::1", "fe80::1 is a link-local address, which cannot be proxied"),
            ("255.255.255.255", "255.255.255.255 is the broadcast address, which cannot be proxied"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1 is an IPv4 address mapped to IPv6, which cannot be proxied"),
        ] {
            assert_eq!(address(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn ranges_come_out_canonical_or_not_at_all() {
        for (text, canonical) in [
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("203.0.113.000/025", Some("203.0.113.0/25")),
            ("192.0.2.77/24", Some("192.0.2.0/24")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("FD00::1/8", Some("fd00::/8")),
            ("192.0.2.0", None),
            ("192.0.2.0/33", None),
            ("192.0.2.0/+8", None),
            ("192.0.2.0/", None),
            ("192.0.2/24", None),
            ("fd00::/129", None),
            ("", None),
        ] {
            assert_eq!(range(text).map(|range| range.to_string()).as_deref(), canonical, "{text}");
        }
    }
}
