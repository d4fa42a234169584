//! What one Service asks of netfilter, and how it becomes part of the whole.

use super::claims::{Place, Placed};
use super::marks::MarkedPort;
use super::members::{self, Circumstances};
use super::{Claims, Marks};
use crate::desired::endpoints::{Backends, Candidates};
use crate::desired::frontends::Frontend;
use crate::desired::{Settings, ipvs, node_ports};
use crate::model::netfilter::mark::{LAST, LAST_FOR_LOCALHOST};
use crate::model::netfilter::{AddressPort, Member, SetKey, SetKind};
use crate::model::{Family, Model, VirtualServer, VirtualServerKey};
use crate::state::{ObjectName, Service, ServicePort, State, TrafficPolicy};
use std::collections::{BTreeMap, BTreeSet};

/// What one Service asks of netfilter.
#[derive(Debug, Default)]
pub struct NetfilterPart {
    /// Members of sets; those of a frontend only count if the Service has the frontend's virtual server.
    members: Vec<(Option<VirtualServerKey>, Place)>,
    /// Second virtual servers of ports, for clients on this node.
    short_circuits: Vec<ShortCircuit>,
}

/// The virtual server of a port for those clients on this node whose policy leads others to endpoints of this node only,
/// and for those that come by a loopback address.
#[derive(Debug)]
struct ShortCircuit {
    port: MarkedPort,
    /// One of them, for messages.
    frontend: Frontend,
    /// The frontends with that policy.
    frontends: Vec<VirtualServerKey>,
    /// The way in from loopback addresses, if there is one.
    localhost: Option<VirtualServerKey>,
    /// With the endpoints of the whole cluster.
    server: VirtualServer,
}

/// A port of a Service in one family, with what was decided about it.
#[derive(Clone, Copy, Debug)]
pub struct DecidedPort<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Its port.
    pub port: &'a ServicePort,
    /// The family.
    pub family: Family,
    /// Its ways in, in this family.
    pub frontends: &'a [&'a Frontend],
    /// Its way in from the node's loopback addresses.
    pub localhost: Option<&'a Frontend>,
    /// All its endpoints.
    pub candidates: &'a Candidates<'a>,
    /// Those that get traffic.
    pub backends: &'a Backends,
}

impl NetfilterPart {
    /// Adds what concerns the Service as a whole.
    pub fn add_service(&mut self, service: &Service, settings: &Settings) {
        let has = |family| settings.netfilter.as_ref().is_some_and(|settings| settings.families.contains(family));
        let places = members::of_health_check(service).filter(|(key, _)| has(key.family));
        self.members.extend(places.map(|place| (None, place)));
    }

    /// Adds what concerns a port, if netfilter is to know of its family.
    pub fn add_port(&mut self, decided: DecidedPort<'_>, settings: &Settings, state: &State) {
        let DecidedPort { service, port, family, frontends, candidates, backends, .. } = decided;
        if !settings.netfilter.as_ref().is_some_and(|settings| settings.families.contains(family)) {
            return;
        }
        let known = Circumstances {
            is_elsewhere: backends.local.is_empty() && backends.has_any,
            node: node_ports::primary(family, settings, state),
        };
        for frontend in frontends {
            let places = members::of_frontend(service, frontend, known).into_iter();
            self.members.extend(places.map(|place| (Some(frontend.key), place)));
        }
        self.members
            .extend(candidates.own_clients().map(|endpoint| (None, members::of_endpoint(endpoint, port.protocol))));
        self.short_circuits.extend(short_circuit(decided, settings));
    }
}

fn short_circuit(decided: DecidedPort<'_>, settings: &Settings) -> Option<ShortCircuit> {
    let DecidedPort { service, port, family, frontends, localhost, backends, .. } = decided;
    let is_local = |one: &&Frontend| one.field.is_external() && one.policy == TrafficPolicy::Local;
    let local: Vec<_> = frontends.iter().copied().filter(is_local).collect();
    let first = local.first().copied().or(localhost).filter(|_| !backends.cluster.is_empty())?;
    let spec = ipvs::short_circuit_spec(ipvs::spec(service, family, settings), settings);
    Some(ShortCircuit {
        port: MarkedPort { service: service.name.clone(), port: port.name.clone(), protocol: port.protocol, family },
        frontend: *first,
        frontends: local.iter().map(|frontend| frontend.key).collect(),
        localhost: localhost.map(|frontend| frontend.key),
        server: ipvs::virtual_server(spec, &backends.cluster),
    })
}

/// What all Services ask of netfilter, kept up to date Service by Service.
#[derive(Debug, Default)]
pub struct NetfilterPlan {
    marks: Marks,
    /// The members of all sets but that of the VIPs, which follows the routes.
    pub claims: Claims,
}

/// Members of short circuits, each with the virtual server without which it does not count.
pub type ShortCircuitMembers = Vec<(VirtualServerKey, Placed)>;

impl NetfilterPlan {
    /// Notes which marks the kernel has for frontends; to be called before the first Service comes.
    pub fn note_marks(&mut self, found: &Model) {
        self.marks.note(found);
    }

    /// Gives marks to the Service's short circuits. Returns their virtual servers, each with a frontend for messages, the
    /// members that lead to them, and the ports for which no mark is left.
    pub fn give_marks(
        &mut self,
        service: &ObjectName,
        part: &mut NetfilterPart,
    ) -> (BTreeMap<VirtualServerKey, (Frontend, VirtualServer)>, ShortCircuitMembers, Vec<Frontend>) {
        let short_circuits = std::mem::take(&mut part.short_circuits);
        let needed: BTreeSet<_> = short_circuits.iter().map(|one| one.port.clone()).collect();
        self.marks.keep_only(service, &needed);
        let (mut servers, mut members, mut without) = (BTreeMap::new(), Vec::new(), Vec::new());
        for ShortCircuit { port, frontend, frontends, localhost, server } in short_circuits {
            // What only matters on loopback addresses leaves some to the others.
            let last = if frontends.is_empty() { LAST_FOR_LOCALHOST } else { LAST };
            let known_by = frontends.iter().chain(&localhost).filter_map(address_port);
            let Some(mark) = self.marks.give(&port, last, known_by) else {
                without.push(frontend);
                continue;
            };
            let server_key = VirtualServerKey::Mark { mark: mark.bits(), family: port.family };
            let set = SetKey { kind: SetKind::ShortCircuit, family: port.family };
            let marked = |at| ((set, Member::AddressPort(at)), Some(mark));
            members.extend(frontends.iter().filter_map(|key| Some((*key, marked(address_port(key)?)))));
            if let Some(at) = localhost.as_ref().and_then(address_port) {
                members.extend([marked(at), (members::of_localhost(at), None)].map(|placed| (server_key, placed)));
            }
            servers.insert(server_key, (frontend, server));
        }
        (servers, members, without)
    }

    /// Takes in what a Service asks of the sets, where it has the virtual servers for which `has` says so.
    pub fn claim(
        &mut self,
        service: &ObjectName,
        (part, short_circuits): (NetfilterPart, ShortCircuitMembers),
        has: impl Fn(&VirtualServerKey) -> bool,
    ) {
        let plain = part.members.into_iter().filter(|(key, _)| key.as_ref().is_none_or(&has));
        let plain = plain.map(|(_, place)| (place, None));
        let marked = short_circuits.into_iter().filter(|(key, _)| has(key)).map(|(_, placed)| placed);
        self.claims.put(service, plain.chain(marked).collect());
    }

    /// Forgets a Service.
    pub fn remove(&mut self, service: &ObjectName) {
        self.marks.keep_only(service, &BTreeSet::new());
        self.claims.put(service, Vec::new());
    }
}

fn address_port(key: &VirtualServerKey) -> Option<AddressPort> {
    match *key {
        VirtualServerKey::Address { address, port, protocol } => Some(AddressPort { address, protocol, port }),
        VirtualServerKey::Mark { .. } => None,
    }
}
