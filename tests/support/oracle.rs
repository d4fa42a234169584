//! What a list of changes asks of the kernel, said again in the plainest way: no plan, no increments, all at once.
//! For Services that do not ask for each other's addresses.

use ipvsd::model::{DestinationKey, DestinationSpec, Family, Model, Persistence, RouteSpec, VirtualServer};
use ipvsd::model::{SchedulerFlags, VirtualServerKey, VirtualServerSpec};
use ipvsd::state::{Change, Endpoint, EndpointSlice, Node, ObjectName, Service, ServicePort};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The cluster, as the last word on each object.
#[derive(Default)]
pub struct Cluster {
    services: BTreeMap<ObjectName, Arc<Service>>,
    slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    node: Node,
}

impl Cluster {
    pub fn take(&mut self, change: Change) {
        match change {
            Change::Service(service) => drop(self.services.insert(service.name.clone(), service)),
            Change::ServiceGone(name) => drop(self.services.remove(&name)),
            Change::EndpointSlice(slice) => drop(self.slices.insert(slice.name.clone(), slice)),
            Change::EndpointSliceGone(name) => drop(self.slices.remove(&name)),
            Change::Node(node) => self.node = node,
            Change::OnlyServices(names) => self.services.retain(|name, _| names.contains(name)),
            Change::OnlyEndpointSlices(names) => self.slices.retain(|name, _| names.contains(name)),
            Change::NodeObject(_) | Change::Doubt(_) => {}
        }
    }

    /// The kernel that is wanted, where `known` schedulers can be loaded and `foreign` keys are taken.
    pub fn model(&self, known: &[&str], foreign: &BTreeSet<VirtualServerKey>) -> Model {
        let mut model = Model::default();
        for service in self.services.values() {
            for port in &service.ports {
                let vips = service.cluster_ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
                let mut keys: Vec<_> = vips.map(|vip| VirtualServerKey::new(*vip, port.port, port.protocol)).collect();
                if let Some(node_port) = port.node_port {
                    let on = |address: &_| VirtualServerKey::new(*address, node_port, port.protocol);
                    keys.extend(self.node.addresses.iter().map(on));
                }
                for key in keys.into_iter().filter(|key| !foreign.contains(key)) {
                    model
                        .virtual_servers
                        .entry(key)
                        .or_insert_with(|| self.server(service, (port, key.family()), known));
                }
            }
        }
        for vip in model.virtual_servers.keys().filter_map(VirtualServerKey::address) {
            if !self.node.addresses.contains(&vip) {
                let preferred_source = self.node.primary(Family::of(vip));
                model.routes.insert(vip, RouteSpec { preferred_source });
            }
        }
        model
    }

    fn server(&self, service: &Service, (port, family): (&ServicePort, Family), known: &[&str]) -> VirtualServer {
        let scheduler = service.scheduling.map(|own| own.scheduler).filter(|own| known.contains(&own.as_str()));
        let scheduler = scheduler.unwrap_or("rr".parse().unwrap());
        let spec = VirtualServerSpec {
            scheduler,
            flags: if scheduler.as_str() == "mh" { SchedulerFlags::PORT } else { SchedulerFlags::default() },
            persistence: service.affinity.map(|timeout| Persistence { timeout, prefix: family.bits() }),
        };
        let ready = self.destinations(service, (port, family), |endpoint| endpoint.ready);
        let leaving = |endpoint: &Endpoint| endpoint.serving && endpoint.terminating;
        let destinations = if ready.is_empty() { self.destinations(service, (port, family), leaving) } else { ready };
        VirtualServer { spec, destinations: destinations.into_iter().collect() }
    }

    fn destinations(
        &self,
        service: &Service,
        (port, family): (&ServicePort, Family),
        wanted: impl Fn(&Endpoint) -> bool,
    ) -> BTreeMap<DestinationKey, DestinationSpec> {
        let mut best: BTreeMap<DestinationKey, Endpoint> = BTreeMap::new();
        for slice in self.slices.values().filter(|slice| slice.service == service.name && slice.family == family) {
            for target in
                slice.ports.iter().filter(|target| target.name == port.name && target.protocol == port.protocol)
            {
                for endpoint in &slice.endpoints {
                    let key = DestinationKey { address: endpoint.address, port: target.port };
                    let better = best.get(&key).is_none_or(|known| known.terminating && !endpoint.terminating);
                    if better {
                        best.insert(key, *endpoint);
                    }
                }
            }
        }
        best.retain(|_, endpoint| wanted(endpoint));
        best.into_iter().map(|(key, endpoint)| (key, DestinationSpec::masquerading(endpoint.weight))).collect()
    }
}
