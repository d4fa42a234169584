//! The members that one Service has in the sets, by what its frontends are.

use super::*;
use crate::state::{Families, ObjectName, Origin};

fn service(ranges: &str) -> Service {
    Service {
        name: ObjectName::new("default", "web"),
        origin: Origin::Api,
        families: Families::BOTH,
        cluster_ips: vec![],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: ranges.split_whitespace().map(|range| range.parse().unwrap()).collect(),
        ports: vec![],
        affinity: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        health_check_node_port: Some(30_999),
        scheduling: None,
        drain_timeout: None,
    }
}

fn frontend(field: Field, policy: TrafficPolicy, protocol: Protocol) -> Frontend {
    Frontend { key: VirtualServerKey::new([10, 0, 0, 1].into(), 80, protocol), field, policy, port: 0 }
}

/// Set and member of each, in order, as text.
fn texts(members: impl IntoIterator<Item = Place>) -> Vec<String> {
    let mut texts: Vec<_> = members.into_iter().map(|(key, member)| format!("{key} {member}")).collect();
    texts.sort();
    texts
}

#[test]
fn each_kind_of_frontend_has_its_sets() {
    use TrafficPolicy::{Cluster, Local};
    let known = Circumstances { is_elsewhere: true, node: None };
    for (field, policy, wanted) in [
        (Field::ClusterIp(0), Cluster, "KUBE-CLUSTER-IP"),
        (Field::ClusterIp(0), Local, "KUBE-CLUSTER-IP"),
        (Field::ExternalIp(0), Cluster, "KUBE-EXTERNAL-IP"),
        (Field::ExternalIp(0), Local, "IPVSD-NO-LOCAL KUBE-EXTERNAL-IP-LOCAL"),
        (Field::LoadBalancerIp(0), Cluster, "KUBE-LOAD-BALANCER"),
        (Field::LoadBalancerIp(0), Local, "IPVSD-NO-LOCAL KUBE-LOAD-BALANCER KUBE-LOAD-BALANCER-LOCAL"),
    ] {
        let wanted: Vec<_> = wanted.split(' ').map(|set| format!("{set} 10.0.0.1,tcp:80")).collect();
        let found = of_frontend(&service(""), &frontend(field, policy, Protocol::Tcp), known);
        assert_eq!(texts(found), wanted, "{field:?} {policy:?}");
    }
}

#[test]
fn node_ports_are_in_sets_of_their_protocol() {
    let members = |policy, protocol| {
        texts(of_frontend(&service(""), &frontend(Field::NodePort(0), policy, protocol), Circumstances::default()))
    };
    for (protocol, name, member) in
        [(Protocol::Tcp, "TCP", "80"), (Protocol::Udp, "UDP", "80"), (Protocol::Sctp, "SCTP-HASH", "10.0.0.1,sctp:80")]
    {
        let all = format!("KUBE-NODE-PORT-{name} {member}");
        let local = format!("KUBE-NODE-PORT-LOCAL-{name} {member}");
        assert_eq!(members(TrafficPolicy::Local, protocol), [local, all.clone()]);
        assert_eq!(members(TrafficPolicy::Cluster, protocol), [all]);
    }
}

#[test]
fn source_ranges_are_of_load_balancer_ips_and_their_own_family() {
    let known = |node: &str| Circumstances { node: node.parse().ok(), ..Circumstances::default() };
    let balancer = frontend(Field::LoadBalancerIp(0), TrafficPolicy::Cluster, Protocol::Tcp);
    let members = |ranges: &str, node: &str| texts(of_frontend(&service(ranges), &balancer, known(node)));
    let [plain, guarded] = ["KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-FW"].map(|set| format!("{set} 10.0.0.1,tcp:80"));
    let range = |range: &str| format!("KUBE-LOAD-BALANCER-SOURCE-CIDR 10.0.0.1,tcp:80,{range}");
    assert_eq!(
        members("10.1.0.9/16 192.0.2.2/32 fd00::/8", "192.0.2.1"),
        [plain.clone(), guarded.clone(), range("10.1.0.0/16"), range("192.0.2.2/32")]
    );
    let itself = "KUBE-LOAD-BALANCER-SOURCE-IP 10.0.0.1,tcp:80,10.0.0.1".to_owned();
    let all = [plain.clone(), guarded, range("192.0.2.0/24"), itself];
    assert_eq!(members("192.0.2.0/24", "192.0.2.1"), all);
    assert_eq!(members("fd00::/8", "192.0.2.1"), [plain]);
    let external = frontend(Field::ExternalIp(0), TrafficPolicy::Cluster, Protocol::Tcp);
    assert_eq!(of_frontend(&service("10.1.0.0/16"), &external, known("")).len(), 1);
}

#[test]
fn endpoints_and_health_checks_have_theirs() {
    let endpoint = DestinationKey { address: "fd00::1".parse().unwrap(), port: 8080 };
    assert_eq!(texts([of_endpoint(endpoint, Protocol::Udp)]), ["KUBE-6-LOOP-BACK fd00::1,udp:8080,fd00::1"]);
    assert_eq!(
        texts(of_health_check(&service(""))),
        ["KUBE-6-HEALTH-CHECK-NODE-PORT 30999", "KUBE-HEALTH-CHECK-NODE-PORT 30999"]
    );
}

#[test]
fn on_loopback_addresses_only_sctp_knows_the_client() {
    for (protocol, wanted) in [
        (Protocol::Tcp, "IPVSD-LOCALHOST-TCP 30080"),
        (Protocol::Udp, "IPVSD-LOCALHOST-UDP 30080"),
        (Protocol::Sctp, "IPVSD-LOCALHOST-SCTP 127.0.0.1,sctp:30080"),
    ] {
        let at = AddressPort { address: [169, 254, 255, 119].into(), protocol, port: 30_080 };
        assert_eq!(texts([of_localhost(at)]), [wanted]);
    }
}
