//! Random models and random changes of the input, from small worlds so that they meet each other.

use ipvsd::model::{
    DestinationKey, DestinationSpec, Family, Forwarding, Model, Persistence, Protocol, RouteSpec, SchedulerFlags,
    VirtualServer, VirtualServerKey, VirtualServerSpec,
};
use ipvsd::state::{
    Change, Endpoint, EndpointSlice, Node, ObjectName, Origin, Scheduling, Service, ServicePort, SlicePort,
};
use proptest::collection::{btree_map, btree_set, hash_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;
use std::sync::Arc;

pub fn model() -> impl Strategy<Value = Model> {
    let server = (spec(), btree_map(destination_key(), destination_spec(), 0..4))
        .prop_map(|(spec, destinations)| VirtualServer { spec, destinations: destinations.into_iter().collect() });
    let route =
        option::of(Just("192.0.2.1".parse().unwrap())).prop_map(|preferred_source| RouteSpec { preferred_source });
    (btree_map(virtual_server_key(), server, 0..6), btree_map(vip(), route, 0..4))
        .prop_map(|(virtual_servers, routes)| Model { virtual_servers, routes, ..Model::default() })
}

/// As [`model`], and perhaps with what kube-proxy left.
pub fn found_model() -> impl Strategy<Value = Model> {
    (model(), option::of(btree_set(vip(), 0..3)))
        .prop_map(|(model, kube_proxy_device)| Model { kube_proxy_device, ..model })
}

pub fn virtual_server_key() -> impl Strategy<Value = VirtualServerKey> {
    let port = prop_oneof![Just(80), Just(443)];
    (vip(), port, protocol()).prop_map(|(address, port, protocol)| VirtualServerKey::new(address, port, protocol))
}

fn spec() -> impl Strategy<Value = VirtualServerSpec> {
    let flags =
        prop_oneof![Just(SchedulerFlags::default()), Just(SchedulerFlags::PORT), Just(SchedulerFlags::FALLBACK)];
    let persistence = option::of(Just(Persistence { timeout: 300, prefix: 32 }));
    let scheduler = prop_oneof![Just("rr"), Just("sh"), Just("mh")].prop_map(|name| name.parse().unwrap());
    (scheduler, flags, persistence).prop_map(|(scheduler, flags, persistence)| VirtualServerSpec {
        scheduler,
        flags,
        persistence,
    })
}

fn destination_key() -> impl Strategy<Value = DestinationKey> {
    (0..4_u8, prop_oneof![Just(80), Just(8080)])
        .prop_map(|(last, port)| DestinationKey { address: IpAddr::from([10, 1, 0, last]), port })
}

fn destination_spec() -> impl Strategy<Value = DestinationSpec> {
    let forwarding = prop_oneof![Just(Forwarding::Masquerade), Just(Forwarding::Tunnel)];
    (0..3_u32, forwarding)
        .prop_map(|(weight, forwarding)| DestinationSpec { forwarding, ..DestinationSpec::masquerading(weight) })
}

fn vip() -> impl Strategy<Value = IpAddr> {
    (0..3_u8).prop_map(|last| IpAddr::from([10, 0, 0, last]))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)]
}

/// Changes of Services, slices and the node. With `overlap` Services may ask for each other's addresses.
pub fn changes(overlap: bool) -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => service(overlap).prop_map(|service| Change::Service(Arc::new(service))),
        2 => name("s").prop_map(Change::ServiceGone),
        6 => slice().prop_map(|slice| Change::EndpointSlice(Arc::new(slice))),
        2 => name("e").prop_map(Change::EndpointSliceGone),
        1 => hash_set(name("s"), 0..4).prop_map(Change::OnlyServices),
        1 => hash_set(name("e"), 0..4).prop_map(Change::OnlyEndpointSlices),
        1 => node().prop_map(Change::Node),
    ];
    vec(change, 0..12)
}

fn name(prefix: &'static str) -> impl Strategy<Value = ObjectName> {
    (0..4_u8).prop_map(move |number| ObjectName::new("default", &format!("{prefix}{number}")))
}

fn service(overlap: bool) -> impl Strategy<Value = Service> {
    let ports = vec((protocol(), any::<bool>()), 0..3);
    let scheduling = option::of(prop_oneof![Just("wrr"), Just("mh"), Just("nosuch")]);
    (0..4_u8, 0..4_u8, ports, option::of(Just(10_800)), scheduling, any::<bool>()).prop_map(
        move |(number, other, ports, affinity, scheduling, six)| {
            let mine = if overlap { other } else { number };
            let port = |(index, (protocol, node_port)): (usize, (Protocol, bool))| ServicePort {
                name: format!("p{index}").into(),
                protocol,
                port: 80 + u16::try_from(index).unwrap(),
                node_port: node_port.then(|| 30_000 + u16::from(mine) * 10 + u16::try_from(index).unwrap()),
            };
            let sixth = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(mine)]);
            Service {
                name: ObjectName::new("default", &format!("s{number}")),
                origin: Origin::Api,
                cluster_ips: [IpAddr::from([10, 0, 0, mine])].into_iter().chain(six.then_some(sixth)).collect(),
                external_ips: vec![IpAddr::from([10, 0, 1, mine])],
                load_balancer_ips: vec![],
                ports: ports.into_iter().enumerate().map(port).collect(),
                affinity,
                scheduling: scheduling.map(|name| Scheduling::with_usual_flags(name.parse().unwrap())),
            }
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let endpoint = (0..5_u8, any::<bool>(), any::<bool>(), any::<bool>(), 1..3_u32);
    (name("e"), 0..4_u8, any::<bool>(), vec(endpoint, 0..4)).prop_map(|(name, service, six, endpoints)| EndpointSlice {
        name,
        origin: Origin::Api,
        service: ObjectName::new("default", &format!("s{service}")),
        family: if six { Family::Ipv6 } else { Family::Ipv4 },
        ports: [(0, Protocol::Tcp), (1, Protocol::Udp), (1, Protocol::Tcp)]
            .map(|(index, protocol)| SlicePort { name: format!("p{index}").into(), protocol, port: 8080 + index })
            .into(),
        endpoints: endpoints.into_iter().map(|one| endpoint_of(six, one)).collect(),
    })
}

fn endpoint_of(six: bool, (last, ready, serving, terminating, weight): (u8, bool, bool, bool, u32)) -> Endpoint {
    let address = if six { [0xfd01, 0, 0, 0, 0, 0, 0, u16::from(last)].into() } else { [10, 1, 0, last].into() };
    Endpoint { address, ready, serving, terminating, weight }
}

/// Nodes whose addresses may include a VIP.
fn node() -> impl Strategy<Value = Node> {
    prop_oneof![Just(vec!["192.0.2.1"]), Just(vec!["192.0.2.1", "fd02::1", "10.0.1.2"]), Just(vec!["192.0.2.9"])]
        .prop_map(|addresses| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let primary_ipv6 = addresses.iter().find(|address| address.is_ipv6()).copied();
            Node { primary_ipv4: Some(addresses[0]), primary_ipv6, addresses: addresses.into_iter().collect() }
        })
}
