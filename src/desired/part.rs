//! What one Service asks of this node's kernel: its part of the plan.

use super::endpoints::{Backends, Candidates, Uses};
use super::frontends::{self, Field, Frontend};
use super::local::{HealthCheck, LocalPart, Traffic};
use super::netfilter::NetfilterPart;
use super::netfilter::part::DecidedPort;
use super::{Settings, ipvs};
use crate::model::{Family, VirtualServer, VirtualServerKey, VirtualServerSpec};
use crate::state::{ObjectRef, Origin, Problem, Service, State, TrafficPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A Service's virtual servers, not yet compared with what others ask for.
#[derive(Debug, Default)]
pub struct Part {
    /// By key, with the frontend that asks for it.
    pub virtual_servers: BTreeMap<VirtualServerKey, (Frontend, VirtualServer)>,
    /// What its endpoints on this node mean to others.
    pub local: LocalPart,
    /// What it asks of netfilter.
    pub netfilter: NetfilterPart,
    /// What is wrong with the Service as this node sees it.
    pub problems: Vec<Problem>,
}

impl Part {
    /// The part of `service`.
    pub fn of(service: &Service, state: &State, settings: &Settings) -> Self {
        let mut part = Self::default();
        let zone = zone(state);
        let mut local_addresses = LocalAddresses::of(service);
        for (index, port) in service.ports.iter().enumerate() {
            let (refused, frontends): (Vec<_>, Vec<_>) = frontends::asked_for(service, (index, port), state, settings)
                .partition(|one| frontends::takes_api_server(service, one, state));
            part.problems.extend(refused.iter().map(|one| in_the_way(service, one)));
            let localhost = frontends::on_localhost(service, (index, port), settings);
            for family in service.families.iter() {
                let frontends: Vec<&Frontend> = frontends.iter().filter(|one| one.key.family() == family).collect();
                let localhost = localhost.as_ref().filter(|one| one.key.family() == family);
                if frontends.is_empty() && localhost.is_none() && local_addresses.0.is_empty() {
                    continue;
                }
                let candidates = Candidates::of(state.slices(&service.name), (&port.name, port.protocol), family);
                local_addresses.extend(&candidates, family);
                let backends = candidates.backends(uses(&frontends, localhost), zone);
                let spec = ipvs::spec(service, family, settings);
                part.serve(service, (&frontends, &backends), spec);
                let (frontends, candidates, backends) = (&frontends, &candidates, &backends);
                let decided = DecidedPort { service, port, family, frontends, localhost, candidates, backends };
                part.netfilter.add_port(decided, settings, state);
            }
        }
        part.netfilter.add_service(service, settings);
        part.local.health_checks = local_addresses.health_checks(service);
        part.problems.extend(missing_scheduler(service, settings));
        part.problems.extend(part.hosts_addresses(service, state, settings));
        part
    }

    /// Makes the virtual servers of frontends of one family. Policy `Local` never leads to another node, so without a
    /// local endpoint its virtual server has no destinations, and the kernel refuses connections.
    fn serve(&mut self, service: &Service, (frontends, backends): (&[&Frontend], &Backends), spec: VirtualServerSpec) {
        for frontend in frontends {
            let chosen = backends.of(frontend.policy);
            if frontend.policy == TrafficPolicy::Local && chosen.is_empty() && backends.has_any {
                let traffic = if frontend.field.is_external() { Traffic::External } else { Traffic::Internal };
                self.local.unserved.insert((traffic, frontend.key.family()));
            }
            self.add(service, frontend, ipvs::virtual_server(spec, chosen));
        }
    }

    /// Whoever may write a Service can take ports of a node with it: those of sshd, or of the kubelet. In a manifest it
    /// is no news that a VIP is the node's own, as where keepalived moves it from node to node.
    fn hosts_addresses(&self, service: &Service, state: &State, settings: &Settings) -> Vec<Problem> {
        let is_served = |vip| self.virtual_servers.keys().any(|key| key.address() == Some(vip));
        let external = frontends::vips(service, settings).filter(|(vip, field)| field.is_external() && is_served(*vip));
        let message = |address: IpAddr| {
            if state.node().addresses.contains(&address) {
                let ports = "at the Service's ports nothing else can be reached there";
                return (service.origin == Origin::Api).then(|| format!("is an address of this node: {ports}"));
            }
            let whose =
                if state.is_api_servers(address) { "the API server's address" } else { "an endpoint's address" };
            let reason = "it is not made local here, as nothing there could be reached from here any more";
            state.is_elsewhere(address).then(|| format!("is {whose}: {reason}"))
        };
        let told = external.filter_map(|(address, field)| Some((address, field, message(address)?)));
        let problem = |(address, field, message): (IpAddr, Field, String)| {
            problem(service, field.to_string(), format!("{address} {message}"))
        };
        told.map(problem).collect()
    }

    /// An address listed twice asks twice for the same virtual server, which is no problem; a port that asks for
    /// another port's virtual server is one.
    fn add(&mut self, service: &Service, frontend: &Frontend, server: VirtualServer) {
        match self.virtual_servers.get(&frontend.key) {
            None => drop(self.virtual_servers.insert(frontend.key, (*frontend, server))),
            Some((_, same)) if *same == server => {}
            Some((other, _)) => {
                let message = format!("{} is asked for by {} too, which has it", frontend.key, other.field);
                self.problems.push(problem(service, frontend.field.to_string(), message));
            }
        }
    }
}

/// The zone that this node is in. An empty label says nothing, as for kube-proxy.
pub fn zone(state: &State) -> Option<&str> {
    state.node_object().zone.as_deref().filter(|zone| !zone.is_empty())
}

/// A client on this node may use any endpoint even where the policy for those from outside is `Local`.
pub fn uses(frontends: &[&Frontend], localhost: Option<&Frontend>) -> Uses {
    let is_cluster = |one: &&Frontend| one.policy == TrafficPolicy::Cluster || one.field.is_external();
    let is_local = |one: &&Frontend| one.policy == TrafficPolicy::Local;
    Uses { cluster: frontends.iter().chain(&localhost).any(is_cluster), local: frontends.iter().any(is_local) }
}

/// The addresses of ready endpoints on this node, of any port; no families where nobody asks.
struct LocalAddresses(BTreeMap<Family, BTreeSet<IpAddr>>);

impl LocalAddresses {
    fn of(service: &Service) -> Self {
        let families = service.families.iter().filter(|_| service.health_check_node_port.is_some());
        Self(families.map(|family| (family, BTreeSet::new())).collect())
    }

    fn extend(&mut self, candidates: &Candidates<'_>, family: Family) {
        if let Some(addresses) = self.0.get_mut(&family) {
            addresses.extend(candidates.local_ready().map(|endpoint| endpoint.address));
        }
    }

    fn health_checks(self, service: &Service) -> BTreeMap<Family, HealthCheck> {
        let Some(port) = service.health_check_node_port else { return BTreeMap::new() };
        let check = |addresses: BTreeSet<IpAddr>| HealthCheck { port, local_endpoints: addresses.len() };
        self.0.into_iter().map(|(family, addresses)| (family, check(addresses))).collect()
    }
}

fn missing_scheduler(service: &Service, settings: &Settings) -> Option<Problem> {
    let scheduler = ipvs::missing_scheduler(service, settings)?;
    let usual = settings.scheduling.scheduler;
    let message =
        format!("the kernel cannot load the scheduler {scheduler} (module ip_vs_{scheduler}): {usual} serves instead");
    Some(problem(service, "metadata.annotations[ipvsd.io/scheduler]".into(), message))
}

/// A frontend is not served, as this node reads the cluster there.
fn in_the_way(service: &Service, refused: &Frontend) -> Problem {
    let reason =
        "is the API server's address and port: it is not served here, as this node could not read the cluster any more";
    problem(service, refused.field.to_string(), format!("{} {reason}", refused.key))
}

/// A problem with a Service.
pub fn problem(service: &Service, field: String, message: String) -> Problem {
    let object = Some(ObjectRef::Service(service.name.clone()));
    Problem { origin: service.origin.clone(), object, field, message }
}
