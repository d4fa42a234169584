//! IP addresses as Kubernetes accepts them, in canonical form, and only those that can be proxied.

use crate::model::address::parse;
use std::net::{IpAddr, Ipv4Addr};

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
}
