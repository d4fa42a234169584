//! Which endpoints get packets: by conditions, hints, and what slices say of one Service together.

use super::objects::{address, balanced, put, rig, slice, slices, target, who};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To};
use crate::lab::trial;
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::model::{Family, Protocol};
use ipvsd::state::{Change, NodeObject};
use libtest_mimic::Trial;
use serde_json::json;
use std::collections::BTreeSet;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("features::terminating_endpoints_serve_the_policy_cluster_when_none_is_ready", policy_cluster),
        trial("features::terminating_endpoints_serve_the_policy_local_when_none_here_is_ready", policy_local),
        trial("features::unready_endpoints_that_are_published_are_served", published),
        trial("features::hints_lead_to_the_nearest_endpoints", hints),
        trial("features::every_endpoint_may_have_a_port_of_its_own", ports_of_endpoints),
        trial("features::a_pod_that_gets_the_address_of_one_that_goes_is_served", reused_addresses),
        trial("features::only_the_first_address_of_an_endpoint_counts", first_addresses),
    ]
}

/// The endpoints, and who then answers.
type Table<const N: usize> = [(&'static str, [&'static str; N]); 6];

/// By a cluster IP and from outside, with both policies `Cluster`.
fn policy_cluster() {
    let mut rig = rig();
    put(&mut rig, [balanced(1, &json!({}))]);
    let table: Table<1> = [
        ("1:local 2:leaving", ["1"]),
        ("1:local,leaving 2", ["2"]),
        ("1:local,leaving 2:leaving", ["1 2"]),
        ("1:local,dying 2:leaving", ["2"]),
        ("1:local,unready 2:leaving", ["2"]),
        ("1:local,unready 2:dying", ["refused"]),
    ];
    for (words, [wanted]) in table {
        let news = slices(&rig, 1, words);
        put(&mut rig, news);
        for family in FAMILIES {
            for (from, to) in
                [(From::Pod, To::ClusterIp), (From::Node, To::NodePort), (From::External, To::LoadBalancer)]
            {
                assert_eq!(who(&rig, from, target(&rig, 1, to, family)), wanted, "{words} {family} {from:?} {to:?}");
            }
        }
    }
}

/// By a cluster IP with an internal policy, from outside with an external one, and so from a pod of this node.
fn policy_local() {
    let mut rig = rig();
    let internal = balanced(1, &json!({"internalTrafficPolicy": "Local"}));
    let external = balanced(2, &json!({"externalTrafficPolicy": "Local"}));
    put(&mut rig, [internal, external]);
    let table: Table<3> = [
        ("1:local 2:leaving", ["1", "1", "1"]),
        ("1:local,leaving 2", ["1", "1", "2"]),
        ("1:local,leaving 2:leaving", ["1", "1", "1 2"]),
        ("1:local,dying 2:leaving", ["refused", "silence", "2"]),
        ("1:local,unready 2", ["refused", "silence", "2"]),
        ("1:local,dying 2:dying", ["refused", "refused", "refused"]),
    ];
    for (words, wanted) in table {
        let news = [slices(&rig, 1, words), slices(&rig, 2, words)].concat();
        put(&mut rig, news);
        for family in FAMILIES {
            let found = [
                who(&rig, From::Pod, target(&rig, 1, To::ClusterIp, family)),
                who(&rig, From::External, target(&rig, 2, To::LoadBalancer, family)),
                who(&rig, From::Pod, target(&rig, 2, To::NodePort, family)),
            ];
            assert_eq!(found, wanted, "{words} {family}");
        }
    }
}

/// What the controller makes of `publishNotReadyAddresses`: such endpoints are ready, whatever else is said of them.
fn published() {
    let mut rig = rig();
    let news = slices(&rig, 1, "1:local,published 2:leaving");
    put(&mut rig, [vec![balanced(1, &json!({"publishNotReadyAddresses": true}))], news].concat());
    for family in FAMILIES {
        for to in [To::ClusterIp, To::NodePort] {
            assert_eq!(who(&rig, From::External, target(&rig, 1, to, family)), "1", "{to:?}");
        }
    }
    let news = slices(&rig, 1, "");
    put(&mut rig, news);
    assert_eq!(who(&rig, From::External, target(&rig, 1, To::ClusterIp, Family::Ipv4)), "refused");
}

/// The node is in zone a.
fn hints() {
    let mut rig = rig();
    let zone = Some("a".into());
    rig.program([Change::NodeObject(NodeObject { zone, ..NodeObject::default() })]);
    put(&mut rig, [balanced(1, &json!({}))]);
    for (words, wanted) in [
        ("1:local,zone-b 2:zone-a", "2"),
        ("1:local,zone-b 2:zone-b", "1 2"),
        ("1:local,zone-b 2:zone-a,unready", "1"),
        ("1:local,zone-a 2", "1 2"),
        ("1:local,zone-b,here 2:zone-a,elsewhere", "1"),
        ("1:local,zone-b,here,unready 2:zone-b,elsewhere 3:zone-a,elsewhere", "3"),
        ("1:local,zone-b,here,leaving 2:zone-a,leaving", "1 2"),
    ] {
        let news = slices(&rig, 1, words);
        put(&mut rig, news);
        for family in FAMILIES {
            for (from, to) in [(From::Node, To::ClusterIp), (From::External, To::LoadBalancer)] {
                assert_eq!(who(&rig, from, target(&rig, 1, to, family)), wanted, "{words} {family} {from:?}");
            }
        }
    }
}

/// As where a named `targetPort` is another number in each pod, or in the containers of one pod.
fn ports_of_endpoints() {
    let mut rig = rig();
    let _other = Backend::start("other", &rig.network.backends[1].namespace, &[Port::Http(9090)]).unwrap();
    let slice_at = |rig: &GoldenRig, suffix, family, endpoint, port: u16| {
        let mut slice = slice(rig, (1, suffix), family, endpoint);
        slice["ports"][0]["port"] = port.into();
        slice
    };
    let slices = FAMILIES.map(|family| {
        [
            slice_at(&rig, "a", family, "1:local", 8080),
            slice_at(&rig, "b", family, "2", 9090),
            slice_at(&rig, "c", family, "2", 8080),
        ]
    });
    put(&mut rig, [vec![balanced(1, &json!({}))], slices.concat()].concat());
    for (family, to) in FAMILIES.into_iter().flat_map(|f| [To::ClusterIp, To::NodePort].map(|to| (f, to))) {
        let ask = |_| rig.ask(From::External, Protocol::Tcp, target(&rig, 1, to, family)).unwrap().name;
        let names: BTreeSet<_> = (0..3).map(ask).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["backend-1", "backend-2", "other"], "{family} {to:?}");
    }
}

/// Both pods stand in slices for a while, in whichever comes first by name.
fn reused_addresses() {
    let mut rig = rig();
    put(&mut rig, [balanced(1, &json!({}))]);
    for (first, second, wanted) in [
        ("1:local,leaving", "1:local", "1"),
        ("1:local", "1:local,leaving", "1"),
        ("1:local,leaving 2", "1:local", "1 2"),
        ("1:local,leaving", "1:local,unready", "refused"),
    ] {
        let news = FAMILIES.map(|family| [slice(&rig, (1, "a"), family, first), slice(&rig, (1, "b"), family, second)]);
        put(&mut rig, news.concat());
        for family in FAMILIES {
            assert_eq!(who(&rig, From::Pod, target(&rig, 1, To::ClusterIp, family)), wanted, "{first} | {second}");
        }
    }
}

fn first_addresses() {
    let mut rig = rig();
    let slices = FAMILIES.map(|family| {
        let mut slice = slice(&rig, (1, "a"), family, "1:local");
        slice["endpoints"][0]["addresses"] = json!([address(&rig, 0, family), address(&rig, 1, family)]);
        slice
    });
    put(&mut rig, [vec![balanced(1, &json!({}))], slices.into()].concat());
    for family in FAMILIES {
        assert_eq!(who(&rig, From::Pod, target(&rig, 1, To::ClusterIp, family)), "1");
    }
}
