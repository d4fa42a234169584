//! Which endpoints get a Service port's traffic, and with which weight: those of the cluster, and those of this node.

use crate::model::{DestinationKey, Family, Protocol};
use crate::state::{Endpoint, EndpointSlice, NodeHint, TrafficPolicy, Whereabouts};
use litemap::LiteMap;

/// Destinations that were chosen, with their weights, sorted.
pub type Chosen = LiteMap<DestinationKey, u16>;

/// The endpoints of one Service port in one family, each once, sorted.
#[derive(Clone, Debug, Default)]
pub struct Candidates<'a>(Vec<(DestinationKey, &'a Endpoint)>);

/// Which of the two sets of [`Backends`] somebody asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// A frontend has policy `Cluster`, or is one from outside, where clients on this node may use any endpoint.
    pub cluster: bool,
    /// A frontend has policy `Local`.
    pub local: bool,
}

/// Where connections to one Service port go, in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// For policy `Cluster`; empty where nobody asks.
    pub cluster: Chosen,
    /// For policy `Local`; empty where nobody asks.
    pub local: Chosen,
    /// Whether there is an endpoint for any of the sets asked for, if need be on another node.
    pub has_any: bool,
}

/// Whether an endpoint gets traffic by a policy, and if not, what stands against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is ready, and gets traffic.
    Chosen,
    /// It is on its way out, and gets traffic because nothing else is left.
    LastResort,
    /// It is on another node, where the policy is `Local`.
    OnOtherNode,
    /// Its hints are for clients on other nodes.
    ForOtherNodes,
    /// Its hints are for clients in other zones.
    ForOtherZones,
    /// It is not ready.
    NotReady,
    /// It is on its way out, and others are left or it does not serve any more.
    Terminating,
}

impl Verdict {
    /// Whether it gets traffic.
    pub fn is_chosen(self) -> bool {
        matches!(self, Self::Chosen | Self::LastResort)
    }
}

impl<'a> Candidates<'a> {
    /// Those in the slices of a Service. A slice's port belongs to the Service's port of the same name and protocol, and
    /// gives the target port.
    ///
    /// The same address and port may stand in several slices while a pod's address passes to another pod: one that is
    /// not terminating beats one that is.
    pub fn of(
        slices: impl Iterator<Item = &'a EndpointSlice>,
        (name, protocol): (&str, Protocol),
        family: Family,
    ) -> Self {
        let mut found: Vec<(DestinationKey, &Endpoint)> = Vec::new();
        for slice in slices.filter(|slice| slice.family == family) {
            for port in slice.ports.iter().filter(|port| &*port.name == name && port.protocol == protocol) {
                let key = |endpoint: &Endpoint| DestinationKey { address: endpoint.address, port: port.port };
                found.extend(slice.endpoints.iter().map(|endpoint| (key(endpoint), endpoint)));
            }
        }
        // Stable, so of those that are equal the first one stays.
        found.sort_by_key(|(key, endpoint)| (*key, endpoint.terminating));
        found.dedup_by_key(|(key, _)| *key);
        Self(found)
    }

    /// Those that are on this node and ready.
    pub fn local_ready(&self) -> impl Iterator<Item = &'a Endpoint> {
        self.0.iter().map(|(_, endpoint)| *endpoint).filter(|endpoint| endpoint.is_local() && endpoint.ready)
    }

    /// Those that can reach themselves through the Service by this node, ready or not: all that nobody says are on another.
    pub fn own_clients(&self) -> impl Iterator<Item = DestinationKey> {
        self.0.iter().filter(|(_, endpoint)| endpoint.node != Whereabouts::Elsewhere).map(|(key, _)| *key)
    }

    /// The endpoints to use, where the node is in `zone`.
    ///
    /// In either set those that are ready; where none is, those that are terminating but still serving. Hints choose
    /// among the ready ones of the cluster, and have no say in what is local.
    pub fn backends(&self, uses: Uses, zone: Option<&str>) -> Backends {
        let chosen = |policy| self.chosen(policy, zone);
        let cluster = if uses.cluster { chosen(TrafficPolicy::Cluster) } else { Chosen::new() };
        let local = if uses.local { chosen(TrafficPolicy::Local) } else { Chosen::new() };
        let is_usable = |(_, endpoint): &(_, &Endpoint)| endpoint.ready || endpoint.is_last_resort();
        let has_any = !cluster.is_empty() || (uses.local && self.0.iter().any(is_usable));
        Backends { cluster, local, has_any }
    }

    /// Each with its verdict by a policy, where the node is in `zone`: those that [`Candidates::backends`] chooses, and
    /// why not the others.
    pub fn verdicts(
        &self,
        policy: TrafficPolicy,
        zone: Option<&str>,
    ) -> impl Iterator<Item = (DestinationKey, &'a Endpoint, Verdict)> {
        let choice = self.choice(policy, zone);
        self.0.iter().map(move |(key, endpoint)| (*key, *endpoint, choice.verdict(endpoint)))
    }

    fn chosen(&self, policy: TrafficPolicy, zone: Option<&str>) -> Chosen {
        let chosen = self.verdicts(policy, zone).filter(|(_, _, verdict)| verdict.is_chosen());
        chosen.map(|(key, endpoint, _)| (key, endpoint.weight)).collect()
    }

    fn choice<'z>(&self, policy: TrafficPolicy, zone: Option<&'z str>) -> Choice<'z> {
        let is_local_only = policy == TrafficPolicy::Local;
        let has_ready = self.0.iter().any(|(_, endpoint)| endpoint.ready && (endpoint.is_local() || !is_local_only));
        let nearness = if is_local_only { Nearness::Any } else { self.nearness(zone) };
        Choice { is_local_only, has_ready, nearness, zone }
    }

    /// The closest level of hints that works for this node. One ready endpoint without a hint of a level switches it
    /// off: the hints are being rolled out, and what they say in part would overload those that have some.
    fn nearness(&self, zone: Option<&str>) -> Nearness {
        let ready = || self.0.iter().map(|(_, endpoint)| *endpoint).filter(|endpoint| endpoint.ready);
        let works = |level: Nearness, is_hinted: fn(&Endpoint) -> bool| {
            ready().all(is_hinted) && ready().any(|endpoint| level.is_of(endpoint, zone))
        };
        if works(Nearness::SameNode, |endpoint| endpoint.node_hint != NodeHint::None) {
            Nearness::SameNode
        } else if works(Nearness::SameZone, |endpoint| endpoint.zones.is_some()) {
            Nearness::SameZone
        } else {
            Nearness::Any
        }
    }
}

impl Backends {
    /// The set for a policy.
    pub fn of(&self, policy: TrafficPolicy) -> &Chosen {
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }
}

/// What the endpoints together say about each of them.
#[derive(Clone, Copy, Debug)]
struct Choice<'z> {
    /// Only those of this node are asked for.
    is_local_only: bool,
    /// One of those asked for is ready. Then by `nearness` one is near as well.
    has_ready: bool,
    nearness: Nearness,
    /// The node's.
    zone: Option<&'z str>,
}

impl Choice<'_> {
    fn verdict(&self, endpoint: &Endpoint) -> Verdict {
        let is_near = || self.nearness.is_of(endpoint, self.zone);
        match self.nearness {
            _ if self.is_local_only && !endpoint.is_local() => Verdict::OnOtherNode,
            _ if endpoint.ready && is_near() => Verdict::Chosen,
            Nearness::SameNode if endpoint.ready => Verdict::ForOtherNodes,
            _ if endpoint.ready => Verdict::ForOtherZones,
            _ if !self.has_ready && endpoint.is_last_resort() => Verdict::LastResort,
            _ if endpoint.terminating => Verdict::Terminating,
            _ => Verdict::NotReady,
        }
    }
}

/// How close an endpoint must be by its hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearness {
    SameNode,
    SameZone,
    Any,
}

impl Nearness {
    fn is_of(self, endpoint: &Endpoint, zone: Option<&str>) -> bool {
        match self {
            Self::SameNode => endpoint.node_hint == NodeHint::Here,
            Self::SameZone => zone.zip(endpoint.zones.as_ref()).is_some_and(|(zone, zones)| zones.contains(zone)),
            Self::Any => true,
        }
    }
}

#[cfg(test)]
mod tests;
