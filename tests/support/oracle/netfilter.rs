//! What netfilter should hold, said again in the plainest way.

use super::{Cluster, is_leaving, local, server};
use ipvsd::desired::NodePortAddresses;
use ipvsd::desired::netfilter::rules;
use ipvsd::model::netfilter::{AddressPort, Capacity, Mark, Member, Set, SetKey, SetKind};
use ipvsd::model::{
    Family, LocalhostPath, Model, Persistence, Protocol, SchedulerFlags, VirtualServer, VirtualServerKey,
};
use ipvsd::state::{Change, Service, ServicePort, State, TrafficPolicy, Whereabouts};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

type OnePort<'a> = (&'a Service, &'a ServicePort, Family);
type Members = BTreeMap<SetKey, BTreeMap<Member, Option<Mark>>>;

impl Cluster {
    /// Adds sets, rules and the virtual servers of marks to what is wanted.
    pub fn add_netfilter(&self, model: &mut Model, known: &[&str]) {
        let mut state = State::default();
        state.apply(Change::NodeObject(self.node_object.clone()));
        let localhost = self.has_localhost(Family::Ipv4);
        model.rules = rules(self.settings.netfilter.as_ref(), &state, localhost);
        model.localhost_path = localhost.then_some(LocalhostPath::Whole);
        let mut members: Members = SetKey::all().map(|key| (key, BTreeMap::new())).collect();
        let mut marks = 0;
        for service in self.services.values() {
            for (family, port) in
                service.families.iter().flat_map(|family| service.ports.iter().map(move |p| (family, p)))
            {
                marks += 1;
                let mark = Mark::new(marks, port.protocol).unwrap();
                self.add_port((service, port, family), mark, &mut members);
                self.add_short_circuit((service, port, family), (mark, known), model);
            }
            for family in service.families.iter() {
                let port = service.health_check_node_port.map(|port| (Member::Port(port), None));
                members.get_mut(&key(SetKind::HealthCheckNodePort, family)).unwrap().extend(port);
            }
        }
        for vip in model.routes.keys() {
            members.get_mut(&key(SetKind::Vips, Family::of(*vip))).unwrap().insert(Member::Address(*vip), None);
        }
        members.retain(|key, _| model.rules.contains_key(&key.family));
        model.sets = members.into_iter().map(|(key, members)| (key, Set::with(key.kind, members))).collect();
    }

    fn add_port(&self, (service, port, family): OnePort<'_>, mark: Mark, members: &mut Members) {
        let mut adding = Adding { members, family };
        let endpoints = self.endpoints(service, port, family);
        for own in endpoints.iter().filter(|(_, one)| one.node != Whereabouts::Elsewhere).map(|(key, _)| key) {
            let endpoint = AddressPort { address: own.address, protocol: port.protocol, port: own.port };
            adding.add(SetKind::LoopBack, Member::AddressPortAddress(endpoint, own.address), None);
        }
        let at = |address: &IpAddr, port_number| AddressPort {
            address: *address,
            protocol: port.protocol,
            port: port_number,
        };
        let of_family = |addresses: &[IpAddr]| -> Vec<AddressPort> {
            addresses.iter().filter(|ip| Family::of(**ip) == family).map(|ip| at(ip, port.port)).collect()
        };
        for frontend in of_family(&service.cluster_ips) {
            adding.add(SetKind::ClusterIp, Member::AddressPort(frontend), None);
        }
        let is_local = service.external_policy == TrafficPolicy::Local;
        let mut external = if self.settings.external_ips_allowed { of_family(&service.external_ips) } else { vec![] };
        let mut balancer = of_family(&service.load_balancer_ips);
        for outside in [&mut external, &mut balancer] {
            outside.retain(|one| !self.is_in_the_way(service, port, one.address));
        }
        let node = self.node.addresses.iter().filter(|ip| Family::of(**ip) == family && self.has_node_ports(**ip));
        let node: Vec<_> = node.filter_map(|ip| Some(at(ip, port.node_port?))).collect();
        let external_kind = if is_local { SetKind::ExternalIpLocal } else { SetKind::ExternalIp };
        external.iter().for_each(|frontend| adding.add(external_kind, Member::AddressPort(*frontend), None));
        for frontend in &balancer {
            adding.add(SetKind::LoadBalancer, Member::AddressPort(*frontend), None);
            if is_local {
                adding.add(SetKind::LoadBalancerLocal, Member::AddressPort(*frontend), None);
            }
            self.add_source_ranges(service, *frontend, &mut adding);
        }
        add_node_ports(&node, is_local, &mut adding);
        let has_any = !self.of_cluster(&endpoints).is_empty();
        if let Some(number) = port.node_port.filter(|_| has_any && self.has_localhost(family)) {
            add_localhost(port.protocol, (number, mark), &mut adding);
        }
        if is_local {
            let usable = endpoints.values().any(|one| one.ready || is_leaving(one));
            let local_usable = local(&endpoints).values().any(|one| one.ready || is_leaving(one));
            for frontend in external.iter().chain(&balancer).chain(&node) {
                if usable && !local_usable {
                    adding.add(SetKind::NoLocal, Member::AddressPort(*frontend), None);
                }
                if has_any {
                    adding.add(SetKind::ShortCircuit, Member::AddressPort(*frontend), Some(mark));
                }
            }
        }
    }

    fn add_source_ranges(&self, service: &Service, frontend: AddressPort, adding: &mut Adding<'_>) {
        let family = adding.family;
        let ranges = service.source_ranges.iter().filter(|range| Family::of(range.addr()) == family);
        for range in ranges {
            adding.add(SetKind::LoadBalancerFirewall, Member::AddressPort(frontend), None);
            adding.add(SetKind::LoadBalancerSourceCidr, Member::AddressPortNet(frontend, range.trunc()), None);
            if self.primary(family).is_some_and(|node| range.contains(&node)) {
                let itself = Member::AddressPortAddress(frontend, frontend.address);
                adding.add(SetKind::LoadBalancerSourceIp, itself, None);
            }
        }
    }

    fn add_short_circuit(
        &self,
        (service, port, family): OnePort<'_>,
        (mark, known): (Mark, &[&str]),
        model: &mut Model,
    ) {
        let chosen = self.of_cluster(&self.endpoints(service, port, family));
        let ways = self.ways_in(service, port);
        let is_external =
            ways.iter().any(|(key, traffic)| key.family() == family && *traffic == ipvsd::desired::Traffic::External);
        let is_local = service.external_policy == TrafficPolicy::Local && is_external;
        let is_on_localhost = port.node_port.is_some() && self.has_localhost(family);
        if !model.rules.contains_key(&family) || chosen.is_empty() || !(is_local || is_on_localhost) {
            return;
        }
        let VirtualServer { mut spec, destinations } =
            server(service, family, (known, self.settings.shares_affinity), chosen);
        if let Some(Persistence { .. }) = spec.persistence.take() {
            spec.scheduler = "mh".parse().unwrap();
            spec.flags = SchedulerFlags::FALLBACK;
        }
        let key = VirtualServerKey::Mark { mark: mark.bits(), family };
        model.virtual_servers.insert(key, VirtualServer { spec, destinations });
    }

    /// Whether node ports are on 127.0.0.1.
    fn has_localhost(&self, family: Family) -> bool {
        let is_wanted =
            self.settings.netfilter.as_ref().is_some_and(|one| one.localhost_node_ports && one.families.ipv4);
        is_wanted
            && family == Family::Ipv4
            && self.settings.node_ports != NodePortAddresses::Primary
            && self.has_node_ports(Ipv4Addr::LOCALHOST.into())
    }

    fn primary(&self, family: Family) -> Option<IpAddr> {
        let said = self.settings.bind_address.iter().chain(&self.node_object.addresses);
        let seen = self.node.primary(family).filter(|_| !self.settings.has_cluster);
        said.copied().chain(seen).find(|address| Family::of(*address) == family)
    }
}

/// The same with marks numbered in the order of their frontends, and with sets that are as large as they must be: which
/// number a port has is of no matter, and what is larger stays so.
pub fn comparable(mut model: Model) -> Model {
    let mut numbers: BTreeMap<(Family, u32), u32> = BTreeMap::new();
    for (key, set) in &mut model.sets {
        set.capacity = Capacity::for_members(key.kind, set.members.len());
        for (member, mark) in set.members.iter_mut().filter(|_| key.kind == SetKind::ShortCircuit) {
            let (Some(old), Member::AddressPort(frontend)) = (*mark, member) else { continue };
            let next = u16::try_from(numbers.len()).unwrap() + 1;
            let new = Mark::new(next, frontend.protocol).unwrap().bits();
            let new = *numbers.entry((key.family, old.bits())).or_insert(new);
            *mark = Mark::from_bits(new);
        }
    }
    let renumber = |key| match key {
        VirtualServerKey::Mark { mark, family } => {
            VirtualServerKey::Mark { mark: numbers.get(&(family, mark)).copied().unwrap_or(mark), family }
        }
        key => key,
    };
    model.virtual_servers = model.virtual_servers.into_iter().map(|(key, server)| (renumber(key), server)).collect();
    model
}

fn key(kind: SetKind, family: Family) -> SetKey {
    SetKey { kind, family }
}

/// Members of the sets of a family that are being added.
struct Adding<'a> {
    members: &'a mut Members,
    family: Family,
}

impl Adding<'_> {
    fn add(&mut self, kind: SetKind, member: Member, mark: Option<Mark>) {
        self.members.get_mut(&key(kind, self.family)).unwrap().insert(member, mark);
    }
}

fn add_node_ports(node: &[AddressPort], is_local: bool, adding: &mut Adding<'_>) {
    for frontend in node {
        let (all, of_local) = match frontend.protocol {
            Protocol::Tcp => (SetKind::NodePortTcp, SetKind::NodePortLocalTcp),
            Protocol::Udp => (SetKind::NodePortUdp, SetKind::NodePortLocalUdp),
            Protocol::Sctp => (SetKind::NodePortSctp, SetKind::NodePortLocalSctp),
        };
        let member = if frontend.protocol == Protocol::Sctp {
            Member::AddressPort(*frontend)
        } else {
            Member::Port(frontend.port)
        };
        adding.add(all, member, None);
        if is_local {
            adding.add(of_local, member, None);
        }
    }
}

fn add_localhost(protocol: Protocol, (number, mark): (u16, Mark), adding: &mut Adding<'_>) {
    let client = AddressPort { address: Ipv4Addr::LOCALHOST.into(), protocol, port: number };
    match protocol {
        Protocol::Tcp => adding.add(SetKind::LocalhostTcp, Member::Port(number), None),
        Protocol::Udp => adding.add(SetKind::LocalhostUdp, Member::Port(number), None),
        Protocol::Sctp => adding.add(SetKind::LocalhostSctp, Member::AddressPort(client), None),
    }
    let far = AddressPort { address: [169, 254, 255, 119].into(), ..client };
    adding.add(SetKind::ShortCircuit, Member::AddressPort(far), Some(mark));
}
