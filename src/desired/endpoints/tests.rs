//! Which endpoints are chosen, case by case: hints and every way back from them, policies, terminating ones.

use super::*;
use crate::state::{EndpointNames, ObjectName, Origin, SlicePort, Zones};
use std::net::IpAddr;
use std::sync::Arc;

/// Reads `3`, `3:local,za/b`, `3:leaving`: the endpoint with that last byte, and what is special about it.
fn endpoint(word: &str) -> Endpoint {
    let (number, marks) = word.split_once(':').unwrap_or((word, ""));
    let mut endpoint = Endpoint::new(IpAddr::from([10, 1, 0, number.parse().unwrap()]));
    for mark in marks.split(',').filter(|mark| !mark.is_empty()) {
        match mark {
            "local" => endpoint.node = Whereabouts::Here,
            "unready" => endpoint.ready = false,
            "leaving" => (endpoint.ready, endpoint.terminating) = (false, true),
            "dying" => (endpoint.ready, endpoint.serving, endpoint.terminating) = (false, false, true),
            "published" => endpoint.terminating = true,
            "here" => endpoint.node_hint = NodeHint::Here,
            "elsewhere" => endpoint.node_hint = NodeHint::Elsewhere,
            zones => endpoint.zones = Zones::new(zones.strip_prefix('z').unwrap().split('/')).map(Arc::new),
        }
    }
    endpoint
}

fn slice(name: &str, words: &str, port: u16) -> EndpointSlice {
    EndpointSlice {
        name: ObjectName::new("default", name),
        origin: Origin::Api,
        service: ObjectName::new("default", "web"),
        family: Family::Ipv4,
        is_of_nodes: true,
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port }],
        endpoints: words.split_whitespace().map(endpoint).collect(),
        names: EndpointNames::default(),
    }
}

fn candidates(slices: &[EndpointSlice]) -> Candidates<'_> {
    Candidates::of(slices.iter(), ("http", Protocol::Tcp), Family::Ipv4)
}

/// The last bytes of the addresses.
fn numbers(chosen: &Chosen) -> String {
    let number = |address: IpAddr| address.to_string().rsplit('.').next().unwrap_or_default().to_owned();
    chosen.keys().map(|key| number(key.address)).collect::<Vec<_>>().join(" ")
}

const CLUSTER: Uses = Uses { cluster: true, local: false };
const LOCAL: Uses = Uses { cluster: false, local: true };
const BOTH: Uses = Uses { cluster: true, local: true };

/// Why, for whom, the endpoints; then those of the cluster, the local ones, and whether there is any.
type Case = (&'static str, Uses, &'static str, (&'static str, &'static str, bool));

/// This node is in zone `a`.
const HINTS: &[Case] = &[
    ("zone hints choose", CLUSTER, "1:za 2:zb 3:za/b", ("1 3", "", true)),
    ("a local endpoint for another zone is not used", CLUSTER, "1:za 2:zb,local", ("1", "", true)),
    ("one without a zone hint switches zones off", CLUSTER, "1:za 2:zb 3", ("1 2 3", "", true)),
    ("no endpoint for this zone: all", CLUSTER, "1:zb 2:zc", ("1 2", "", true)),
    ("an unready one without a hint does not matter", CLUSTER, "1:za 2:zb 3:unready", ("1", "", true)),
    ("a leaving one without a hint does not matter", CLUSTER, "1:za 2:zb 3:leaving", ("1", "", true)),
    ("an unready one for this zone does not help", CLUSTER, "1:zb 2:zb 3:za,unready", ("1 2", "", true)),
    ("a leaving one for this zone does not help", CLUSTER, "1:zb 2:za,leaving", ("1", "", true)),
    ("node hints choose", CLUSTER, "1:here 2:elsewhere", ("1", "", true)),
    ("node hints come before zone hints", CLUSTER, "1:za,here 2:za,elsewhere", ("1", "", true)),
    ("one without a node hint: zones", CLUSTER, "1:za,here 2:zb 3:za", ("1 3", "", true)),
    ("no node hint for this node: zones", CLUSTER, "1:za,elsewhere 2:zb,elsewhere", ("1", "", true)),
    ("neither node nor zone: all", CLUSTER, "1:zb,elsewhere 2:zc,elsewhere", ("1 2", "", true)),
    ("node hints without zone hints for others: all", CLUSTER, "1:elsewhere 2:elsewhere", ("1 2", "", true)),
    (
        "the one of this node is unready: zones",
        CLUSTER,
        "1:zb,here,unready 2:za,elsewhere 3:zb,elsewhere",
        ("2", "", true),
    ),
    ("local policies ignore zone hints", LOCAL, "1:zb,local 2:za", ("", "1", true)),
    ("local policies ignore node hints", LOCAL, "1:elsewhere,local 2:here", ("", "1", true)),
    ("hints for one policy and not the other", BOTH, "1:za 2:zb,local", ("1", "2", true)),
];

const POLICIES: &[Case] = &[
    ("nobody asks", Uses { cluster: false, local: false }, "1 2:local", ("", "", false)),
    ("no endpoints for the cluster", CLUSTER, "", ("", "", false)),
    ("no endpoints for anybody", BOTH, "", ("", "", false)),
    ("everything for the cluster", CLUSTER, "1:local 2", ("1 2", "", true)),
    ("only the local ones", LOCAL, "1:local 2", ("", "1", true)),
    ("none is local, but there is one", LOCAL, "1 2", ("", "", true)),
    ("both sets", BOTH, "1:local 2", ("1 2", "1", true)),
    ("both sets, none local", BOTH, "1 2", ("1 2", "", true)),
    ("only unready ones", BOTH, "1:unready,local 2:unready", ("", "", false)),
];

const TERMINATING: &[Case] = &[
    ("ready ones are there", BOTH, "1:local 2 3:leaving 4:leaving,local", ("1 2", "1", true)),
    ("all are leaving", BOTH, "1:leaving,local 2:leaving", ("1 2", "1", true)),
    (
        "all are leaving, whatever their hints",
        CLUSTER,
        "1:za,leaving 2:zb,leaving 3:elsewhere,leaving",
        ("1 2 3", "", true),
    ),
    ("the local ones are leaving, a remote one is ready", BOTH, "1:leaving,local 2", ("2", "1", true)),
    ("a remote one is leaving", BOTH, "1:leaving 2:dying,local", ("1", "", true)),
    ("a remote one is leaving, policy Local", LOCAL, "1:leaving", ("", "", true)),
    ("none serves any more", BOTH, "1:dying,local 2:dying", ("", "", false)),
    ("unready is no last resort", BOTH, "1:unready,local 2:leaving", ("2", "", true)),
    ("published although not ready counts as ready", BOTH, "1:published,local 2:leaving", ("1", "1", true)),
];

#[test]
fn endpoints_are_chosen_as_hints_policies_and_conditions_say() {
    for (why, uses, words, wanted) in [HINTS, POLICIES, TERMINATING].concat() {
        let slices = [slice("web-1", words, 8080)];
        let Backends { cluster, local, has_any } = candidates(&slices).backends(uses, Some("a"));
        assert_eq!((&*numbers(&cluster), &*numbers(&local), has_any), wanted, "{why}: {words}");
    }
}

#[test]
fn without_a_zone_zone_hints_say_nothing() {
    for (words, wanted) in [("1:za 2:zb", "1 2"), ("1:za,here 2:za,elsewhere", "1")] {
        let slices = [slice("web-1", words, 8080)];
        assert_eq!(numbers(&candidates(&slices).backends(CLUSTER, None).cluster), wanted, "{words}");
    }
}

#[test]
fn an_address_that_stands_twice_is_the_one_that_is_not_terminating() {
    for (first, second, wanted) in [
        ("1:leaving", "1", "1"),
        ("1", "1:leaving", "1"),
        ("1:leaving", "1:unready 2", "2"),
        ("1:leaving", "1:unready", ""),
        ("2 1", "1 3", "1 2 3"),
    ] {
        let slices = [slice("web-1", first, 8080), slice("web-2", second, 8080)];
        assert_eq!(numbers(&candidates(&slices).backends(CLUSTER, None).cluster), wanted, "{first} | {second}");
    }
    let weighted =
        |weight| EndpointSlice { endpoints: vec![Endpoint { weight, ..endpoint("1") }], ..slice("web-1", "", 8080) };
    let slices = [weighted(3), weighted(5)];
    let chosen = candidates(&slices).backends(CLUSTER, None).cluster;
    assert_eq!(chosen.values().copied().collect::<Vec<_>>(), [3], "the first slice by name counts");
}

#[test]
fn a_port_belongs_to_the_services_of_its_name_protocol_and_family() {
    let slices = [slice("web-1", "1", 8080), slice("web-2", "1 2", 9090)];
    let all = candidates(&slices).backends(CLUSTER, None).cluster;
    assert_eq!(all.keys().map(|key| key.port).collect::<Vec<_>>(), [8080, 9090, 9090]);
    for (name, protocol, family) in [
        ("https", Protocol::Tcp, Family::Ipv4),
        ("http", Protocol::Udp, Family::Ipv4),
        ("http", Protocol::Tcp, Family::Ipv6),
    ] {
        let none = Candidates::of(slices.iter(), (name, protocol), family);
        assert_eq!(none.backends(BOTH, None), Backends::default());
    }
}

#[test]
fn local_endpoints_are_counted_while_they_are_ready() {
    let slices = [slice("web-1", "1:local 2 3:local,unready 4:local,leaving 5:local,zb,elsewhere", 8080)];
    let counted: Vec<_> = candidates(&slices).local_ready().map(|one| one.address).collect();
    assert_eq!(counted, [[10, 1, 0, 1], [10, 1, 0, 5]].map(IpAddr::from));
}

/// What stands against those that get nothing.
#[test]
fn each_endpoint_has_a_verdict_by_each_policy() {
    use Verdict::*;
    for (words, zone, cluster, local) in [
        ("1 2:local 3:unready", None, [Chosen, Chosen, NotReady], [OnOtherNode, Chosen, OnOtherNode]),
        (
            "1:unready,local 2:leaving,local 3:dying,local",
            None,
            [NotReady, LastResort, Terminating],
            [NotReady, LastResort, Terminating],
        ),
        (
            "1:leaving 2 3:leaving,local",
            None,
            [Terminating, Chosen, Terminating],
            [OnOtherNode, OnOtherNode, LastResort],
        ),
        (
            "1:here 2:elsewhere,local 3:elsewhere",
            None,
            [Chosen, ForOtherNodes, ForOtherNodes],
            [OnOtherNode, Chosen, OnOtherNode],
        ),
        (
            "1:za 2:zb,local 3:za,unready",
            Some("a"),
            [Chosen, ForOtherZones, NotReady],
            [OnOtherNode, Chosen, OnOtherNode],
        ),
    ] {
        let slices = [slice("web-1", words, 8080)];
        for (policy, wanted) in [(TrafficPolicy::Cluster, cluster), (TrafficPolicy::Local, local)] {
            let found: Vec<_> = candidates(&slices).verdicts(policy, zone).map(|(_, _, verdict)| verdict).collect();
            assert_eq!(found, wanted, "{words} {policy:?}");
        }
    }
}
