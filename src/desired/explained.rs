//! How a Service was decided, for people: each port with its ways in and all its endpoints, chosen or not.
//!
//! The decisions are those that [`super::part`] makes, asked for once more.

use super::endpoints::{Candidates, Verdict};
use super::frontends::{self, Frontend};
use super::{Settings, part};
use crate::model::{DestinationKey, Family};
use crate::state::{Endpoint, EndpointSlice, Service, ServicePort, State, TrafficPolicy};
use std::ptr;

/// A port of a Service in one family, decided.
#[derive(Clone, Debug)]
pub struct ExplainedPort<'a> {
    /// The port.
    pub port: &'a ServicePort,
    /// The family.
    pub family: Family,
    /// Its ways in, in this family.
    pub frontends: Vec<Frontend>,
    /// All its endpoints in this family, sorted.
    pub endpoints: Vec<ExplainedEndpoint<'a>>,
    /// How many endpoints of this family are in slices that have no port of this name and protocol.
    pub without_port: usize,
}

/// An endpoint and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct ExplainedEndpoint<'a> {
    /// Where connections to it go.
    pub key: DestinationKey,
    /// What its slice says.
    pub endpoint: &'a Endpoint,
    /// What it is called.
    pub name: Option<&'a str>,
    /// For frontends with policy `Cluster` and clients on this node; none where nobody asks.
    pub cluster: Option<Verdict>,
    /// For frontends with policy `Local`; none where nobody asks.
    pub local: Option<Verdict>,
}

/// The ports of a Service, each in each family in which it has a way in or an endpoint.
pub fn explain<'a>(service: &'a Service, state: &'a State, settings: &'a Settings) -> Vec<ExplainedPort<'a>> {
    let of_port = |(index, port): (usize, &'a ServicePort)| {
        let frontends: Vec<_> = frontends::of_port(service, (index, port), state, settings).collect();
        let localhost = frontends::on_localhost(service, (index, port), settings);
        let of_family = move |family| {
            let frontends = frontends.iter().filter(|one| one.key.family() == family).copied().collect();
            let localhost = localhost.filter(|one| one.key.family() == family);
            PortInFamily { service, port, family, frontends, localhost }.explain(state)
        };
        service.families.iter().map(of_family)
    };
    let is_something =
        |port: &ExplainedPort<'_>| !port.frontends.is_empty() || !port.endpoints.is_empty() || port.without_port > 0;
    service.ports.iter().enumerate().flat_map(of_port).filter(is_something).collect()
}

/// A port of a Service in one family.
struct PortInFamily<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    family: Family,
    /// Its ways in.
    frontends: Vec<Frontend>,
    /// The one from 127.0.0.1.
    localhost: Option<Frontend>,
}

impl<'a> PortInFamily<'a> {
    fn explain(self, state: &'a State) -> ExplainedPort<'a> {
        let Self { service, port, family, frontends, localhost } = self;
        let slices: Vec<_> = state.slices(&service.name).filter(|slice| slice.family == family).collect();
        let candidates = Candidates::of(slices.iter().copied(), (&port.name, port.protocol), family);
        let uses = part::uses(&frontends.iter().collect::<Vec<_>>(), localhost.as_ref());
        let verdicts = |policy| candidates.verdicts(policy, part::zone(state));
        let both = verdicts(TrafficPolicy::Cluster).zip(verdicts(TrafficPolicy::Local));
        let endpoints = both.map(|((key, endpoint, cluster), (_, _, local))| ExplainedEndpoint {
            key,
            endpoint,
            name: name(endpoint, &slices),
            cluster: uses.cluster.then_some(cluster),
            local: uses.local.then_some(local),
        });
        let has_port = |slice: &EndpointSlice| {
            slice.ports.iter().any(|one| (&one.name, one.protocol) == (&port.name, port.protocol))
        };
        let without_port = slices.iter().filter(|slice| !has_port(slice)).map(|slice| slice.endpoints.len()).sum();
        ExplainedPort { port, family, endpoints: endpoints.collect(), frontends, without_port }
    }
}

/// Two slices may have the same address, so that it takes the endpoint itself to find its name.
fn name<'a>(endpoint: &Endpoint, slices: &[&'a EndpointSlice]) -> Option<&'a str> {
    let in_slice = |slice: &&'a EndpointSlice| {
        let index = slice.endpoints.iter().position(|one| ptr::eq(one, endpoint))?;
        slice.names.name(index)
    };
    slices.iter().find_map(in_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::state::Whereabouts::{self, Elsewhere, Here};
    use crate::state::{Change, EndpointNames, Families, ObjectName, SlicePort};
    use std::sync::Arc;

    fn service() -> Service {
        Service {
            families: [Family::Ipv4].into_iter().collect::<Families>(),
            cluster_ips: vec![[10, 96, 0, 1].into()],
            load_balancer_ips: vec![[203, 0, 113, 1].into()],
            ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
            external_policy: TrafficPolicy::Local,
            ..Service::new(ObjectName::new("default", "web"))
        }
    }

    fn slice(name: &str, port: &str, endpoints: &[(u8, Whereabouts)]) -> EndpointSlice {
        let endpoint = |&(last, node): &(u8, Whereabouts)| Endpoint { node, ..Endpoint::new([10, 1, 0, last].into()) };
        let names: Vec<_> = endpoints.iter().map(|(last, _)| format!("{name}-pod-{last}")).collect();
        let [slice, web] = [name, "web"].map(|name| ObjectName::new("default", name));
        EndpointSlice {
            ports: vec![SlicePort { name: port.into(), protocol: Protocol::Tcp, port: 8080 }],
            endpoints: endpoints.iter().map(endpoint).collect(),
            names: EndpointNames::new(names.iter().map(String::as_str)),
            ..EndpointSlice::new(slice, web, Family::Ipv4)
        }
    }

    #[test]
    fn every_endpoint_has_its_name_and_what_became_of_it() {
        let mut state = State::default();
        state.apply(Change::Service(Arc::new(service())));
        for slice in [
            slice("a", "http", &[(2, Elsewhere), (1, Here)]),
            // The same address again, and one of a port that the Service does not have.
            slice("b", "http", &[(2, Elsewhere)]),
            slice("c", "dns", &[(7, Here), (8, Here)]),
        ] {
            state.apply(Change::EndpointSlice(Arc::new(slice)));
        }
        let (service, settings) = (service(), Settings::default());
        let [port] = &explain(&service, &state, &settings)[..] else { panic!("one port in one family") };
        let endpoints: Vec<_> = port.endpoints.iter().map(|one| (one.name.unwrap(), one.cluster, one.local)).collect();
        let (chosen, other) = (Some(Verdict::Chosen), Some(Verdict::OnOtherNode));
        assert_eq!(endpoints, [("a-pod-1", chosen, chosen), ("a-pod-2", chosen, other)]);
        assert_eq!((port.frontends.len(), port.without_port), (2, 2));
    }

    #[test]
    fn where_nobody_asks_for_a_policy_there_is_no_verdict() {
        let mut state = State::default();
        state.apply(Change::EndpointSlice(Arc::new(slice("a", "http", &[(1, Here)]))));
        let service = Service { load_balancer_ips: vec![], ..service() };
        let settings = Settings::default();
        let [port] = &explain(&service, &state, &settings)[..] else { panic!("one port in one family") };
        assert_eq!(port.endpoints[0].local, None);
    }
}
