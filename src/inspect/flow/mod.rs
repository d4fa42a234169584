//! What becomes of a packet: who its sender is, which rules it meets, which virtual server takes it, where it may go and
//! whom an endpoint sees. Computed from what the kernel holds, by the rules' own text and the order of the kernel's hooks
//! (docs/architecture.md, "The way of a packet").
//!
//! Rules of others are not looked at.

pub mod rule;
mod walk;

use crate::kernel::nat::chain::Tree;
use crate::model::localhost::{FAR_ADDRESS, FAR_DEVICE, NEAR_DEVICE};
use crate::model::netfilter::{Balancing, LocalPods, RuleSettings};
use crate::model::{DestinationKey, Family, LocalhostPath, Model, Protocol, VirtualServerKey, VirtualServerSpec};
use crate::state::Node;
use rule::NotUnderstood;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use walk::{Fate, Packet, Walk};
pub use walk::{Hook, Step};

/// A packet that somebody may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends it; none is the node, with the source that its routes give.
    pub source: Option<IpAddr>,
    /// The device by which it would come; none if that is not known.
    pub device: Option<String>,
    /// Whom it is for.
    pub target: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// What is on the node.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// What the kernel holds of ours.
    pub model: &'a Model,
    /// Others' virtual servers.
    pub foreign: &'a BTreeSet<VirtualServerKey>,
    /// The node's addresses.
    pub node: &'a Node,
}

/// Who sends a packet, as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The node itself.
    Node,
    /// A pod of this node.
    Pod,
    /// Anybody else.
    Outside,
    /// Somebody else than the node, where the rules do not know pods.
    Unknown,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The source that it carries.
    pub source: IpAddr,
    /// Who sends it.
    pub client: Client,
    /// The rules that did something with it before a destination was chosen, in order.
    pub steps: Vec<Step>,
    /// What comes of it.
    pub outcome: Outcome,
}

/// What comes of a packet in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is for no address of this node, and is forwarded as any other.
    Forwarded,
    /// No virtual server takes it: a process of the node gets it, if one listens.
    Delivered,
    /// A rule drops it.
    Dropped,
    /// A rule refuses it.
    Refused,
    /// A virtual server that somebody else made takes it.
    Foreign(VirtualServerKey),
    /// A virtual server takes it that has no destination for new connections: it is refused.
    Unserved(VirtualServerKey, VirtualServerSpec),
    /// A virtual server takes it, and gives it to one of these.
    Balanced(VirtualServerKey, VirtualServerSpec, Vec<Way>),
}

/// A destination that a packet may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where to.
    pub destination: DestinationKey,
    /// Its share.
    pub weight: u32,
    /// Whether it sees the node as the client.
    pub is_masqueraded: bool,
    /// The rules that did something with the packet on the way there, in order.
    pub steps: Vec<Step>,
}

impl World<'_> {
    /// Whether an address is one of the node's own to the kernel.
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self.node.addresses.contains(&address)
            || self.model.routes.contains_key(&address)
            || self.model.is_on_kube_proxy_device(address)
    }

    /// Whether a packet that came in is for the node. What stands for 127.0.0.1 is local for what comes in by the far end
    /// alone, by a routing rule, and so is no local address to netfilter.
    fn takes(&self, packet: &Packet) -> bool {
        let is_by_far_end = packet.device.as_deref() == Some(FAR_DEVICE);
        let has_way = self.model.localhost_path == Some(LocalhostPath::Whole);
        self.is_local(packet.destination) || (packet.destination == FAR_ADDRESS && is_by_far_end && has_way)
    }

    /// Whether a virtual server for a packet is below this chain, where rules balance.
    fn is_held_in(&self, chain: &str, packet: &Packet) -> bool {
        let [by_mark, by_address, _] = keys(packet);
        let key = if chain == Tree::Mark.name() { by_mark } else { by_address };
        self.model.virtual_servers.contains_key(&key)
    }

    /// Whether rules balance packets of a family.
    fn balances_by_rules(&self, family: Family) -> bool {
        self.model.rules.get(&family).is_some_and(|settings| settings.balancing != Balancing::Ipvs)
    }

    /// The source that the node's own packets to an address carry.
    fn source_to(&self, target: IpAddr) -> IpAddr {
        let preferred = self.model.routes.get(&target).and_then(|route| route.preferred_source);
        // To an address of its own a host speaks from that very address.
        let own = self.is_local(target).then_some(target);
        preferred.or(own).or_else(|| self.node.primary(Family::of(target))).unwrap_or(target)
    }

    fn client(&self, source: IpAddr, device: Option<&str>) -> Client {
        if self.is_local(source) {
            return Client::Node;
        }
        let rules = self.model.rules.get(&Family::of(source));
        let is_pod = |RuleSettings { local_pods, .. }: &RuleSettings| match local_pods {
            LocalPods::Unknown => None,
            LocalPods::From(network) => Some(network.contains(&source)),
            LocalPods::Device(name) => device.map(|device| device == name.as_str()),
            LocalPods::DevicePrefix(name) => device.map(|device| device.starts_with(name.as_str())),
        };
        match rules.and_then(is_pod) {
            Some(true) => Client::Pod,
            Some(false) => Client::Outside,
            None => Client::Unknown,
        }
    }
}

/// What becomes of a packet.
///
/// # Errors
/// One of the rules is not understood.
pub fn explain(flow: &Flow, world: &World<'_>) -> Result<Explanation, NotUnderstood> {
    let source = flow.source.unwrap_or_else(|| world.source_to(flow.target.ip()));
    let client = world.client(source, flow.device.as_deref());
    let mut packet = Packet {
        source,
        destination: flow.target.ip(),
        port: flow.target.port(),
        protocol: flow.protocol,
        device: flow.device.clone().filter(|_| client != Client::Node),
        out: None,
        mark: 0,
        is_masqueraded: false,
    };
    let mut walk = Walk::new(world, Family::of(flow.target.ip()));
    let outcome = match client {
        Client::Node => from_node(&mut walk, &mut packet, world),
        _ => from_elsewhere(&mut walk, &mut packet, world),
    }?;
    Ok(Explanation { source, client, steps: walk.steps, outcome })
}

/// IPVS takes the node's own packets before the table `filter` sees them.
fn from_node(walk: &mut Walk<'_>, packet: &mut Packet, world: &World<'_>) -> Result<Outcome, NotUnderstood> {
    if let Some(end) = end(walk.pass(Hook::Output, &["mangle", "nat"], packet)?) {
        return Ok(end);
    }
    if packet.destination == FAR_ADDRESS {
        return by_the_loop(walk, packet, world);
    }
    let balanced = balance(packet, world)?;
    if let (Some(Outcome::Unserved(..)), true) = (&balanced, world.balances_by_rules(Family::of(packet.destination))) {
        packet.device = Some("lo".into());
        return unserved(walk, packet, balanced);
    }
    if let Some(balanced) = balanced {
        return Ok(balanced);
    }
    if !world.is_local(packet.destination) {
        return Ok(Outcome::Forwarded);
    }
    packet.device = Some("lo".into());
    Ok(end(walk.pass(Hook::Input, &["filter"], packet)?).unwrap_or(Outcome::Delivered))
}

/// What is for a node port on a loopback address leaves by the near end of a veth pair, and comes in by the far end as
/// anybody's.
fn by_the_loop(walk: &mut Walk<'_>, packet: &mut Packet, world: &World<'_>) -> Result<Outcome, NotUnderstood> {
    packet.out = Some(NEAR_DEVICE);
    if let Some(end) = end(walk.pass(Hook::Postrouting, &["mangle", "nat"], packet)?) {
        return Ok(end);
    }
    (packet.out, packet.device, packet.mark) = (None, Some(FAR_DEVICE.into()), 0);
    from_elsewhere(walk, packet, world)
}

fn from_elsewhere(walk: &mut Walk<'_>, packet: &mut Packet, world: &World<'_>) -> Result<Outcome, NotUnderstood> {
    if let Some(end) = end(walk.pass(Hook::Prerouting, &["mangle", "nat"], packet)?) {
        return Ok(end);
    }
    if world.balances_by_rules(Family::of(packet.destination)) {
        match balance(packet, world)? {
            balanced @ Some(Outcome::Unserved(..)) => return unserved(walk, packet, balanced),
            Some(balanced) => return Ok(balanced),
            None => {}
        }
    }
    if !world.takes(packet) {
        return Ok(Outcome::Forwarded);
    }
    if let Some(end) = end(walk.pass(Hook::Input, &["filter"], packet)?) {
        return Ok(end);
    }
    Ok(balance(packet, world)?.unwrap_or(Outcome::Delivered))
}

/// Where rules balance, they let a packet that nobody is there for go on to those that drop or refuse it.
fn unserved(walk: &mut Walk<'_>, packet: &mut Packet, refused: Option<Outcome>) -> Result<Outcome, NotUnderstood> {
    match walk.pass(Hook::Input, &["filter"], packet)? {
        Fate::Dropped => Ok(Outcome::Dropped),
        Fate::Passed | Fate::Refused => Ok(refused.unwrap_or(Outcome::Refused)),
    }
}

fn end(fate: Fate) -> Option<Outcome> {
    match fate {
        Fate::Passed => None,
        Fate::Dropped => Some(Outcome::Dropped),
        Fate::Refused => Some(Outcome::Refused),
    }
}

/// The virtual servers that may take a packet, as IPVS looks for them (`ip_vs_service_find`), and rules too: by the whole
/// mark first, then by address. Port 0 is every port, which only others' virtual servers have.
fn keys(packet: &Packet) -> [VirtualServerKey; 3] {
    let Packet { destination, port, protocol, mark, .. } = *packet;
    let by_mark = VirtualServerKey::Mark { mark, family: Family::of(destination) };
    [by_mark, VirtualServerKey::new(destination, port, protocol), VirtualServerKey::new(destination, 0, protocol)]
}

/// What becomes of a packet that a virtual server takes. None if none takes it.
fn balance(packet: &Packet, world: &World<'_>) -> Result<Option<Outcome>, NotUnderstood> {
    let keys = keys(packet);
    let exists = |key: &&VirtualServerKey| world.model.virtual_servers.contains_key(key) || world.foreign.contains(key);
    let Some(key) = keys.iter().find(exists) else { return Ok(None) };
    let Some(server) = world.model.virtual_servers.get(key) else { return Ok(Some(Outcome::Foreign(*key))) };
    let takes_new = server.destinations.iter().filter(|(_, spec)| spec.weight > 0);
    let ways = takes_new.map(|(key, spec)| way(*key, spec.weight, packet, world));
    let ways = ways.collect::<Result<Vec<_>, _>>()?;
    Ok(Some(match ways.is_empty() {
        true => Outcome::Unserved(*key, server.spec),
        false => Outcome::Balanced(*key, server.spec, ways),
    }))
}

/// Behind IPVS a packet has its destination's address. Its destination is chosen, so that nat does not look again in
/// OUTPUT; where rules have chosen, it does not come there.
fn way(destination: DestinationKey, weight: u32, packet: &Packet, world: &World<'_>) -> Result<Way, NotUnderstood> {
    let mut packet =
        Packet { destination: destination.address, port: destination.port, device: None, ..packet.clone() };
    let mut walk = Walk::new(world, Family::of(destination.address));
    if !world.balances_by_rules(Family::of(destination.address)) {
        walk.pass(Hook::Output, &["mangle"], &mut packet)?;
    }
    walk.pass(Hook::Postrouting, &["mangle", "nat"], &mut packet)?;
    Ok(Way { destination, weight, is_masqueraded: packet.is_masqueraded, steps: walk.steps })
}
