//! What metrics tell of traffic through Services, against every number of ipvsadm's; and what it costs at size.

use crate::lab::{run, trial};
use crate::listing::{ipvsadm, list};
use crate::program::{Daemon, IPVSD, PATIENCE, eventually, write_cluster};
use crate::traffic_rig::{PROTOCOLS, Rig, VIPS, request, service, slice};
use ipvsd::demo::client::Conversation;
use ipvsd::demo::network::Host;
use ipvsd::demo::wait::wait_for;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("service_metrics::every_number_is_ipvsadms", every_number_is_ipvsadms),
        trial("service_metrics::ten_thousand_services_are_told_in_one_scrape", at_size),
    ]
}

const METRICS: &str = "127.0.0.1:10249";

/// A load balancer's address, which leads to endpoints of this node alone, and by a mark to all for those on it.
const BALANCER: &str = "203.0.113.20";

const COUNTED: [&str; 5] = [
    "connections_total",
    "incoming_packets_total",
    "outgoing_packets_total",
    "incoming_bytes_total",
    "outgoing_bytes_total",
];

const RATES: [&str; 5] = [
    "connections_per_second",
    "incoming_packets_per_second",
    "outgoing_packets_per_second",
    "incoming_bytes_per_second",
    "outgoing_bytes_per_second",
];

/// Asks the metrics server of this thread's namespace; nothing while nobody answers.
fn scrape() -> Option<String> {
    let mut stream = TcpStream::connect(METRICS).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// The series of Services and destinations, each with its value.
fn series(exposition: &str) -> BTreeMap<String, String> {
    let lines = exposition.lines().filter_map(|line| line.rsplit_once(' '));
    let is_told = |name: &str| name.contains("endpoint_address=") || name.contains(",port_name=");
    lines.filter(|(name, _)| is_told(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn value(exposition: &str, name: &str) -> Option<usize> {
    exposition.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The same series made of what ipvsadm prints.
fn by_ipvsadm(ports: &BTreeMap<(String, u16), &str>) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for (options, names) in [("--stats", &COUNTED[..]), ("--rate", &RATES)] {
        let table = ipvsadm(&format!("-Ln {options} --exact"));
        rows(&table, ports, |of, labels, words| {
            assert_eq!(words.len(), names.len(), "{table}");
            for (name, value) in names.iter().zip(words) {
                told.insert(format!("ipvsd_{of}_{name}{{{labels}}}"), (*value).to_owned());
            }
        });
    }
    rows(&ipvsadm("-Ln"), ports, |of, labels, words| {
        if let ("destination", ["Masq", weight, active, inactive]) = (of, words) {
            for (name, value) in
                [("weight", weight), ("active_connections", active), ("inactive_connections", inactive)]
            {
                told.insert(format!("ipvsd_destination_{name}{{{labels}}}"), (*value).to_owned());
            }
        }
    });
    told
}

/// Calls with the labels and columns of each line of a table that is about a Service.
fn rows(table: &str, ports: &BTreeMap<(String, u16), &str>, mut each: impl FnMut(&str, &str, &[&str])) {
    let mut of_server = None;
    for line in table.lines().skip(3) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["->", address, ref rest @ ..] => {
                let Some(labels) = &of_server else { continue };
                let address: SocketAddr = address.parse().unwrap();
                let pod = pod_of(address.ip());
                let (ip, port) = (address.ip(), address.port());
                let labels = format!("{labels},endpoint_address=\"{ip}\",endpoint_port=\"{port}\",pod=\"{pod}\"");
                each("destination", &labels, rest);
            }
            ["FWM", mark, ref rest @ ..] => {
                let (family, rest) = match rest {
                    ["IPv6", rest @ ..] => ("IPv6", rest),
                    rest => ("IPv4", rest),
                };
                let of = named("balanced", "http", "TCP");
                let labels = format!("{of},mark=\"{mark}\",ip_family=\"{family}\"");
                each("service", &labels, rest);
                of_server = Some(labels);
            }
            [protocol, address, ref rest @ ..] => {
                let address: SocketAddr = address.parse().unwrap();
                let (ip, port) = (address.ip(), address.port());
                let name = ports.get(&(protocol.to_owned(), port));
                let service =
                    if ip.to_string() == BALANCER || ip.to_string() == "10.96.0.20" { "balanced" } else { "web" };
                of_server = name.map(|name| {
                    let of = named(service, name, protocol);
                    format!("{of},address=\"{ip}\",port=\"{port}\"")
                });
                if let Some(labels) = &of_server {
                    each("service", labels, rest);
                }
            }
            [_] | [] => panic!("a strange line: {line}"),
        }
    }
}

fn named(service: &str, port: &str, protocol: &str) -> String {
    format!("namespace=\"default\",service=\"{service}\",port_name=\"{port}\",protocol=\"{protocol}\"")
}

/// 10.244.N.2 is `pod-N`, by IPv6 too.
fn pod_of(address: IpAddr) -> String {
    let number = match address {
        IpAddr::V4(address) => address.octets()[2].into(),
        IpAddr::V6(address) => address.segments()[2],
    };
    format!("pod-{number}")
}

fn objects(hosts: &[Host]) -> Vec<Value> {
    let endpoint = |address: IpAddr| {
        let name = pod_of(address);
        json!({ "addresses": [address], "nodeName": "here", "targetRef": { "kind": "Pod", "name": name } })
    };
    let [ipv4, ipv6] = [
        hosts.iter().map(|host| endpoint(host.addresses.ipv4.into())).collect::<Vec<_>>(),
        hosts.iter().map(|host| endpoint(host.addresses.ipv6.into())).collect(),
    ];
    let mut balanced = service(
        "balanced",
        json!({
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "clusterIP": "10.96.0.20",
            "clusterIPs": ["10.96.0.20"],
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }],
        }),
    );
    balanced["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": BALANCER }] } });
    vec![
        service("web", json!({})),
        slice("web", "IPv4", ipv4.clone()),
        slice("web", "IPv6", ipv6),
        balanced,
        slice("balanced", "IPv4", ipv4),
    ]
}

/// A file of settings for the whole life of the test program, as flags are.
fn leaked(path: &Path) -> &'static str {
    Box::leak(path.to_str().unwrap().to_owned().into_boxed_str())
}

fn every_number_is_ipvsadms() {
    let directory = tempfile::tempdir().unwrap();
    let own = leaked(&directory.path().join("own.yaml"));
    fs::write(own, "netfilter: true\nserviceMetrics: destinations\n").unwrap();
    let flags = ["--metrics-bind-address", METRICS, "--hostname-override", "here", "--ipvsd-config", own];
    let mut rig = Rig::new(&flags, objects);
    let requests: Vec<_> = PROTOCOLS.iter().flat_map(|of| VIPS.map(|vip| request(*of, vip, 80))).collect();
    rig.wait_for(&requests);
    for request in &requests {
        assert_eq!(rig.spread(*request, 12), [4; 3]);
    }
    let _open = rig.in_client(|| VIPS.map(|vip| Conversation::start(request(Protocol::Tcp, vip, 90).target).unwrap()));
    assert!(rig.send(request(Protocol::Tcp, BALANCER, 80)).is_ok());
    rig.on_node(|| {
        run("ipvsadm", &["-A", "-t", "198.51.100.9:99", "-s", "rr"]);
        run("ipvsadm", &["-a", "-t", "198.51.100.9:99", "-r", "10.244.1.2:8080", "-m"]);
        request(Protocol::Tcp, BALANCER, 80).send().unwrap();
    });
    let port = |protocol: Protocol, port, name| ((protocol.name().to_owned(), port), name);
    let [tcp, udp, sctp] = PROTOCOLS;
    let ports = [port(tcp, 80, "http"), port(udp, 80, "udp"), port(sctp, 80, "sctp"), port(tcp, 90, "lines")].into();
    rig.on_node(|| {
        eventually("the kernel has counted all of it", || {
            let told = scrape().unwrap_or_default();
            let counted = told.lines().filter_map(|line| line.strip_prefix("ipvsd_service_connections_total{"));
            let counted = counted.filter_map(|line| line.rsplit_once("} ")).collect::<Vec<_>>();
            let has = |label: &str, least: u32| {
                counted
                    .iter()
                    .filter(|(labels, count)| {
                        labels.contains(label) && count.parse().is_ok_and(|count: u32| count >= least)
                    })
                    .count()
            };
            has("service=\"web\"", 13) == requests.len() && has("mark=", 1) == 1
        });
        let told = wait_for(2 * PATIENCE, || {
            // So many that each of the rates is one, at the kernel's next count.
            rig.spread(requests[0], 60);
            sleep(Duration::from_millis(2500));
            let (before, told, after) = (by_ipvsadm(&ports), scrape(), by_ipvsadm(&ports));
            Ok(told.filter(|_| before == after).map(|told| (before, told)))
        });
        let (theirs, told) = told.unwrap().expect("a moment of rest");
        let ours = series(&told);
        for (name, value) in &theirs {
            assert_eq!(ours.get(name), Some(value), "{name}");
        }
        assert_eq!(ours.len(), theirs.len(), "and nothing else, as what is nobody's");
        let is_moving = |name: &str| ours.iter().any(|(series, value)| series.contains(name) && value != "0");
        for name in COUNTED.iter().chain(&RATES).chain(&["active_connections", "inactive_connections", "weight"]) {
            assert!(is_moving(name), "{name} is 0 everywhere");
        }
        assert_eq!(value(&told, "ipvsd_service_metrics_left_out_series"), Some(0));
        assert_eq!(value(&told, "ipvsd_service_metrics_failures_total"), Some(0));
        assert!(!told.contains("198.51.100.9"));
        changed_files_are_taken(own, &ours);
    });
}

/// By a start in place.
fn changed_files_are_taken(own: &str, ours: &BTreeMap<String, String>) {
    let servers = ours.keys().filter(|name| name.starts_with("ipvsd_service_connections_total")).count();
    fs::write(own, "netfilter: true\nserviceMetrics: services\nserviceMetricsLimit: 25\n").unwrap();
    let left_out = 10 * servers - 20;
    eventually("no more is told than may be", || {
        let told = scrape().unwrap_or_default();
        value(&told, "ipvsd_service_metrics_left_out_series") == Some(left_out) && series(&told).len() == 20
    });
    let told = scrape().unwrap();
    assert!(series(&told).keys().all(|name| name.contains("service=\"balanced\"")), "the first ones by name");
    fs::write(own, "netfilter: true\n").unwrap();
    eventually("nothing is told where nobody asks", || {
        scrape().is_some_and(|told| told.contains("ipvsd_build_info") && series(&told).is_empty())
    });
}

/// 10,000 Services with two endpoints each: how long a scrape takes with them and without, beside `ipvsd list`.
fn at_size() {
    let directory = tempfile::tempdir().unwrap();
    let (manifests, own) = (directory.path().join("manifests"), directory.path().join("own.yaml"));
    fs::create_dir(&manifests).unwrap();
    write_cluster(&manifests, 10_000);
    fs::write(&own, "serviceMetrics: none\n").unwrap();
    let (manifests, own) = (manifests.to_str().unwrap(), own.to_str().unwrap());
    let flags = ["run", "--manifests", manifests, "--ipvsd-config", own, "--metrics-bind-address", METRICS];
    let mut daemon = Daemon::start(IPVSD, &[&flags[..], &["--ipvs-sync-period", "1h"]].concat());
    daemon.wait_for("programmed");
    let timed = |what: &str, work: &dyn Fn() -> String| {
        let start = Instant::now();
        let text = work();
        println!("    {what}: {} ms, {} KiB", start.elapsed().as_millis(), text.len() / 1024);
        text
    };
    timed("a scrape without Services", &|| scrape().unwrap());
    timed("ipvsd list", &|| list("--stats"));
    for (what, limit, wanted) in
        [("services", 1_000_000, 100_000), ("destinations", 1_000_000, 360_000), ("destinations", 10_000, 10_000)]
    {
        fs::write(own, format!("serviceMetrics: {what}\nserviceMetricsLimit: {limit}\n")).unwrap();
        daemon.wait_for("started");
        eventually("it is told", || scrape().is_some_and(|told| series(&told).len() == wanted));
        timed(&format!("a scrape of {what}, at most {limit}"), &|| scrape().unwrap());
    }
}
