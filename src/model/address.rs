//! IP addresses and ranges of them as Kubernetes accepts them in text.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// As kube-proxy's `ParseIPSloppy`: leading zeros in IPv4 are accepted and mean decimal, because manifests and
/// configuration files from before Go 1.17 have them and the API server keeps them.
pub fn parse(text: &str) -> Option<IpAddr> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Some(address.into()),
        Err(_) => ipv4(text).map(IpAddr::V4),
    }
}

/// The address range in `text`, such as `192.0.2.0/24`; as kube-proxy's `ParseCIDRSloppy`. Bits behind the prefix are
/// cleared.
pub fn range(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let digits = prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix = digits.then(|| prefix.parse().ok()).flatten()?;
    IpNet::new(parse(address)?, prefix).ok().map(|range| range.trunc())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_decimal() {
        for (text, canonical) in [("172.30.0.041", "172.30.0.41"), ("FD00:0:0::01", "fd00::1")] {
            assert_eq!(parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "10.0.0", "10.0.0.1.2", "10.0.0.256", "10.0.0.+1", "10.0.0.", "fe80::1%eth0", "[::]", "web"] {
            assert_eq!(parse(text), None, "{text}");
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
