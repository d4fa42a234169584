//! What is to be explained, as it is written on the command line.

use crate::inspect::form::protocol_of;
use crate::model::Protocol;
use crate::model::address;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A Service, or where one is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By its name.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// A port of it, by number or name; none for all of them.
        port: Option<String>,
    },
    /// By a frontend.
    At(SocketAddr, Protocol),
}

/// A packet that somebody may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowText {
    /// None is the node itself.
    pub source: Option<IpAddr>,
    /// Whom it is for.
    pub target: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// A text that says none of this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct InvalidTarget {
    text: String,
    wanted: &'static str,
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let wanted = "NAMESPACE/SERVICE, NAMESPACE/SERVICE:PORT or ADDRESS:PORT/PROTOCOL";
        let invalid = || InvalidTarget { text: text.to_owned(), wanted };
        if let Some((target, protocol)) = frontend(text) {
            return Ok(Self::At(target, protocol));
        }
        let (namespace, rest) = text.split_once('/').ok_or_else(invalid)?;
        let (name, port) = rest.split_once(':').map_or((rest, None), |(name, port)| (name, Some(port)));
        let is_name =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if ![namespace, name].into_iter().chain(port).all(is_name) {
            return Err(invalid());
        }
        Ok(Self::Service { namespace: namespace.into(), name: name.into(), port: port.map(str::to_owned) })
    }
}

impl FromStr for FlowText {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let wanted = "a flow: SOURCE,ADDRESS:PORT/PROTOCOL, such as 10.244.1.5,10.96.0.10:53/udp";
        let invalid = || InvalidTarget { text: text.to_owned(), wanted };
        let (source, target) = text
            .split_once("->")
            .or_else(|| text.split_once(','))
            .or_else(|| text.trim().split_once(' '))
            .ok_or_else(invalid)?;
        let source = match source.trim() {
            "node" => None,
            source => Some(address::parse(source).ok_or_else(invalid)?),
        };
        let (target, protocol) = frontend(target.trim()).ok_or_else(invalid)?;
        if source.is_some_and(|source| source.is_ipv4() != target.is_ipv4()) {
            return Err(invalid());
        }
        Ok(Self { source, target, protocol })
    }
}

/// `ADDRESS:PORT`, by TCP, or `ADDRESS:PORT/PROTOCOL`.
fn frontend(text: &str) -> Option<(SocketAddr, Protocol)> {
    let (target, protocol) = text.split_once('/').map_or((text, "tcp"), |(target, protocol)| (target, protocol));
    Some((target.parse().ok()?, protocol_of(protocol)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_service_or_where_it_is_reached() {
        let service = |port: Option<&str>| Target::Service {
            namespace: "shop".into(),
            name: "web".into(),
            port: port.map(str::to_owned),
        };
        let at = |text: &str, protocol| Target::At(text.parse().unwrap(), protocol);
        for (text, wanted) in [
            ("shop/web", service(None)),
            ("shop/web:80", service(Some("80"))),
            ("shop/web:http", service(Some("http"))),
            ("10.96.0.10:53/udp", at("10.96.0.10:53", Protocol::Udp)),
            ("10.96.0.10:53", at("10.96.0.10:53", Protocol::Tcp)),
            ("[fd00::1]:80/SCTP", at("[fd00::1]:80", Protocol::Sctp)),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for text in
            ["", "web", "/web", "shop/", "shop/web:", "shop/web/http", "10.96.0.10", "10.96.0.10:53/icmp", "a/b c"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_flow_is_written_with_a_comma_an_arrow_or_two_words() {
        let udp = FlowText {
            source: Some([10, 244, 1, 5].into()),
            target: "10.96.0.10:53".parse().unwrap(),
            protocol: Protocol::Udp,
        };
        for text in ["10.244.1.5,10.96.0.10:53/udp", "10.244.1.5 -> 10.96.0.10:53/udp", "10.244.1.5->10.96.0.10:53/UDP"]
        {
            assert_eq!(text.parse(), Ok(udp.clone()), "{text}");
        }
        assert_eq!("10.244.1.5 10.96.0.10:53/udp".parse(), Ok(udp));
        assert_eq!("node,[fd00::1]:80".parse::<FlowText>().unwrap().source, None);
        for text in ["", "10.96.0.10:53", "me,10.96.0.10:53", "10.244.1.5,10.96.0.10", "10.244.1.5,[fd00::1]:80"] {
            assert!(text.parse::<FlowText>().is_err(), "{text}");
        }
    }
}
