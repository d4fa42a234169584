//! IP addresses as Kubernetes accepts them in text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// As kube-proxy's `ParseIPSloppy`: leading zeros in IPv4 are accepted and mean decimal, because manifests and
/// configuration files from before Go 1.17 have them and the API server keeps them.
pub fn parse(text: &str) -> Option<IpAddr> {
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
}
