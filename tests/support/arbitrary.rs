//! Random models and random changes of the input, from small worlds so that they meet each other.

use ipnet::IpNet;
use ipvsd::desired::{DetectLocal, NetfilterSettings, NodePortAddresses, Settings};
use ipvsd::model::netfilter::{AddressPort, Capacity, Mark, Member, RuleSettings, Set, SetKey, SetKind};
use ipvsd::model::{
    DestinationKey, DestinationSpec, Family, Forwarding, Leftover, LocalhostPath, Model, Persistence, Protocol,
    RouteSpec, SchedulerFlags, VirtualServer, VirtualServerKey, VirtualServerSpec,
};
use ipvsd::state::{
    Change, Endpoint, EndpointNames, EndpointSlice, Families, Node, NodeHint, NodeObject, ObjectName, Origin,
    Scheduling, Service, ServicePort, SlicePort, TrafficPolicy, Whereabouts, Zones,
};
use proptest::collection::{btree_map, btree_set, hash_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub fn model() -> impl Strategy<Value = Model> {
    let server = (spec(), btree_map(destination_key(), destination_spec(), 0..4))
        .prop_map(|(spec, destinations)| VirtualServer { spec, destinations: destinations.into_iter().collect() });
    let route =
        option::of(Just("192.0.2.1".parse().unwrap())).prop_map(|preferred_source| RouteSpec { preferred_source });
    let rules = btree_map(prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)], rule_settings(), 0..3);
    let path = option::of(Just(LocalhostPath::Whole));
    (btree_map(virtual_server_key(), server, 0..6), btree_map(vip(), route, 0..4), sets(), rules, path).prop_map(
        |(virtual_servers, routes, sets, rules, localhost_path)| Model {
            virtual_servers,
            routes,
            sets,
            rules,
            localhost_path,
            ..Model::default()
        },
    )
}

/// Few sets, so that two models have some in common; all are large enough for their members.
fn sets() -> impl Strategy<Value = BTreeMap<SetKey, Set>> {
    let kind = prop_oneof![Just(SetKind::ClusterIp), Just(SetKind::ShortCircuit), Just(SetKind::NoLocal)];
    let key = kind.prop_map(|kind| SetKey { kind, family: Family::Ipv4 });
    let mark = option::of((1..3_u16, protocol()).prop_map(|(number, protocol)| Mark::new(number, protocol).unwrap()));
    let capacity = prop_oneof![Just(Capacity::LEAST), Just(Capacity::MOST)];
    let set = (capacity, btree_map(address_port().prop_map(Member::AddressPort), mark, 0..4));
    btree_map(key, set.prop_map(|(capacity, members)| Set { capacity, members }), 0..3)
}

fn address_port() -> impl Strategy<Value = AddressPort> {
    (vip(), protocol(), 80..82_u16).prop_map(|(address, protocol, port)| AddressPort { address, protocol, port })
}

fn rule_settings() -> impl Strategy<Value = RuleSettings> {
    let text = prop_oneof![
        Just("masquerade 0x4000"),
        Just("masquerade 0x4000, localhost"),
        Just("masquerade 0x4000, all, pods from 10.244.0.0/16")
    ];
    text.prop_map(|text| text.parse().unwrap())
}

/// As [`model`], and perhaps with what kube-proxy left, and without a part of the way from 127.0.0.1.
pub fn found_model() -> impl Strategy<Value = Model> {
    let family = || prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)];
    let rules = [Leftover::Rules, Leftover::OtherRules, Leftover::Table];
    let leftover = (0..3_usize, family()).prop_map(move |(kind, family)| rules[kind](family));
    let path = option::of(prop_oneof![Just(LocalhostPath::Whole), Just(LocalhostPath::Broken)]);
    (model(), option::of(btree_set(vip(), 0..3)), btree_set(leftover, 0..3), path).prop_map(
        |(model, kube_proxy_device, kube_proxy_leftovers, localhost_path)| Model {
            kube_proxy_device,
            kube_proxy_leftovers,
            localhost_path,
            ..model
        },
    )
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
        1 => name("s").prop_map(Change::ServiceGone),
        8 => slice().prop_map(|slice| Change::EndpointSlice(Arc::new(slice))),
        1 => name("e").prop_map(Change::EndpointSliceGone),
        1 => hash_set(name("s"), 1..4).prop_map(Change::OnlyServices),
        1 => hash_set(name("e"), 1..4).prop_map(Change::OnlyEndpointSlices),
        1 => node().prop_map(Change::Node),
        3 => node_object().prop_map(Change::NodeObject),
        1 => btree_set(api_server(), 0..3).prop_map(Change::ApiServers),
    ];
    vec(change, 0..12)
}

/// Where Services have addresses too, cluster IPs among them.
fn api_server() -> impl Strategy<Value = SocketAddr> {
    (0..3_u8, 0..4_u8, 80..82_u16).prop_map(|(net, last, port)| ([10, 0, net, last], port).into())
}

fn name(prefix: &'static str) -> impl Strategy<Value = ObjectName> {
    (0..4_u8).prop_map(move |number| ObjectName::new("default", &format!("{prefix}{number}")))
}

fn service(overlap: bool) -> impl Strategy<Value = Service> {
    // Slices have TCP and UDP.
    let protocol = prop_oneof![2 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => protocol()];
    let ports = vec((protocol, any::<bool>()), 0..3);
    let scheduling = option::of(prop_oneof![Just("wrr"), Just("mh"), Just("nosuch")]);
    let health_check = option::of(Just(32_000));
    (0..4_u8, 0..4_u8, ports, option::of(Just(10_800)), scheduling, families(), policies(), health_check).prop_map(
        move |(number, other, ports, affinity, scheduling, families, policies, health_check_node_port)| {
            let mine = if overlap { other } else { number };
            let port = |(index, (protocol, node_port)): (usize, (Protocol, bool))| ServicePort {
                name: format!("p{index}").into(),
                protocol,
                port: 80 + u16::try_from(index).unwrap(),
                node_port: node_port.then(|| 30_000 + u16::from(mine) * 10 + u16::try_from(index).unwrap()),
            };
            let sixth = |net| IpAddr::from([0xfd00, net, 0, 0, 0, 0, 0, u16::from(mine)]);
            let each = |four: [u8; 4], six: IpAddr| {
                let both = [IpAddr::from(four), six];
                both.into_iter().filter(|ip| families.contains(Family::of(*ip))).collect::<Vec<_>>()
            };
            Service {
                name: ObjectName::new("default", &format!("s{number}")),
                origin: Origin::Api,
                families,
                cluster_ips: each([10, 0, 0, mine], sixth(0)),
                external_ips: each([10, 0, 1, mine], sixth(1)),
                load_balancer_ips: each([10, 0, 2, mine], sixth(2)),
                source_ranges: if affinity.is_some() { source_ranges() } else { vec![] },
                ports: ports.into_iter().enumerate().map(port).collect(),
                affinity,
                internal_policy: policies.0,
                external_policy: policies.1,
                health_check_node_port,
                scheduling: scheduling.map(|name| Scheduling::with_usual_flags(name.parse().unwrap())),
                drain_timeout: affinity.map(|_| Duration::from_secs(2)),
            }
        },
    )
}

/// Of both families; the node is in one of them.
fn source_ranges() -> Vec<IpNet> {
    ["192.0.2.0/29", "203.0.113.7/32", "fd09::/16"].map(|range| range.parse().unwrap()).into()
}

fn families() -> impl Strategy<Value = Families> {
    prop_oneof![
        2 => Just(Families::BOTH),
        2 => Just(Families { ipv4: true, ipv6: false }),
        1 => Just(Families { ipv4: false, ipv6: true })
    ]
}

fn policies() -> impl Strategy<Value = (TrafficPolicy, TrafficPolicy)> {
    let policy = || prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)];
    (policy(), policy())
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    (name("e"), 0..4_u8, prop::bool::weighted(0.3), vec(endpoint(), 0..4), any::<bool>()).prop_map(
        |(name, service, six, endpoints, is_of_nodes)| EndpointSlice {
            is_of_nodes,
            name,
            origin: Origin::Api,
            service: ObjectName::new("default", &format!("s{service}")),
            family: if six { Family::Ipv6 } else { Family::Ipv4 },
            ports: [(0, Protocol::Tcp), (0, Protocol::Udp), (1, Protocol::Udp), (1, Protocol::Tcp)]
                .map(|(index, protocol)| SlicePort { name: format!("p{index}").into(), protocol, port: 8080 + index })
                .into(),
            endpoints: endpoints.into_iter().map(|endpoint| if six { in_ipv6(endpoint) } else { endpoint }).collect(),
            names: EndpointNames::default(),
        },
    )
}

/// Mostly ready and mostly with hints, as otherwise one of them would nearly always switch hints off.
fn endpoint() -> impl Strategy<Value = Endpoint> {
    let zones = prop_oneof![4 => Just("a"), 4 => Just("b"), 1 => Just("a b"), 1 => Just("")];
    let node_hint = prop_oneof![2 => Just(NodeHint::Here), 3 => Just(NodeHint::Elsewhere), 1 => Just(NodeHint::None)];
    let node =
        prop_oneof![2 => Just(Whereabouts::Here), 2 => Just(Whereabouts::Elsewhere), 1 => Just(Whereabouts::Unsaid)];
    let conditions = (prop::bool::weighted(0.7), any::<bool>(), any::<bool>());
    // Some have external addresses of Services.
    let address = (prop_oneof![5 => Just([1, 0]), 1 => Just([0, 1])], 0..5_u8);
    (address, 1..3_u16, conditions, node, node_hint, zones).prop_map(
        |(([second, third], last), weight, (ready, serving, terminating), node, node_hint, zones)| Endpoint {
            address: [10, second, third, last].into(),
            weight,
            ready,
            serving,
            terminating,
            node,
            node_hint,
            zones: Zones::new(zones.split_whitespace()).map(Arc::new),
        },
    )
}

fn in_ipv6(endpoint: Endpoint) -> Endpoint {
    let IpAddr::V4(address) = endpoint.address else { return endpoint };
    Endpoint { address: [0xfd01, 0, 0, 0, 0, 0, 0, u16::from(address.octets()[3])].into(), ..endpoint }
}

/// What an operator may decide that the deciding depends on.
pub fn settings() -> impl Strategy<Value = Settings> {
    let node_ports = prop_oneof![
        3 => Just(NodePortAddresses::Any),
        1 => Just(NodePortAddresses::Primary),
        1 => Just(NodePortAddresses::Within(vec!["192.0.2.8/29".parse().unwrap()])),
        1 => Just(NodePortAddresses::Within(vec!["127.0.0.0/8".parse().unwrap()])),
        1 => Just(NodePortAddresses::Within(vec!["192.0.2.0/29".parse().unwrap(), "::/0".parse().unwrap()])),
    ];
    let bind_address = option::weighted(0.2, Just("192.0.2.9".parse().unwrap()));
    let netfilter = option::of(netfilter_settings());
    (node_ports, bind_address, any::<[bool; 2]>(), prop::bool::weighted(0.8), netfilter).prop_map(
        |(node_ports, bind_address, [has_cluster, shares_affinity], external_ips_allowed, netfilter)| Settings {
            shares_affinity,
            netfilter,
            node_ports,
            bind_address,
            has_cluster,
            external_ips_allowed,
            ..Settings::default()
        },
    )
}

fn netfilter_settings() -> impl Strategy<Value = NetfilterSettings> {
    let detect_local = prop_oneof![
        Just(DetectLocal::Unknown),
        Just(DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap()])),
        Just(DetectLocal::NodeCidr),
    ];
    let families = prop_oneof![3 => Just(Families::BOTH), 1 => Just(Families { ipv4: true, ipv6: false })];
    (detect_local, families, any::<bool>(), any::<bool>()).prop_map(
        |(detect_local, families, masquerade_all, localhost_node_ports)| NetfilterSettings {
            detect_local,
            families,
            masquerade_all,
            localhost_node_ports,
            ..NetfilterSettings::default()
        },
    )
}

fn node_object() -> impl Strategy<Value = NodeObject> {
    let addresses = prop_oneof![Just(""), Just("192.0.2.9 fd02::1"), Just("203.0.113.1 192.0.2.1")];
    (option::of(prop_oneof![Just("a"), Just("b")]), addresses).prop_map(|(zone, addresses)| NodeObject {
        zone: zone.map(Arc::from),
        addresses: addresses.split_whitespace().map(|address| address.parse().unwrap()).collect(),
        ..NodeObject::default()
    })
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
