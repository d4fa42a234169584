//! Real traffic through the real daemon: every kind of frontend, scheduler and endpoint does what it promises.

use crate::lab::{run, trial};
use crate::traffic_rig::{PROTOCOLS, Rig, VIPS, annotated, request, requests, service, slice, slices};
use ipvsd::demo::client::{Conversation, Request};
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("traffic::rr_spreads_exactly_for_every_protocol_and_family", rr_spreads_exactly),
        trial("traffic::wrr_spreads_by_weight", wrr_spreads_by_weight),
        trial("traffic::sh_sticks_to_the_client_address", sh_sticks_to_the_client_address),
        trial("traffic::sh_with_the_port_flag_spreads_source_ports", sh_with_the_port_flag_spreads_source_ports),
        trial("traffic::session_affinity_sticks_to_the_client_address", session_affinity_sticks_to_the_client_address),
        trial(
            "traffic::node_ports_answer_on_every_address_of_the_node",
            node_ports_answer_on_every_address_of_the_node,
        ),
        trial("traffic::external_and_load_balancer_addresses_answer", external_and_load_balancer_addresses_answer),
        trial("traffic::a_service_without_endpoints_refuses_at_once", a_service_without_endpoints_refuses_at_once),
        trial("traffic::the_node_itself_reaches_a_vip_from_its_own_address", the_node_itself_reaches_a_vip),
        trial("traffic::endpoints_that_are_not_ready_get_nothing", endpoints_that_are_not_ready_get_nothing),
        trial("traffic::another_host_whose_address_a_service_takes_stays_reachable", another_host_stays_reachable),
    ]
}

/// A rig with the Service `web` of this spec on all backends, up to the point where its VIPs answer.
fn rig_with(spec: Value) -> Rig {
    rig_with_service(service("web", spec))
}

fn rig_with_service(service: Value) -> Rig {
    let mut rig = Rig::new(&[], |hosts| [vec![service], slices("web", hosts)].concat());
    rig.wait_for(&requests(&VIPS));
    rig
}

fn with_scheduler(name: &str, flags: Option<&str>) -> Value {
    let mut annotations = json!({ "ipvsd.io/scheduler": name });
    if let Some(flags) = flags {
        annotations["ipvsd.io/scheduler-flags"] = flags.into();
    }
    annotated(service("web", json!({})), annotations)
}

fn rr_spreads_exactly() {
    let rig = rig_with(json!({}));
    for request in requests(&VIPS) {
        assert_eq!(rig.spread(request, 12), [4, 4, 4], "{request:?}");
    }
}

fn wrr_spreads_by_weight() {
    let mut rig = Rig::new(&[], |hosts| {
        let weights = |address: fn(&ipvsd::demo::network::Host) -> IpAddr| {
            let pairs: Vec<_> =
                hosts.iter().zip([3, 2, 1]).map(|(host, weight)| format!("{}={weight}", address(host))).collect();
            json!({ "ipvsd.io/weights": pairs.join(",") })
        };
        let [ipv4, ipv6] = slices("web", hosts).try_into().unwrap();
        vec![
            with_scheduler("wrr", None),
            annotated(ipv4, weights(|host| host.addresses.ipv4.into())),
            annotated(ipv6, weights(|host| host.addresses.ipv6.into())),
        ]
    });
    rig.wait_for(&requests(&VIPS));
    for request in requests(&VIPS) {
        assert_eq!(rig.spread(request, 12), [6, 4, 2], "{request:?}");
    }
}

fn assert_one_client_goes_to_one_backend(rig: &Rig) {
    for request in requests(&VIPS) {
        let busy = rig.spread(request, 6).into_iter().filter(|count| *count > 0).count();
        assert_eq!(busy, 1, "{request:?}");
    }
}

/// Who answers twenty clients, which are more addresses of the one there is.
fn backends_of_many_clients(rig: &Rig) -> BTreeSet<String> {
    let clients: Vec<_> = (10..30).map(|host| Ipv4Addr::new(192, 0, 2, host)).collect();
    rig.in_client(|| {
        for address in &clients {
            run("ip", &["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        }
    });
    let http = request(Protocol::Tcp, VIPS[0], 80);
    clients.into_iter().map(|address| rig.send(from(http, (address, 0).into())).unwrap().name).collect()
}

fn from(request: Request, source: SocketAddr) -> Request {
    Request { source: Some(source), ..request }
}

fn sh_sticks_to_the_client_address() {
    let rig = rig_with_service(with_scheduler("sh", None));
    assert_one_client_goes_to_one_backend(&rig);
    let names = backends_of_many_clients(&rig);
    assert!(names.len() > 1, "all addresses go to {names:?}");
}

fn sh_with_the_port_flag_spreads_source_ports() {
    let rig = rig_with_service(with_scheduler("sh", Some("port")));
    let client = rig.network.client.addresses;
    for (vip, source) in [(VIPS[0], IpAddr::from(client.ipv4)), (VIPS[1], client.ipv6.into())] {
        let http = request(Protocol::Tcp, vip, 80);
        let ask = |port| rig.send(from(http, (source, port).into())).unwrap().name;
        let names: BTreeSet<_> = (40_000..40_020).map(ask).collect();
        assert!(names.len() > 1, "all ports go to {names:?}");
    }
}

fn session_affinity_sticks_to_the_client_address() {
    let rig = rig_with(json!({ "sessionAffinity": "ClientIP" }));
    assert_one_client_goes_to_one_backend(&rig);
    assert_eq!(backends_of_many_clients(&rig).len(), 3, "new clients are spread");
}

fn node_ports_answer_on_every_address_of_the_node() {
    let mut rig = rig_with(json!({
        "type": "NodePort",
        "ports": [
            { "name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP" },
            { "name": "udp", "port": 80, "nodePort": 30080, "protocol": "UDP" },
            { "name": "sctp", "port": 80, "nodePort": 30080, "protocol": "SCTP" },
        ],
    }));
    for address in ["192.0.2.1", "10.244.2.1", "fd00:2::1", "fd00:244:2::1"] {
        for protocol in PROTOCOLS {
            let request = request(protocol, address, 30080);
            rig.wait_for(&[request]);
            assert_eq!(rig.spread(request, 12), [4, 4, 4], "{request:?}");
        }
    }
}

fn external_and_load_balancer_addresses_answer() {
    let external = ["203.0.113.10", "fd00:113::10"];
    let balancer = ["203.0.113.20", "fd00:113::20"];
    let mut object = service("web", json!({ "type": "LoadBalancer", "externalIPs": external }));
    object["status"]["loadBalancer"]["ingress"] = balancer.map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).into();
    let mut rig = rig_with_service(object);
    for request in [requests(&external), requests(&balancer)].concat() {
        rig.wait_for(&[request]);
        assert_eq!(rig.spread(request, 12), [4, 4, 4], "{request:?}");
    }
}

fn a_service_without_endpoints_refuses_at_once() {
    let mut rig = Rig::new(&[], |_| vec![service("web", json!({}))]);
    // A refusal is an ICMP message, of which the kernel sends a client six at once and then one a second. Those before
    // the virtual server was there count too.
    rig.network.node.set(&[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")]).unwrap();
    // Not SCTP, which ignores such messages (RFC 9260, section 10).
    for (protocol, limit) in [(Protocol::Udp, 200), (Protocol::Tcp, 1500)] {
        // In a network inside one kernel the refusal comes while `connect` still holds the socket's lock, and TCP heeds
        // only the next one, a second later.
        let limit = Duration::from_millis(limit);
        for vip in VIPS {
            let request = request(protocol, vip, 80);
            let refused =
                |rig: &Rig| rig.send(request).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            rig.wait_until(&format!("{request:?} is refused"), refused);
            let start = Instant::now();
            assert!(refused(&rig), "{request:?}");
            assert!(start.elapsed() < limit, "{request:?} took {:?}", start.elapsed());
        }
    }
}

fn the_node_itself_reaches_a_vip() {
    let rig = rig_with(json!({}));
    let node = rig.network.client.gateway;
    for (vip, own) in [(VIPS[0], IpAddr::from(node.ipv4)), (VIPS[1], node.ipv6.into())] {
        for protocol in PROTOCOLS {
            let request = request(protocol, vip, 80);
            let answers = (0..3).map(|_| rig.on_node(|| request.send()).unwrap_or_else(|e| panic!("{request:?}: {e}")));
            let (names, sources): (BTreeSet<_>, BTreeSet<_>) =
                answers.map(|answer| (answer.name, answer.source)).unzip();
            assert_eq!(names.len(), 3, "{request:?}");
            assert_eq!(sources, BTreeSet::from([own]), "{request:?}");
        }
    }
}

fn endpoints_that_are_not_ready_get_nothing() {
    let mut rig = Rig::new(&[], |hosts| {
        let endpoint = |(index, address): (usize, IpAddr)| json!({ "addresses": [address], "conditions": { "ready": index != 1 } });
        let ipv4 = hosts.iter().map(|host| host.addresses.ipv4.into()).enumerate().map(endpoint).collect();
        let ipv6 = hosts.iter().map(|host| host.addresses.ipv6.into()).enumerate().map(endpoint).collect();
        vec![service("web", json!({})), slice("web", "IPv4", ipv4), slice("web", "IPv6", ipv6)]
    });
    rig.wait_for(&requests(&VIPS));
    for request in requests(&VIPS) {
        assert_eq!(rig.spread(request, 12), [6, 0, 6], "{request:?}");
    }
}

/// The first backend is another node here, with an agent on its own addresses.
fn another_host_stays_reachable() {
    let agents = |rig: &Rig| {
        for mut slice in slices("agents", &rig.network.backends[..1]) {
            slice["endpoints"][0]["nodeName"] = "another-node".into();
            rig.put(&slice);
        }
    };
    let mut rig = Rig::new(&[], |hosts| {
        let taken = [IpAddr::from(hosts[0].addresses.ipv4), hosts[0].addresses.ipv6.into()];
        [vec![service("web", json!({ "externalIPs": taken }))], slices("web", &hosts[1..])].concat()
    });
    rig.wait_for(&requests(&VIPS));
    let host = rig.network.backends[0].addresses;
    let addresses = [IpAddr::from(host.ipv4), host.ipv6.into()];
    // Its own port, which no Service has.
    let answers = |rig: &Rig| {
        let ask = |address: &IpAddr| Conversation::start((*address, 9090).into())?.say("hello");
        addresses.map(|address| rig.on_node(|| ask(&address)).map_err(|error| error.kind()))
    };
    let cut_off = [Err(ErrorKind::ConnectionRefused), Err(ErrorKind::ConnectionRefused)];
    assert_eq!(answers(&rig), cut_off, "nobody knows that it is a host");
    for _ in 0..2 {
        agents(&rig);
        let name = Ok("backend-1".to_owned());
        rig.wait_until("the host is reached", |rig| answers(rig) == [name.clone(), name.clone()]);
        for address in addresses {
            let http = request(Protocol::Tcp, &address.to_string(), 80);
            let name = rig.on_node(|| http.send()).unwrap().name;
            assert_ne!(name, "backend-1", "the Service is served on the node all the same");
        }
        ["agents-ipv4", "agents-ipv6"].iter().for_each(|name| rig.remove("EndpointSlice", name));
        rig.wait_until("the addresses are local again", |rig| answers(rig) == cut_off);
    }
}
