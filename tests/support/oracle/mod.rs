//! What a list of changes asks of the kernel, said again in the plainest way: no plan, no increments, all at once.
//! For Services that do not ask for each other's addresses.

pub mod netfilter;

use ipvsd::desired::{HealthCheck, NodePortAddresses, Settings, Traffic};
use ipvsd::model::{DestinationKey, DestinationSpec, Family, Model, Persistence, Protocol, RouteSpec, VirtualServer};
use ipvsd::model::{SchedulerFlags, VirtualServerKey, VirtualServerSpec};
use ipvsd::state::{
    Change, Endpoint, EndpointSlice, Node, NodeHint, NodeObject, ObjectName, Service, ServicePort, TrafficPolicy,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The cluster, as the last word on each object.
#[derive(Default)]
pub struct Cluster {
    settings: Settings,
    services: BTreeMap<ObjectName, Arc<Service>>,
    slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    node: Node,
    node_object: NodeObject,
    api_servers: BTreeSet<SocketAddr>,
}

type Endpoints = BTreeMap<DestinationKey, Endpoint>;

impl Cluster {
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub fn take(&mut self, change: Change) {
        match change {
            Change::Service(service) => drop(self.services.insert(service.name.clone(), service)),
            Change::ServiceGone(name) => drop(self.services.remove(&name)),
            Change::EndpointSlice(slice) => drop(self.slices.insert(slice.name.clone(), slice)),
            Change::EndpointSliceGone(name) => drop(self.slices.remove(&name)),
            Change::Node(node) => self.node = node,
            Change::NodeObject(object) => self.node_object = object,
            Change::OnlyServices(names) => self.services.retain(|name, _| names.contains(name)),
            Change::OnlyEndpointSlices(names) => self.slices.retain(|name, _| names.contains(name)),
            Change::ApiServers(servers) => self.api_servers = servers,
            Change::Doubt(_) => {}
        }
    }

    /// The kernel that is wanted, where `known` schedulers can be loaded and `foreign` keys are taken.
    pub fn model(&self, known: &[&str], foreign: &BTreeSet<VirtualServerKey>) -> Model {
        let mut model = Model::default();
        for service in self.services.values() {
            for port in &service.ports {
                let ways = self.ways_in(service, port).into_iter().filter(|(key, _)| !foreign.contains(key));
                for (key, traffic) in ways {
                    let endpoints = self.endpoints(service, port, key.family());
                    let chosen = match policy(service, traffic) {
                        TrafficPolicy::Cluster => self.of_cluster(&endpoints),
                        TrafficPolicy::Local => first_of(&[&|one| one.ready, &is_leaving], &local(&endpoints)),
                    };
                    let server = server(service, key.family(), (known, self.settings.shares_affinity), chosen);
                    model.virtual_servers.entry(key).or_insert(server);
                }
            }
        }
        for vip in model.virtual_servers.keys().filter_map(VirtualServerKey::address) {
            if !self.node.addresses.contains(&vip) && !self.is_elsewhere(vip) {
                let preferred_source = self.node.primary(Family::of(vip));
                model.routes.insert(vip, RouteSpec { preferred_source });
            }
        }
        if self.settings.netfilter.is_some() {
            self.add_netfilter(&mut model, known);
        }
        model
    }

    /// Whether an endpoint has an external address that is no cluster IP.
    fn is_elsewhere(&self, vip: IpAddr) -> bool {
        let services = || self.services.values();
        let is_external = services().any(|one| one.external_ips.contains(&vip) || one.load_balancer_ips.contains(&vip));
        let is_internal = services().any(|one| !one.ports.is_empty() && one.cluster_ips.contains(&vip));
        let mut endpoints = self.slices.values().filter(|slice| slice.is_of_nodes).flat_map(|slice| &slice.endpoints);
        let is_api = self.api_servers.iter().any(|server| server.ip() == vip);
        is_external && !is_internal && (is_api || endpoints.any(|one| one.address == vip))
    }

    /// Whether it would take this node's way to an API server. `vip` is an external or load-balancer IP.
    fn is_in_the_way(&self, service: &Service, port: &ServicePort, vip: IpAddr) -> bool {
        let is_the_clusters =
            *service.name.namespace == *"kube-system" || service.name == ObjectName::new("default", "kubernetes");
        port.protocol == Protocol::Tcp
            && !is_the_clusters
            && self.api_servers.contains(&SocketAddr::new(vip, port.port))
    }

    /// What load balancers are told in a family.
    pub fn health_checks(&self, family: Family) -> BTreeMap<ObjectName, HealthCheck> {
        let mut checks = BTreeMap::new();
        for service in self.services.values().filter(|service| service.families.contains(family)) {
            let Some(port) = service.health_check_node_port else { continue };
            let of_port = |port| local(&self.endpoints(service, port, family));
            let ready = service.ports.iter().flat_map(of_port).filter(|(_, endpoint)| endpoint.ready);
            let local_endpoints = ready.map(|(key, _)| key.address).collect::<BTreeSet<IpAddr>>().len();
            checks.insert(service.name.clone(), HealthCheck { port, local_endpoints });
        }
        checks
    }

    /// How many Services would be served if their policy were `Cluster`.
    pub fn unserved(&self, traffic: Traffic, family: Family) -> usize {
        let is_unserved = |service: &Arc<Service>| {
            let wants = |port: &ServicePort| {
                let ways = self.ways_in(service, port);
                let usable = |endpoints: &Endpoints| endpoints.values().any(|one| one.ready || is_leaving(one));
                let endpoints = self.endpoints(service, port, family);
                ways.iter().any(|(key, of)| *of == traffic && key.family() == family)
                    && usable(&endpoints)
                    && !usable(&local(&endpoints))
            };
            policy(service, traffic) == TrafficPolicy::Local && service.ports.iter().any(wants)
        };
        self.services.values().filter(|service| is_unserved(service)).count()
    }

    fn ways_in(&self, service: &Service, port: &ServicePort) -> Vec<(VirtualServerKey, Traffic)> {
        let at = |ip: &IpAddr, number, traffic| (VirtualServerKey::new(*ip, number, port.protocol), traffic);
        let mut ways: Vec<_> = service.cluster_ips.iter().map(|ip| at(ip, port.port, Traffic::Internal)).collect();
        let external = service.external_ips.iter().filter(|_| self.settings.external_ips_allowed);
        let outside = external.chain(&service.load_balancer_ips).filter(|ip| !self.is_in_the_way(service, port, **ip));
        ways.extend(outside.map(|ip| at(ip, port.port, Traffic::External)));
        for ip in self.node.addresses.iter().filter(|ip| self.has_node_ports(**ip)) {
            ways.extend(port.node_port.map(|number| at(ip, number, Traffic::External)));
        }
        ways.retain(|(key, _)| service.families.contains(key.family()));
        ways
    }

    fn has_node_ports(&self, ip: IpAddr) -> bool {
        match &self.settings.node_ports {
            NodePortAddresses::Any => true,
            NodePortAddresses::Within(ranges) => {
                let of_family: Vec<_> = ranges.iter().filter(|range| range.addr().is_ipv4() == ip.is_ipv4()).collect();
                of_family.is_empty() || of_family.iter().any(|range| range.contains(&ip))
            }
            NodePortAddresses::Primary => {
                let said = self.settings.bind_address.iter().chain(&self.node_object.addresses);
                let seen = [&self.node.primary_ipv4, &self.node.primary_ipv6].into_iter().flatten();
                let seen = seen.filter(|_| !self.settings.has_cluster);
                said.chain(seen).find(|other| other.is_ipv4() == ip.is_ipv4()) == Some(&ip)
            }
        }
    }

    /// Each endpoint once; while an address passes from pod to pod, the one that is not terminating.
    fn endpoints(&self, service: &Service, port: &ServicePort, family: Family) -> Endpoints {
        let mut best = Endpoints::new();
        for slice in self.slices.values().filter(|slice| slice.service == service.name && slice.family == family) {
            for target in
                slice.ports.iter().filter(|target| target.name == port.name && target.protocol == port.protocol)
            {
                for endpoint in &slice.endpoints {
                    let key = DestinationKey { address: endpoint.address, port: target.port };
                    let better = best.get(&key).is_none_or(|known| known.terminating && !endpoint.terminating);
                    if better {
                        best.insert(key, endpoint.clone());
                    }
                }
            }
        }
        best
    }

    /// Level by level, the closest first; a level counts if all that are ready have something to say about it.
    fn of_cluster(&self, endpoints: &Endpoints) -> Endpoints {
        let ready: Vec<&Endpoint> = endpoints.values().filter(|one| one.ready).collect();
        let here = |one: &Endpoint| one.node_hint == NodeHint::Here;
        let near = |one: &Endpoint| {
            let zone = self.node_object.zone.as_deref();
            zone.is_some_and(|zone| one.zones.as_ref().is_some_and(|zones| zones.contains(zone)))
        };
        let by_node = ready.iter().all(|one| one.node_hint != NodeHint::None);
        let by_zone = ready.iter().all(|one| one.zones.is_some());
        first_of(
            &[
                &|one| by_node && one.ready && here(one),
                &|one| by_zone && one.ready && near(one),
                &|one| one.ready,
                &is_leaving,
            ],
            endpoints,
        )
    }
}

fn policy(service: &Service, traffic: Traffic) -> TrafficPolicy {
    match traffic {
        Traffic::Internal => service.internal_policy,
        Traffic::External => service.external_policy,
    }
}

fn is_leaving(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

fn local(endpoints: &Endpoints) -> Endpoints {
    endpoints.iter().filter(|(_, one)| one.is_local()).map(|(key, one)| (*key, one.clone())).collect()
}

/// The endpoints of the first kind of which there is one.
fn first_of(kinds: &[&dyn Fn(&Endpoint) -> bool], endpoints: &Endpoints) -> Endpoints {
    let of_kind = |kind: &&dyn Fn(&Endpoint) -> bool| -> Endpoints {
        endpoints.iter().filter(|(_, one)| kind(one)).map(|(key, one)| (*key, one.clone())).collect()
    };
    kinds.iter().map(of_kind).find(|found| !found.is_empty()).unwrap_or_default()
}

fn server(service: &Service, family: Family, (known, is_shared): (&[&str], bool), chosen: Endpoints) -> VirtualServer {
    let [rr, mh] = ["rr", "mh"].map(|name| name.parse().unwrap());
    let (scheduler, flags) = match service.scheduling.map(|own| own.scheduler) {
        Some(own) if own == mh => (mh, SchedulerFlags::PORT),
        Some(own) if known.contains(&own.as_str()) => (own, SchedulerFlags::default()),
        None if service.affinity.is_some() && is_shared => (mh, SchedulerFlags::FALLBACK),
        _ => (rr, SchedulerFlags::default()),
    };
    let spec = VirtualServerSpec {
        scheduler,
        flags,
        persistence: service.affinity.map(|timeout| Persistence { timeout, prefix: family.bits() }),
    };
    let destination = |(key, one): (_, Endpoint)| (key, DestinationSpec::masquerading(one.weight.into()));
    VirtualServer { spec, destinations: chosen.into_iter().map(destination).collect() }
}
