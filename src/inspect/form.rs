//! The forms in JSON of what the middle of the program has as values, and back.

use crate::model::netfilter::{AddressPort, Member, SetKind, SetType};
use crate::model::{
    self, DestinationKey, DestinationSpec, Persistence, RouteSpec, SchedulerFlags, VirtualServerKey, VirtualServerSpec,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A text that is not the form of what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not {1}")]
pub struct Malformed(pub String, pub &'static str);

/// A transport protocol: `TCP`, `UDP`, `SCTP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// An address family: `IPv4`, `IPv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Family {
    #[serde(rename = "IPv4")]
    Ipv4,
    #[serde(rename = "IPv6")]
    Ipv6,
}

/// What makes a virtual server this one: `protocol`, `address` and `port`, or `mark` and `family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the fields are those of the model's key")]
pub enum Server {
    Address { protocol: Protocol, address: IpAddr, port: u16 },
    Mark { mark: u32, family: Family },
}

/// A virtual server as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServer {
    /// Which one.
    #[serde(flatten)]
    pub server: Server,
    /// The scheduler's name in the kernel.
    pub scheduler: String,
    /// The scheduler's flags as a number (`IP_VS_SVC_F_*`, linux/ip_vs.h).
    pub flags: u32,
    /// For how many seconds a client keeps its destination; none is not at all.
    pub persistence_seconds: Option<u32>,
    /// Where connections go.
    pub destinations: Vec<Destination>,
}

/// A destination as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of the model's key and spec")]
pub struct Destination {
    pub address: IpAddr,
    pub port: u16,
    pub weight: u32,
}

/// A VIP that is local by a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The VIP.
    pub address: IpAddr,
    /// What the node's own traffic to it carries as its source.
    pub source: Option<IpAddr>,
}

impl From<(IpAddr, RouteSpec)> for Route {
    fn from((address, route): (IpAddr, RouteSpec)) -> Self {
        Self { address, source: route.preferred_source }
    }
}

impl From<Route> for (IpAddr, RouteSpec) {
    fn from(route: Route) -> Self {
        (route.address, RouteSpec { preferred_source: route.source })
    }
}

/// A destination that departs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Its virtual server.
    #[serde(flatten)]
    pub server: Server,
    /// Where its connections go.
    pub destination: IpAddr,
    /// And the port there.
    pub destination_port: u16,
    /// When it goes at the latest.
    pub seconds_left: u64,
}

impl From<model::Protocol> for Protocol {
    fn from(protocol: model::Protocol) -> Self {
        match protocol {
            model::Protocol::Tcp => Self::Tcp,
            model::Protocol::Udp => Self::Udp,
            model::Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<Protocol> for model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<model::Family> for Family {
    fn from(family: model::Family) -> Self {
        match family {
            model::Family::Ipv4 => Self::Ipv4,
            model::Family::Ipv6 => Self::Ipv6,
        }
    }
}

impl From<Family> for model::Family {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }
}

impl From<VirtualServerKey> for Server {
    fn from(key: VirtualServerKey) -> Self {
        match key {
            VirtualServerKey::Address { address, port, protocol } => {
                Self::Address { protocol: protocol.into(), address, port }
            }
            VirtualServerKey::Mark { mark, family } => Self::Mark { mark, family: family.into() },
        }
    }
}

impl From<Server> for VirtualServerKey {
    fn from(server: Server) -> Self {
        match server {
            Server::Address { protocol, address, port } => Self::new(address, port, protocol.into()),
            Server::Mark { mark, family } => Self::Mark { mark, family: family.into() },
        }
    }
}

impl VirtualServer {
    /// The form of a virtual server.
    pub fn of(key: VirtualServerKey, server: &model::VirtualServer) -> Self {
        let destination = |(key, spec): (&DestinationKey, &DestinationSpec)| Destination {
            address: key.address,
            port: key.port,
            weight: spec.weight,
        };
        Self {
            server: key.into(),
            scheduler: server.spec.scheduler.as_str().to_owned(),
            flags: server.spec.flags.0,
            persistence_seconds: server.spec.persistence.map(|persistence| persistence.timeout),
            destinations: server.destinations.iter().map(destination).collect(),
        }
    }

    /// The virtual server, which masquerades and remembers each client for itself, as all of ours do.
    ///
    /// # Errors
    /// The scheduler's name is none.
    pub fn to_model(&self) -> Result<(VirtualServerKey, model::VirtualServer), Malformed> {
        let key = VirtualServerKey::from(self.server);
        let scheduler = self.scheduler.parse();
        let scheduler = scheduler.map_err(|_| Malformed(self.scheduler.clone(), "the name of a scheduler"))?;
        let persistence = |timeout| Persistence { timeout, prefix: key.family().bits() };
        let spec = VirtualServerSpec {
            scheduler,
            flags: SchedulerFlags(self.flags),
            persistence: self.persistence_seconds.map(persistence),
        };
        let destination = |one: &Destination| {
            (DestinationKey { address: one.address, port: one.port }, DestinationSpec::masquerading(one.weight))
        };
        Ok((key, model::VirtualServer { spec, destinations: self.destinations.iter().map(destination).collect() }))
    }
}

/// The member that a text says, as ipset writes it, in a set of this kind.
pub fn member(kind: SetKind, text: &str) -> Option<Member> {
    let mut words = text.split(',');
    let mut next = || words.next();
    let member = match kind.set_type() {
        SetType::Address => Member::Address(next()?.parse().ok()?),
        SetType::Port => Member::Port(next()?.parse().ok()?),
        SetType::AddressPort => Member::AddressPort(address_port(next()?, next()?)?),
        SetType::AddressPortAddress => {
            Member::AddressPortAddress(address_port(next()?, next()?)?, next()?.parse().ok()?)
        }
        SetType::AddressPortNet => Member::AddressPortNet(address_port(next()?, next()?)?, next()?.parse().ok()?),
    };
    words.next().is_none().then_some(member)
}

fn address_port(address: &str, port: &str) -> Option<AddressPort> {
    let (protocol, port) = port.split_once(':')?;
    Some(AddressPort { address: address.parse().ok()?, protocol: protocol_of(protocol)?, port: port.parse().ok()? })
}

/// The protocol of a name in any case.
pub fn protocol_of(name: &str) -> Option<model::Protocol> {
    model::Protocol::from_name(&name.to_ascii_uppercase())
}
