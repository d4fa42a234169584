//! Connections whose endpoint or Service goes: a Service says by annotation whether they drain or are cut, and whoever is
//! cut hears of it.

use crate::golden_rig::{self, FAMILIES, From, GoldenRig, To, by_cluster_cidr, news};
use crate::lab::trial;
use crate::traffic_rig::{Rig, VIPS, annotated, request, requests, service, slices};
use ipvsd::demo::client::Conversation;
use ipvsd::desired::NetfilterSettings;
use ipvsd::model::Protocol;
use ipvsd::state::{Service, TrafficPolicy, Whereabouts};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("drains::a_connection_that_is_cut_hears_of_it", a_connection_that_is_cut_hears_of_it),
        trial("drains::a_connection_that_is_cut_hears_of_it_with_netfilter", || cut_by_all_ways(true)),
        trial("drains::a_deleted_service_keeps_its_connections", a_deleted_service_keeps_its_connections),
        trial("drains::a_deleted_service_is_remembered", a_deleted_service_is_remembered),
        trial("drains::a_frontend_that_changes_drains_as_its_service_says", a_frontend_that_changes),
        trial("drains::the_last_endpoint_of_a_local_policy_is_no_silence", the_last_endpoint_of_a_local_policy),
    ]
}

/// What a Service says of draining; nothing if it is empty.
fn web(timeout: &str) -> Value {
    let service = service("web", json!({}));
    if timeout.is_empty() { service } else { annotated(service, json!({ "ipvsd.io/drain-timeout": timeout })) }
}

fn rig(timeout: &str, has_netfilter: bool) -> Rig {
    let mut rig = Rig::new(&[], |hosts| [vec![web(timeout)], slices("web", hosts)].concat());
    if has_netfilter {
        rig.crash_daemon();
        rig.with_netfilter();
        rig.start_daemon();
    }
    rig.wait_for(&requests(&VIPS));
    rig
}

/// A connection that stands, and where it goes.
struct Standing {
    conversation: Mutex<Conversation>,
    endpoint: usize,
}

impl Standing {
    fn say(&self) -> io::Result<String> {
        self.conversation.lock().unwrap().say("still here")
    }

    /// It is answered with a reset, not with silence.
    fn assert_cut(&self) {
        let answer = self.say().map_err(|error| error.kind());
        assert_eq!(answer, Err(ErrorKind::ConnectionReset));
    }
}

/// From the client and from the node itself, to each VIP.
fn standing(rig: &Rig) -> Vec<Standing> {
    let start = |vip: &str, is_from_node: bool| {
        let target = SocketAddr::from((vip.parse::<IpAddr>().unwrap(), 90));
        let start = || Conversation::start(target);
        let conversation = if is_from_node { rig.on_node(start) } else { rig.in_client(start) };
        let mut conversation = conversation.unwrap();
        let name = conversation.say("hello").unwrap();
        let endpoint = rig.network.backends.iter().position(|host| host.name == name).unwrap();
        Standing { conversation: Mutex::new(conversation), endpoint }
    };
    VIPS.into_iter().flat_map(|vip| [start(vip, false), start(vip, true)]).collect()
}

fn remove_service(rig: &mut Rig) {
    rig.remove("Service", "web");
    let refused = |rig: &Rig| {
        let kinds = VIPS.map(|vip| rig.send(request(Protocol::Tcp, vip, 90)).map_err(|error| error.kind()));
        kinds.into_iter().all(|kind| kind == Err(ErrorKind::ConnectionRefused))
    };
    rig.wait_until("new connections are refused", refused);
}

fn a_connection_that_is_cut_hears_of_it() {
    cut_by_all_ways(false);
}

fn cut_by_all_ways(has_netfilter: bool) {
    let mut rig = rig("0s", has_netfilter);
    let connections = standing(&rig);
    let gone = connections[0].endpoint;
    let others = rig.network.backends.iter().enumerate().filter(|(index, _)| *index != gone).map(|(_, host)| host);
    rig.put_slices("web", others);
    let address = rig.network.backends[gone].addresses;
    let is_gone = |rig: &Rig| {
        let rules = rig.rules();
        ![address.ipv4.to_string(), address.ipv6.to_string()]
            .iter()
            .any(|address| rules.contains(&format!("{address}:")) || rules.contains(&format!("[{address}]")))
    };
    rig.wait_until("the endpoint is gone", is_gone);
    for connection in connections {
        if connection.endpoint == gone {
            connection.assert_cut();
        } else {
            connection.say().unwrap();
        }
    }
    // Now the Service as a whole, and with it what makes its addresses the node's.
    let connections = standing(&rig);
    remove_service(&mut rig);
    connections.iter().for_each(Standing::assert_cut);
}

fn a_deleted_service_keeps_its_connections() {
    let mut rig = rig("", true);
    let connections = standing(&rig);
    remove_service(&mut rig);
    for connection in connections {
        assert_eq!(connection.say().unwrap(), rig.network.backends[connection.endpoint].name);
    }
}

fn a_deleted_service_is_remembered() {
    let mut rig = rig("4s", false);
    let connections = standing(&rig);
    remove_service(&mut rig);
    rig.wait_until("no destination is left", |rig| !rig.rules().contains("-a "));
    connections.iter().for_each(Standing::assert_cut);
}

fn a_frontend_that_changes() {
    let mut rig = rig("0s", false);
    let connections = standing(&rig);
    let mut moved = web("0s");
    moved["spec"]["ports"][3]["port"] = 91.into();
    rig.put(&moved);
    rig.wait_for(&VIPS.map(|vip| request(Protocol::Tcp, vip, 80)));
    rig.wait_until("the new port is there", |rig| rig.rules().contains(&format!("-a -t {}:91", VIPS[0])));
    connections.iter().for_each(Standing::assert_cut);
}

/// Without a local endpoint new connections are dropped, but not the news that an old one is over.
fn the_last_endpoint_of_a_local_policy() {
    let mut rig = GoldenRig::new(NetfilterSettings { detect_local: by_cluster_cidr(), ..NetfilterSettings::default() });
    rig.network.node.set(&[("net/ipv4/vs/expire_nodest_conn", "1")]).unwrap();
    let service = Service { external_policy: TrafficPolicy::Local, ..golden_rig::service(1, Protocol::Tcp) };
    let slices = rig.slices(&service);
    rig.program([news(&service)].into_iter().chain(slices));
    let connect = |rig: &GoldenRig, target: SocketAddr| {
        let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(300));
        rig.namespace(From::External).run(|| Ok(connect())).unwrap().map_err(|error| error.kind())
    };
    let targets = FAMILIES.map(|family| rig.target(&service, To::LoadBalancer, family));
    let standing = targets.map(|target| connect(&rig, target).unwrap());
    let elsewhere = rig.slices_of(&service, &[(1, Whereabouts::Elsewhere)]);
    rig.program(elsewhere);
    for (mut stream, target) in standing.into_iter().zip(targets) {
        assert_eq!(connect(&rig, target).map(drop), Err(ErrorKind::TimedOut), "new ones are dropped");
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert_eq!(stream.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    }
}
