//! Addresses in configuration: as kube-proxy reads them, IPv4 with leading zeros too.

use crate::model::address;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

/// An IP address; one of IPv4 that is written as IPv6 is the IPv4 address.
pub fn ip(text: &str) -> Option<IpAddr> {
    address::parse(text).map(|address| address.to_canonical())
}

/// `IP:port`, with an IPv6 address in brackets.
///
/// # Errors
/// Says what it must be.
pub fn socket(text: &str) -> Result<SocketAddr, &'static str> {
    let (host, port) = host_and_port(text).ok_or("must be IP:port")?;
    let address = ip(host).ok_or("must have a valid IP address before the port")?;
    match port.parse() {
        Ok(port) if port != 0 => Ok(SocketAddr::new(address, port)),
        _ => Err("must have a port from 1 to 65535"),
    }
}

/// The same text, with the port behind it if it is only an address.
pub fn with_port(text: &str, port: impl Display) -> String {
    match address::parse(text) {
        Some(_) if text.contains(':') => format!("[{text}]:{port}"),
        Some(_) => format!("{text}:{port}"),
        None => text.to_owned(),
    }
}

/// The two sides of the last colon, without the brackets that an IPv6 address must have there.
pub fn host_and_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(rest) => Some((rest.strip_suffix(']')?, port)),
        None => (!host.contains([':', '[', ']'])).then_some((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kube_proxy_reads_them() {
        for (text, canonical) in [
            ("172.30.0.041", Some("172.30.0.41")),
            ("::", Some("::")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("[::]", None),
            ("10.0.0.1/32", None),
        ] {
            assert_eq!(ip(text).map(|address| address.to_string()).as_deref(), canonical, "{text}");
        }
    }

    #[test]
    fn a_socket_needs_an_address_and_a_port() {
        for (text, canonical) in [
            ("0.0.0.0:10256", Ok("0.0.0.0:10256")),
            ("010.0.0.1:0080", Ok("10.0.0.1:80")),
            ("[fd00::1]:1", Ok("[fd00::1]:1")),
            ("10.10.10.10", Err("must be IP:port")),
            ("fd00::1:80", Err("must be IP:port")),
            ("[fd00::1]", Err("must be IP:port")),
            ("[fd00::1]80", Err("must be IP:port")),
            ("", Err("must be IP:port")),
            ("123.456.789.10:12345", Err("must have a valid IP address before the port")),
            (":80", Err("must have a valid IP address before the port")),
            ("10.10.10.10:foo", Err("must have a port from 1 to 65535")),
            ("10.10.10.10:", Err("must have a port from 1 to 65535")),
            ("10.10.10.10:0", Err("must have a port from 1 to 65535")),
            ("10.10.10.10:65536", Err("must have a port from 1 to 65535")),
        ] {
            let read = socket(text);
            assert_eq!(read.map(|socket| socket.to_string()), canonical.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn only_a_bare_address_gets_a_port() {
        for (text, wanted) in [
            ("1.2.3.4", "1.2.3.4:9"),
            ("010.0.0.1", "010.0.0.1:9"),
            ("fd00::1", "[fd00::1]:9"),
            ("1.2.3.4:80", "1.2.3.4:80"),
            ("[fd00::1]", "[fd00::1]"),
            ("web", "web"),
            ("", ""),
        ] {
            assert_eq!(with_port(text, 9), wanted);
        }
    }
}
