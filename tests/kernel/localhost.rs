//! Node ports on loopback addresses: what the way there is made of, that nobody else gets in by it, and that it is put
//! right, kept and taken away. Who reaches which endpoints is in the table of `golden`.

use crate::golden_rig::{From, GoldenRig, To, by_cluster_cidr, news, service};
use crate::lab::{run, trial};
use crate::program::{IPVSD, eventually, ipvsd, stdout};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::{Conversation, Request};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::Network;
use ipvsd::desired::NetfilterSettings;
use ipvsd::model::{Family, Protocol};
use ipvsd::state::{Service, TrafficPolicy};
use libtest_mimic::Trial;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("localhost::nothing_but_our_own_devices_is_different", nothing_but_our_own_devices_is_different),
        trial("localhost::every_loopback_address_leads_there", every_loopback_address_leads_there),
        trial(
            "localhost::what_is_too_long_for_a_network_gets_there_too",
            what_is_too_long_for_a_network_gets_there_too,
        ),
        trial("localhost::other_ports_are_left_alone", other_ports_are_left_alone),
        trial("localhost::a_strict_node_lets_its_own_pass", a_strict_node_lets_its_own_pass),
        trial("localhost::nobody_outside_gets_in", nobody_outside_gets_in),
        trial("localhost::an_endpoint_in_the_nodes_own_network_answers", an_endpoint_in_the_nodes_own_network_answers),
        trial("localhost::without_endpoints_it_is_refused", without_endpoints_it_is_refused),
        trial("localhost::what_somebody_broke_is_made_whole", what_somebody_broke_is_made_whole),
        trial("localhost::a_device_of_somebody_elses_stays", a_device_of_somebody_elses_stays),
        trial("localhost::switched_off_it_goes", switched_off_it_goes),
        trial("localhost::a_connection_outlives_the_program", a_connection_outlives_the_program),
    ]
}

fn settings() -> NetfilterSettings {
    NetfilterSettings { detect_local: by_cluster_cidr(), ..NetfilterSettings::default() }
}

/// A rig that serves a Service of each protocol on node ports 30001 to 30003, or only the first of them.
fn serving(protocols: &[Protocol]) -> (GoldenRig, Vec<Service>) {
    let mut rig = GoldenRig::new(settings());
    let services: Vec<_> = (1..).zip(protocols).map(|(number, protocol)| service(number, *protocol)).collect();
    for service in &services {
        let slices = rig.slices(service);
        rig.program([news(service)].into_iter().chain(slices));
    }
    (rig, services)
}

fn in_node(rig: &GoldenRig, commands: &str) -> String {
    rig.network.node.run(|| Ok(run("bash", &["-ec", commands]))).unwrap()
}

/// Who answers the node on a loopback address.
fn answer(rig: &GoldenRig, service: &Service) -> Result<String, ErrorKind> {
    let port = &service.ports[0];
    let target = rig.target(service, To::Localhost, Family::Ipv4);
    rig.ask(From::Node, port.protocol, target).map(|answer| answer.name).map_err(|error| error.kind())
}

fn names(rig: &GoldenRig, service: &Service) -> Vec<String> {
    let mut names: Vec<_> = (0..2).map(|_| answer(rig, service).unwrap()).collect();
    names.sort();
    names
}

/// All that belongs to the way, with what it would be seen by if it were elsewhere.
const STATE: &str = "
    ip -4 rule; ip -o link | cut -d: -f2 | cut -d@ -f1 | sort
    ip -4 route show table all | grep -v 'table local proto 118' | sort
    ip -o addr | tr -s ' ' | cut -d' ' -f2,4 | sort
    sysctl -a 2>/dev/null | grep -E 'ipv4.conf.*\\.(route_localnet|accept_local|rp_filter)' | sort
";

fn nothing_but_our_own_devices_is_different() {
    let mut rig = GoldenRig::new(settings());
    let before = in_node(&rig, STATE);
    let service = service(1, Protocol::Tcp);
    let slices = rig.slices(&service);
    rig.program([news(&service)].into_iter().chain(slices));
    let after = in_node(&rig, STATE);
    let added: Vec<_> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).map(str::trim).collect();
    let setting = |device: &str, name: &str, value: u8| format!("net.ipv4.conf.{device}.{name} = {value}");
    let mut wanted: Vec<String> = [
        "117:\tfrom all iif ipvsd-lo1 lookup 18768 proto 118",
        "118:\tfrom all to 169.254.255.118/31 lookup 18769 proto 118",
        "ipvsd-lo0",
        "ipvsd-lo1",
        "169.254.255.118 dev ipvsd-lo1 table 18769 proto 118 scope link",
        "169.254.255.119 dev ipvsd-lo0 table 18769 proto 118 scope link",
        "local 169.254.255.119 dev ipvsd-lo1 table 18768 proto 118 scope host",
    ]
    .map(str::to_owned)
    .into();
    for (device, localnet) in [("ipvsd-lo0", 1), ("ipvsd-lo1", 0)] {
        let all = [("accept_local", 0), ("route_localnet", localnet), ("rp_filter", 0)];
        wanted.extend(all.map(|(name, value)| setting(device, name, value)));
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(added.into_iter().map(str::to_owned).collect()), sorted(wanted));
    assert_eq!(before.lines().filter(|line| !after.contains(line)).count(), 0);
}

fn every_loopback_address_leads_there() {
    let (rig, services) = serving(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    for service in &services {
        let port = &service.ports[0];
        for address in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 8, 7]] {
            let target = (IpAddr::from(address), port.node_port.unwrap()).into();
            let answer = rig.ask(From::Node, port.protocol, target);
            let answer = answer.unwrap_or_else(|error| panic!("{target} {}: {error}", port.protocol));
            assert_eq!(answer.source.to_string().rsplit_once('.').unwrap().1, "1", "the node's, of that device");
        }
    }
    // From addresses that the client chooses, the same port twice, and one that is none of loopback's.
    for source in ["127.0.0.1:40000", "127.0.0.3:40000", "192.0.2.1:40000"] {
        let target = rig.target(&services[0], To::Localhost, Family::Ipv4);
        let request = Request { source: Some(source.parse().unwrap()), ..Request::new(Protocol::Tcp, target) };
        rig.network.node.run(|| Ok(request.send()?)).unwrap_or_else(|error| panic!("{source}: {error:#}"));
    }
}

/// A datagram that fits through `lo` alone, and a connection that would be made of such.
fn what_is_too_long_for_a_network_gets_there_too() {
    let (mut rig, services) = serving(&[Protocol::Udp, Protocol::Tcp]);
    let target = |rig: &GoldenRig, service| rig.target(service, To::Localhost, Family::Ipv4);
    let udp = target(&rig, &services[0]);
    let answer = rig.network.node.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect(udp)?;
        socket.send(&vec![b'x'; 60_000])?;
        Ok(socket.recv(&mut [0; 100])?)
    });
    assert!(answer.unwrap() > 0);

    // The endpoint is one that can take more at once than the way there.
    in_node(&rig, "ip link set backend-1 mtu 9000");
    let backend = &rig.network.backends[0];
    backend.namespace.run(|| Ok(run("ip", &["link", "set", "eth0", "mtu", "9000"]))).unwrap();
    let listener = backend.namespace.run(|| Ok(TcpListener::bind("0.0.0.0:9000")?)).unwrap();
    let received = thread::spawn(move || io::copy(&mut listener.accept().unwrap().0, &mut io::sink()).unwrap());
    let slice = rig.slice_to(&services[1], (backend.addresses.ipv4, 9000).into());
    rig.program([slice]);
    let tcp = target(&rig, &services[1]);
    rig.network.node.run(|| Ok(TcpStream::connect(tcp)?.write_all(&vec![b'x'; 4_000_000])?)).unwrap();
    assert_eq!(received.join().unwrap(), 4_000_000);
}

fn other_ports_are_left_alone() {
    let (rig, services) = serving(&[Protocol::Tcp]);
    rig.network
        .node
        .run(|| {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            let (server, seen) = listener.accept()?;
            assert_eq!((seen, server.local_addr()?), (client.local_addr()?, client.peer_addr()?));
            Ok(())
        })
        .unwrap();
    assert_eq!(names(&rig, &services[0]), ["backend-1", "backend-2"]);
}

/// Reverse paths are filtered, ARP is strict, and a firewall lets in what comes in by `lo` and what was asked for.
fn a_strict_node_lets_its_own_pass() {
    let (mut rig, services) = serving(&[Protocol::Tcp, Protocol::Udp]);
    in_node(
        &rig,
        "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.all.arp_ignore=1
         iptables -A INPUT -i lo -j ACCEPT
         iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -P INPUT DROP
         iptables -P FORWARD DROP
         ip link del ipvsd-lo0",
    );
    rig.resync();
    for service in &services {
        assert_eq!(names(&rig, service), ["backend-1", "backend-2"]);
    }
}

/// The client has no loopback addresses of its own, so that it can send to the node's.
fn nobody_outside_gets_in() {
    let (rig, services) = serving(&[Protocol::Tcp]);
    let client = &rig.network.client.namespace;
    let commands = "ip addr del 127.0.0.1/8 dev lo; sysctl -qw net.ipv4.conf.eth0.route_localnet=1
                    ip route add 127.0.0.0/8 via 192.0.2.1; ip route add 169.254.255.118/31 via 192.0.2.1";
    client.run(|| Ok(run("bash", &["-ec", commands]))).unwrap();
    let port = services[0].ports[0].node_port.unwrap();
    let kind = |address: [u8; 4]| {
        let target = SocketAddr::new(address.into(), port);
        let outcome = client.run(|| Ok(TcpStream::connect_timeout(&target, Duration::from_millis(300)))).unwrap();
        outcome.map(drop).map_err(|error| error.kind())
    };
    assert_eq!(kind([192, 0, 2, 1]), Ok(()));
    let forwarded = || {
        let counters = in_node(&rig, "iptables -nvxL KUBE-FORWARD");
        let dropped = counters.lines().filter(|line| line.contains("DROP"));
        dropped.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(forwarded(), [0, 0, 0]);
    for address in [[127, 0, 0, 1], [169, 254, 255, 119], [169, 254, 255, 118]] {
        assert_eq!(kind(address), Err(ErrorKind::TimedOut), "{address:?}");
    }
    // Martians are seen by no rule; the far address is not forwarded to; what comes back by the near end goes nowhere.
    let [near, far, out] = forwarded()[..] else { panic!("three rules") };
    assert!(near > 0 && far == 0 && out > 0, "{near} {far} {out}");
    // That the packets do get to the node shows where it takes them.
    in_node(&rig, "sysctl -qw net.ipv4.conf.client.route_localnet=1");
    assert_eq!(kind([127, 0, 0, 1]), Err(ErrorKind::ConnectionRefused));
    assert_eq!(names(&rig, &services[0]), ["backend-1", "backend-2"]);
}

fn an_endpoint_in_the_nodes_own_network_answers() {
    let (mut rig, services) = serving(&[Protocol::Tcp]);
    let _backend = Backend::start("own", &rig.network.node, &[Port::Http(8080)]).unwrap();
    let gateway = rig.network.backends[0].gateway.ipv4;
    let slice = rig.slice_to(&services[0], (gateway, 8080).into());
    rig.program([slice]);
    assert_eq!(names(&rig, &services[0]), ["own", "own"]);
}

fn without_endpoints_it_is_refused() {
    let (mut rig, services) = serving(&[Protocol::Tcp, Protocol::Udp]);
    for service in &services {
        let nowhere = rig.slices_of(service, &[]);
        rig.program(nowhere);
        assert_eq!(answer(&rig, service), Err(ErrorKind::ConnectionRefused));
    }
}

fn what_somebody_broke_is_made_whole() {
    let (mut rig, services) = serving(&[Protocol::Tcp]);
    for mess in [
        "ip link del ipvsd-lo0",
        "ip link set ipvsd-lo1 down",
        "ip link set ipvsd-lo0 mtu 9000",
        "ip link set ipvsd-lo1 arp on",
        "ip link set ipvsd-lo1 address 02:00:00:00:00:01",
        "ip rule del pref 117",
        "ip rule del pref 118",
        "ip route flush table 18768",
        "ip route del 169.254.255.118 table 18769",
        "sysctl -qw net.ipv4.conf.ipvsd-lo0.route_localnet=0",
        "ip link del ipvsd-lo1; ip link add ipvsd-lo0 type veth peer name somebodys",
        "ip link del ipvsd-lo1; ip rule del pref 117; ip rule del pref 118",
    ] {
        in_node(&rig, mess);
        let report = rig.resync();
        assert_eq!(report.done.keys().copied().collect::<Vec<_>>(), ["make localhost path"], "{mess}");
        assert_eq!(names(&rig, &services[0]), ["backend-1", "backend-2"], "{mess}");
        assert_eq!(rig.resync().changes(), 0, "{mess}");
    }
}

/// A name of ours on a device that cannot be: it is told of, and all else is as ever.
fn a_device_of_somebody_elses_stays() {
    let mut rig = GoldenRig::new(settings());
    in_node(&rig, "ip link add ipvsd-lo0 type dummy");
    let service = service(1, Protocol::Tcp);
    let slices = rig.slices(&service);
    rig.program([news(&service)].into_iter().chain(slices));
    let problems: Vec<_> = rig.reconciler().problems().iter().map(ToString::to_string).collect();
    let told = "iptables.localhostNodePorts: node ports are not on 127.0.0.1: the way there cannot be made";
    assert!(matches!(&problems[..], [only] if only.contains(told)), "{problems:?}");
    assert_eq!(answer(&rig, &service), Err(ErrorKind::ConnectionRefused));
    let by_address = rig.ask(From::Node, Protocol::Tcp, rig.target(&service, To::NodePort, Family::Ipv4));
    assert!(by_address.is_ok(), "{by_address:?}");
    assert_eq!(rig.resync().changes(), 0, "not tried again so soon");
    in_node(&rig, "ip -d link show ipvsd-lo0 | grep -q dummy; ip link del ipvsd-lo0");
    for _ in 0..6 {
        rig.resync();
    }
    assert_eq!(rig.reconciler().problems(), []);
    assert_eq!(names(&rig, &service), ["backend-1", "backend-2"]);
}

fn switched_off_it_goes() {
    let (mut rig, services) = serving(&[Protocol::Tcp]);
    let all = |rig: &GoldenRig| {
        let mut all = vec![news(&services[0])];
        all.extend(rig.slices(&services[0]));
        all
    };
    rig.restart_with(NetfilterSettings { localhost_node_ports: false, ..settings() });
    let changes = all(&rig);
    rig.program(changes);
    assert_eq!(answer(&rig, &services[0]), Err(ErrorKind::ConnectionRefused));
    let left = in_node(&rig, "ip rule; ip -o link; ip route show table all; iptables-save; ipset save; ipvsadm -Sn");
    let ours = |line: &&str| ["ipvsd-lo", "169.254.255", "lookup 1876", "-f "].iter().any(|part| line.contains(part));
    assert_eq!(left.lines().filter(ours).collect::<Vec<_>>(), [""; 0]);
    // A Service whose policy is for those outside keeps its mark.
    rig.restart_with(settings());
    let changes = all(&rig);
    rig.program(changes);
    let local = Service { external_policy: TrafficPolicy::Local, ..services[0].clone() };
    rig.program([news(&local)]);
    assert_eq!(names(&rig, &services[0]), ["backend-1", "backend-2"]);
}

/// The whole program: killed and started anew it changes nothing, told to it removes the way, and so does a cleanup.
fn a_connection_outlives_the_program() {
    let network = Network::build(1).unwrap();
    let _backend = Backend::start("backend-1", &network.backends[0].namespace, &[Port::Lines(8080)]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("manifests")).unwrap();
    fs::write(directory.path().join("own.yaml"), "netfilter: true\n").unwrap();
    write_service(directory.path(), "web", 1);
    let log = directory.path().join("log");
    let start = |more: &[&str]| start(&network.node, directory.path(), more, &log);
    let on = || Ok(Conversation::start((Ipv4Addr::LOCALHOST, 30_080).into())?);

    let daemon = start(&[]);
    eventually("the node port is on 127.0.0.1", || network.node.run(on).is_ok());
    let mut conversation = network.node.run(on).unwrap();
    assert_eq!(conversation.say("one").unwrap(), "backend-1");
    daemon.kill().unwrap();
    assert_eq!(conversation.say("two").unwrap(), "backend-1");
    fs::write(&log, "").unwrap();
    let daemon = start(&[]);
    write_service(directory.path(), "more", 2);
    eventually("it works again", || daemon.log().contains("programmed"));
    assert_eq!(conversation.say("three").unwrap(), "backend-1");
    let unasked = ["localhost", "rules", "remove", "update"].iter().find(|word| daemon.log().contains(**word));
    assert_eq!(unasked, None, "{}", daemon.log());

    daemon.stop().unwrap();
    let daemon = start(&["--iptables-localhost-nodeports=false"]);
    eventually("the node port is on 127.0.0.1 no more", || network.node.run(on).is_err());
    let devices = || network.node.run(|| Ok(run("ip", &["-o", "link"]) + &run("ip", &["rule"]))).unwrap();
    eventually("the devices are gone", || !devices().contains("ipvsd-lo"));
    daemon.stop().unwrap();

    start(&[]).stop().unwrap();
    network.node.run(|| Ok(stdout(&ipvsd(&["cleanup"]), 0))).unwrap();
    assert!(!devices().contains("ipvsd-lo") && !devices().contains("1876"), "{}", devices());
}

fn start(node: &Namespace, directory: &Path, more: &[&str], log: &Path) -> Daemon {
    let mut command = Command::new(IPVSD);
    let [manifests, own] = ["manifests", "own.yaml"].map(|name| directory.join(name));
    command.arg("run").arg("--manifests").arg(manifests).arg("--ipvsd-config").arg(own).args(more);
    Daemon::start(node, &mut command, log).unwrap()
}

/// A Service on node port 30080 or 30081 and so on.
fn write_service(directory: &Path, name: &str, number: u16) {
    let port = 30_079 + number;
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: NodePort, clusterIP: 10.96.0.{number}, ports: [{{port: 80, nodePort: {port}}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints:\n- addresses: [\"10.244.1.2\"]\n"
    );
    fs::write(directory.join(format!("manifests/{name}.yaml")), text).unwrap();
}
