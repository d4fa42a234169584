//! What metrics tell where rules balance, against iptables-save and real packets: how many rules there are, and which
//! packets two of them saw.

use crate::lab::run;
use crate::mode::{self, Mode, Test};
use crate::traffic_rig::{Rig, VIPS, request, requests, service, slices};
use ipvsd::demo::client::Request;
use ipvsd::kernel::nfacct::{self, INVALID, LOCALHOST, Packets};
use ipvsd::model::{Family, Protocol};
use libtest_mimic::Trial;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

pub fn trials(mode: Mode) -> Vec<Trial> {
    let tests: &[Test] = &[
        ("rules_are_counted_as_iptables_saves_them", rules_are_counted_as_iptables_saves_them),
        ("a_change_that_is_refused_is_told_apart_from_all_that_is", a_change_that_is_refused_is_told_apart),
        ("each_invalid_packet_that_is_dropped_is_counted", each_invalid_packet_that_is_dropped_is_counted),
        ("each_connection_to_a_node_port_on_localhost_is_counted", each_connection_on_localhost_is_counted),
        ("counters_outlive_rules_and_daemons_and_go_with_the_last", counters_outlive_rules_and_daemons),
        ("where_nothing_counts_packets_all_else_is_as_ever", where_nothing_counts_packets_all_else_is_as_ever),
    ];
    mode::trials("nat_metrics", mode, tests)
}

/// The same where either mode can balance.
#[allow(dead_code, reason = "not where IPVS is missing")]
pub fn trials_with_ipvs() -> Vec<Trial> {
    vec![crate::lab::trial("nat_metrics::with_ipvs_there_are_none", with_ipvs_there_are_none)]
}

const METRICS: &str = "127.0.0.1:10249";
const FLAGS: &[&str] = &["--metrics-bind-address", METRICS];

const INVALID_DROPPED: &str = "kubeproxy_iptables_ct_state_invalid_dropped_packets_total";
const LOCALHOST_ACCEPTED: &str = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total";

const RULES: &str = "kubeproxy_sync_proxy_rules_iptables_total";
const WRITTEN: &str = "kubeproxy_sync_proxy_rules_iptables_last";

const FAMILIES: [(Family, &str); 2] = [(Family::Ipv4, "iptables"), (Family::Ipv6, "ip6tables")];
const TABLES: [&str; 3] = ["mangle", "nat", "filter"];

fn web() -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 80, "nodePort": 30080, "protocol": protocol});
    service("web", json!({"type": "NodePort", "ports": [port("http", "TCP"), port("udp", "UDP")]}))
}

fn rig(mode: Mode) -> Rig {
    let mut rig = Rig::of(mode, FLAGS, |hosts| [vec![web()], slices("web", hosts)].concat());
    rig.wait_for(&VIPS.map(|vip| request(Protocol::Tcp, vip, 80)));
    // The way from 127.0.0.1 comes with rules, the node port with a virtual server.
    rig.wait_until("a node port answers on localhost", |rig| rig.on_node(|| on_localhost().send().is_ok()));
    rig
}

fn on_localhost() -> Request {
    request(Protocol::Tcp, "127.0.0.1", 30_080)
}

/// What the daemon tells; nothing while it does not listen.
fn scrape(rig: &Rig) -> String {
    rig.on_node(|| {
        let Ok(mut stream) = TcpStream::connect(METRICS) else { return String::new() };
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

fn value(rig: &Rig, series: &str) -> Option<u64> {
    scrape(rig).lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// A gauge of rules for each family and table.
fn told(rig: &Rig, name: &str) -> Vec<Option<u64>> {
    let of = |family: Family, table: &str| format!("{name}{{ip_family=\"{}\",table=\"{table}\"}}", family.name());
    let text = scrape(rig);
    let value = |series: String| text.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok());
    FAMILIES.iter().flat_map(|(family, _)| TABLES.map(|table| value(of(*family, table)))).collect()
}

/// The same as iptables-save shows it. No other chains have such names here.
fn saved(rig: &Rig) -> Vec<Option<u64>> {
    let count = |program: &str, table: &str| {
        let saved = rig.on_node(|| run(&rig.mode().program(program, "save"), &["-t", table]));
        let ours = saved.lines().filter(|line| line.starts_with("-A IPVSD-") || line.starts_with("-A KUBE-"));
        u64::try_from(ours.count()).ok()
    };
    FAMILIES.iter().flat_map(|(_, program)| TABLES.map(|table| count(program, table))).collect()
}

fn told_as_saved(rig: &Rig) -> Vec<Option<u64>> {
    let told = told(rig, RULES);
    assert_eq!(told, saved(rig), "{}", rig.on_node(|| rig.mode().state()));
    told
}

fn rules_are_counted_as_iptables_saves_them(mode: Mode) {
    let mut rig = rig(mode);
    let at_start = told_as_saved(&rig);
    assert!(at_start.iter().all(|rules| *rules > Some(2)), "{at_start:?}");
    assert_eq!(told(&rig, WRITTEN), at_start);

    // A Service of IPv4: a rule for each of two endpoints, and two that lead there; nothing in other tables.
    let more =
        json!({"clusterIP": "10.96.0.77", "clusterIPs": ["10.96.0.77"], "ports": [{"port": 80, "name": "http"}]});
    let slices = slices("more", &rig.network.backends[..2]);
    rig.put(&slices[0]);
    rig.put(&service("more", more));
    rig.wait_for(&[request(Protocol::Tcp, "10.96.0.77", 80)]);
    let after = told_as_saved(&rig);
    let differences: Vec<_> =
        at_start.iter().zip(&after).map(|(before, after)| after.unwrap() - before.unwrap()).collect();
    assert_eq!(differences, [0, 4, 0, 0, 0, 0]);
    let written = told(&rig, WRITTEN);
    assert_eq!([written[0], written[2]], [Some(0); 2], "{written:?}");
    assert!((4..12).contains(&written[1].unwrap()), "{written:?}");

    rig.remove("Service", "more");
    rig.wait_until("it is gone", |rig| !rig.rules().contains("10.96.0.77"));
    assert_eq!(told_as_saved(&rig), at_start);

    // What somebody took is written again, and only that table's.
    rig.on_node(|| run(&mode.command("iptables"), &["-t", "filter", "-F", "KUBE-FORWARD"]));
    rig.stop_daemon();
    rig.start_daemon();
    rig.wait_until("it is whole", |rig| told(rig, RULES) == at_start);
    assert_eq!(saved(&rig), at_start);
    for kind in ["full", "partial"] {
        let count = format!("kubeproxy_sync_{kind}_proxy_rules_duration_seconds_count{{ip_family=\"IPv4\"}}");
        assert!(value(&rig, &count).is_some(), "{count}");
    }
}

/// Refuses what is about one address, as the kernel may.
const REFUSING: &str = r#"
input=$(cat)
case $input in *10.96.0.66/32*) echo "iptables-restore: line 3 failed" >&2; exit 1;; esac
printf '%s\n' "$input" | $name "$@"
"#;

fn a_change_that_is_refused_is_told_apart(mode: Mode) {
    let mut rig = rig(mode);
    rig.stop_daemon();
    rig.with_programs(REFUSING);
    rig.start_daemon();
    let of =
        |part: &str| format!("kubeproxy_sync_proxy_rules_iptables_{part}restore_failures_total{{ip_family=\"IPv4\"}}");
    rig.wait_until("it has looked at everything", |rig| value(rig, "ipvsd_passes_total{result=\"whole\"}").is_some());
    assert_eq!(value(&rig, &of("partial_")), Some(0));
    let at_start = told_as_saved(&rig);
    rig.put_slices("bad", &rig.network.backends[..1]);
    rig.put(&service("bad", json!({"clusterIP": "10.96.0.66", "clusterIPs": ["10.96.0.66"]})));
    rig.wait_until("all is tried again, in vain", |rig| value(rig, &of("")) >= Some(3));
    assert_eq!(value(&rig, &of("partial_")), Some(1));
    rig.remove("Service", "bad");
    rig.wait_until("nothing fails", |rig| told(rig, RULES) == at_start);
    assert_eq!(told_as_saved(&rig), at_start);
}

/// Sends a backend a segment whose checksum is wrong, which the node forwards if nobody keeps it from that.
fn send_invalid(rig: &Rig, backend: IpAddr) {
    let family = if backend.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    rig.in_client(|| {
        let socket = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Tcp).unwrap();
        // Ports 1000 and 8080, five words of header, SYN.
        let segment = [3, 232, 31, 144, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 1, 0, 0];
        let to = SockaddrStorage::from(SocketAddr::new(backend, 0));
        sendto(socket.as_raw_fd(), &segment, &to, MsgFlags::empty()).unwrap();
    });
}

fn each_invalid_packet_that_is_dropped_is_counted(mode: Mode) {
    let rig = rig(mode);
    assert_eq!(value(&rig, INVALID_DROPPED), Some(0));
    let addresses = rig.network.backends[0].addresses;
    for (number, backend) in (1..).zip([addresses.ipv4.into(), addresses.ipv6.into(), addresses.ipv4.into()]) {
        send_invalid(&rig, backend);
        assert_eq!(value(&rig, INVALID_DROPPED), Some(number), "{backend}");
    }
    // What is not invalid is not counted.
    requests(&VIPS[..1]).into_iter().take(2).for_each(|request| drop(rig.send(request).unwrap()));
    assert_eq!(value(&rig, INVALID_DROPPED), Some(3));
    assert_eq!(value(&rig, LOCALHOST_ACCEPTED), rig.on_node(nfacct::packets).get(LOCALHOST).copied());
}

fn each_connection_on_localhost_is_counted(mode: Mode) {
    let rig = rig(mode);
    let before = value(&rig, LOCALHOST_ACCEPTED).unwrap();
    let ways =
        [on_localhost(), request(Protocol::Tcp, "127.0.0.9", 30_080), request(Protocol::Udp, "127.0.0.1", 30_080)];
    for (number, way) in (1..).zip(ways) {
        rig.on_node(|| way.send()).unwrap();
        assert_eq!(value(&rig, LOCALHOST_ACCEPTED), Some(before + number), "{way:?}");
    }
    // Node ports elsewhere, and what is no node port.
    rig.on_node(|| request(Protocol::Tcp, "192.0.2.1", 30_080).send()).unwrap();
    assert!(rig.on_node(|| request(Protocol::Tcp, "127.0.0.1", 30_081).send()).is_err());
    assert_eq!(value(&rig, LOCALHOST_ACCEPTED), Some(before + 3));
}

fn counters_outlive_rules_and_daemons(mode: Mode) {
    let mut rig = rig(mode);
    let backend = rig.network.backends[0].addresses.ipv4.into();
    let packets = |rig: &Rig| rig.on_node(nfacct::packets);
    send_invalid(&rig, backend);
    assert_eq!(value(&rig, INVALID_DROPPED), Some(1));
    let accepted = value(&rig, LOCALHOST_ACCEPTED);
    // All rules of it are written anew.
    rig.crash_daemon();
    rig.on_node(|| run(&mode.command("iptables"), &["-F", "KUBE-FORWARD"]));
    rig.start_daemon();
    rig.wait_until("it goes on", |rig| {
        value(rig, INVALID_DROPPED) == Some(1) && rig.on_node(|| forwarding(mode)).contains(INVALID)
    });
    send_invalid(&rig, backend);
    assert_eq!((value(&rig, INVALID_DROPPED), value(&rig, LOCALHOST_ACCEPTED)), (Some(2), accepted));
    // A rule that kube-proxy left, or has meanwhile.
    let of_others = ["-w", "5", "-A", "FORWARD", "-m", "nfacct", "--nfacct-name", INVALID, "-j", "RETURN"];
    rig.on_node(|| run(&mode.command("iptables"), &of_others));
    rig.stop_daemon();
    assert!(rig.ipvsd("cleanup").status.success());
    assert_eq!(packets(&rig).keys().copied().collect::<Vec<_>>(), [INVALID], "theirs stays, ours goes");
    send_invalid(&rig, backend);
    assert_eq!(packets(&rig)[INVALID], 3);
    rig.start_daemon();
    rig.wait_until("it begins where that one is", |rig| value(rig, INVALID_DROPPED) == Some(3));
    rig.on_node(|| run(&mode.command("iptables"), &of_others.map(|word| if word == "-A" { "-D" } else { word })));
    rig.stop_daemon();
    // Nothing is to be changed, counters or not.
    let difference = rig.ipvsd("diff");
    assert!(difference.status.success(), "{}", String::from_utf8_lossy(&difference.stdout));
    assert!(rig.ipvsd("cleanup").status.success());
    assert_eq!(packets(&rig), Packets::new());
}

fn forwarding(mode: Mode) -> String {
    run(&mode.command("iptables"), &["-S", "KUBE-FORWARD"])
}

/// As where the kernel has no such match: what the program says then, of any.
const WITHOUT_THE_MATCH: &str = r#"
case " $* " in *" --test "*) echo "Warning: Extension nfacct revision 0 not supported, missing kernel module?" >&2; exit 0;; esac
exec $name "$@"
"#;

fn where_nothing_counts_packets_all_else_is_as_ever(mode: Mode) {
    let mut rig = rig(mode);
    rig.stop_daemon();
    assert!(rig.ipvsd("cleanup").status.success());
    rig.with_programs(WITHOUT_THE_MATCH);
    rig.start_daemon();
    rig.wait_for(&VIPS.map(|vip| request(Protocol::Tcp, vip, 80)));
    rig.wait_until("a node port answers on localhost", |rig| rig.on_node(|| on_localhost().send().is_ok()));
    told_as_saved(&rig);
    let dropped = rig.on_node(|| forwarding(mode));
    assert!(dropped.contains("INVALID -j DROP") && !dropped.contains("nfacct"), "{dropped}");
    assert_eq!((value(&rig, INVALID_DROPPED), value(&rig, LOCALHOST_ACCEPTED)), (None, None));
    assert_eq!(rig.on_node(nfacct::packets), Packets::new());
    // With the match again the next start counts.
    rig.stop_daemon();
    rig.with_programs("exec $name \"$@\"\n");
    rig.start_daemon();
    rig.wait_until("it counts", |rig| rig.on_node(|| forwarding(mode)).contains(INVALID));
    assert_eq!(value(&rig, INVALID_DROPPED), Some(0));
}

#[allow(dead_code, reason = "not where IPVS is missing")]
fn with_ipvs_there_are_none() {
    let mut rig = rig(Mode::Legacy);
    rig.stop_daemon();
    rig.change_mode(Mode::Ipvs);
    rig.with_netfilter();
    for (mode, are_there) in [(Mode::Ipvs, false), (Mode::Legacy, true), (Mode::Ipvs, false)] {
        rig.change_mode(mode);
        rig.start_daemon();
        rig.wait_until("the mode is told", |rig| scrape(rig).contains("ipvsd_proxy_mode{"));
        rig.wait_until("rules are of the mode", |rig| {
            rig.on_node(|| forwarding(Mode::Legacy)).contains(INVALID) == are_there
        });
        let text = scrape(&rig);
        let partial = "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family=\"IPv4\"}";
        let full = "kubeproxy_sync_full_proxy_rules_duration_seconds_count";
        for name in [RULES, WRITTEN, INVALID_DROPPED, LOCALHOST_ACCEPTED, partial, full] {
            assert_eq!(text.contains(name), are_there, "{name} {mode:?}");
        }
        rig.wait_until("counters are of the mode", |rig| rig.on_node(nfacct::packets).is_empty() != are_there);
        rig.stop_daemon();
    }
}
