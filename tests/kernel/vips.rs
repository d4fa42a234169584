//! What is around VIPs, as real packets: source ranges, ports of the node, ping; and that what somebody changes in sets
//! and rules is put right.

use crate::golden_rig::{FAMILIES, From, GoldenRig, To, by_cluster_cidr, news, service};
use crate::lab::{run, trial};
use crate::mode::{self, Mode, Test};
use crate::program::{ipvsd, stdout, write_cluster};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::desired::NetfilterSettings;
use ipvsd::model::{Family, Protocol};
use ipvsd::state::{Change, ObjectName, Service, TrafficPolicy};
use libtest_mimic::Trial;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

/// The tests of what holds whatever balances.
pub fn trials(mode: Mode) -> Vec<Trial> {
    let tests: &[Test] = &[
        ("source_ranges_hold_for_everybody", source_ranges_hold_for_everybody),
        ("source_ranges_hold_where_nobody_serves", source_ranges_hold_where_nobody_serves),
        ("source_ranges_of_one_address_stay_as_they_are", source_ranges_of_one_address_stay_as_they_are),
        ("ports_of_the_node_are_not_reached_by_vips", ports_of_the_node_are_not_reached_by_vips),
        ("a_vip_answers_ping", a_vip_answers_ping),
        ("host_ports_of_pods_do_not_take_a_vip", host_ports_of_pods_do_not_take_a_vip),
        ("what_somebody_changed_is_put_right", what_somebody_changed_is_put_right),
        ("a_cleanup_leaves_no_set_and_no_rule", a_cleanup_leaves_no_set_and_no_rule),
        ("marks_are_the_same_after_a_restart", marks_are_the_same_after_a_restart),
    ];
    mode::trials("vips", mode, tests)
}

/// The tests of what is so with IPVS.
pub fn trials_with_ipvs() -> Vec<Trial> {
    vec![
        trial("vips::the_rules_are_as_many_for_ten_services_as_for_a_thousand", rules_are_as_many),
        trial("vips::the_program_does_it_where_it_is_told_to", the_program_does_it_where_it_is_told_to),
    ]
}

fn rig(mode: Mode) -> GoldenRig {
    GoldenRig::of(mode, NetfilterSettings { detect_local: by_cluster_cidr(), ..NetfilterSettings::default() })
}

fn serve(rig: &mut GoldenRig, service: &Service) {
    let slices = rig.slices(service);
    rig.program([news(service)].into_iter().chain(slices));
}

fn kind(rig: &GoldenRig, from: From, target: SocketAddr) -> Result<String, ErrorKind> {
    rig.ask(from, Protocol::Tcp, target).map(|answer| answer.name).map_err(|error| error.kind())
}

/// As [`kind`], with less patience: what is dropped is waited for in vain.
fn connected(rig: &GoldenRig, from: From, target: SocketAddr) -> Result<(), ErrorKind> {
    let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(300));
    rig.namespace(from).run(|| Ok(connect())).unwrap().map(drop).map_err(|error| error.kind())
}

/// Who is let in by which ranges; the rest is dropped.
fn source_ranges_hold_for_everybody(mode: Mode) {
    let mut rig = rig(mode);
    let everybody = [From::External, From::Pod, From::Node];
    for (ranges, allowed) in [
        (&["192.0.2.2/32", "fd00:2::2/128"][..], &[From::External][..]),
        (&["10.244.0.0/16", "fd00:244::/32"], &[From::Pod]),
        // The node's own address.
        (&["192.0.2.1/32", "fd00:2::1/128"], &[From::Node]),
        (&["192.0.2.0/24", "fd00:2::/64"], &[From::External, From::Node]),
        (&["233.252.0.0/24", "2001:db8::/32"], &[]),
        (&[], &everybody),
    ] {
        let source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let service = Service { source_ranges, ..service(1, Protocol::Tcp) };
        serve(&mut rig, &service);
        for family in FAMILIES {
            for from in everybody {
                let answer = connected(&rig, from, rig.target(&service, To::LoadBalancer, family));
                assert_eq!(answer.is_ok(), allowed.contains(&from), "{ranges:?} {family} {from:?}: {answer:?}");
                assert_ne!(answer, Err(ErrorKind::ConnectionRefused), "dropped, not refused");
            }
            // The other ways in are not restricted.
            for to in [To::ClusterIp, To::NodePort, To::ExternalIp] {
                assert!(kind(&rig, From::External, rig.target(&service, to, family)).is_ok(), "{ranges:?} {to:?}");
            }
        }
    }
    // A family without ranges is open.
    let source_ranges = vec!["192.0.2.9/32".parse().unwrap()];
    let service = Service { source_ranges, ..service(1, Protocol::Tcp) };
    serve(&mut rig, &service);
    let answers =
        FAMILIES.map(|family| connected(&rig, From::External, rig.target(&service, To::LoadBalancer, family)));
    assert_eq!(answers.map(|answer| answer.is_ok()), [false, true]);
}

/// Who may not use the address hears nothing, who may is refused.
fn source_ranges_hold_where_nobody_serves(mode: Mode) {
    let mut rig = rig(mode);
    let source_ranges = ["192.0.2.2/32", "fd00:2::2/128"].map(|range| range.parse().unwrap()).into();
    let service = Service { source_ranges, ..service(1, Protocol::Tcp) };
    let nowhere = rig.slices_of(&service, &[]);
    rig.program([news(&service)].into_iter().chain(nowhere));
    for family in FAMILIES {
        let target = rig.target(&service, To::LoadBalancer, family);
        assert_eq!(kind(&rig, From::External, target), Err(ErrorKind::ConnectionRefused), "{family}");
        for from in [From::Pod, From::Node] {
            assert_ne!(connected(&rig, from, target), Err(ErrorKind::ConnectionRefused), "{family} {from:?}");
        }
    }
}

fn source_ranges_of_one_address_stay_as_they_are(mode: Mode) {
    let mut rig = rig(mode);
    let source_ranges = ["192.0.2.2/32", "fd00:2::2/128"].map(|range| range.parse().unwrap()).into();
    serve(&mut rig, &Service { source_ranges, ..service(1, Protocol::Tcp) });
    assert_eq!(rig.resync().changes(), 0);
}

fn ports_of_the_node_are_not_reached_by_vips(mode: Mode) {
    let mut rig = rig(mode);
    let service = Service { health_check_node_port: Some(30_999), ..service(1, Protocol::Tcp) };
    serve(&mut rig, &service);
    let _daemon = Backend::start("sshd", &rig.network.node, &[Port::Http(22), Port::Http(30_999)]).unwrap();
    for family in FAMILIES {
        for from in [From::External, From::Pod, From::Node] {
            for to in [To::ClusterIp, To::LoadBalancer, To::ExternalIp] {
                let vip = rig.target(&service, to, family).ip();
                assert_eq!(kind(&rig, from, (vip, 22).into()), Err(ErrorKind::ConnectionRefused), "{from:?} {vip}");
                // A node port is of the node's addresses.
                assert_eq!(kind(&rig, from, (vip, 30_001).into()), Err(ErrorKind::ConnectionRefused), "{from:?} {vip}");
                // Load balancers may ask for health by the VIP.
                assert_eq!(kind(&rig, from, (vip, 30_999).into()), Ok("sshd".into()), "{from:?} {vip}");
            }
            let own = rig.own_address(From::Node, family);
            assert_eq!(kind(&rig, from, (own, 22).into()), Ok("sshd".into()), "{from:?} {own}");
        }
    }
}

fn a_vip_answers_ping(mode: Mode) {
    let mut rig = rig(mode);
    let service = service(1, Protocol::Tcp);
    serve(&mut rig, &service);
    for (from, family) in
        [From::External, From::Pod, From::Node].into_iter().flat_map(|from| FAMILIES.map(|f| (from, f)))
    {
        let vip = rig.target(&service, To::ClusterIp, family).ip();
        assert!(rig.namespace(from).run(|| Ok(answers_ping(vip))).unwrap(), "{from:?} {vip}");
    }
}

/// By busybox, which asks three times, a second apart, unless an answer comes.
fn answers_ping(address: IpAddr) -> bool {
    let program = if address.is_ipv4() { "ping" } else { "ping6" };
    let arguments = [program, "-c", "1", "-W", "2", &address.to_string()];
    Command::new("busybox").args(arguments).output().unwrap().status.success()
}

/// What a network plugin has for them: to the kernel a VIP is an address of the node.
fn host_ports_of_pods_do_not_take_a_vip(mode: Mode) {
    let mut rig = rig(mode);
    let host_port = ["-p", "tcp", "--dport", "80", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "REDIRECT"];
    let host_port = [&["-t", "nat", "-A", "PREROUTING"], &host_port[..], &["--to-ports", "8081"]].concat();
    rig.network.node.run(|| Ok(run(&mode.command("iptables"), &host_port))).unwrap();
    let _pod = Backend::start("host-port", &rig.network.node, &[Port::Http(8081)]).unwrap();
    let service = service(1, Protocol::Tcp);
    serve(&mut rig, &service);
    for to in [To::ClusterIp, To::LoadBalancer, To::ExternalIp] {
        let name = kind(&rig, From::External, rig.target(&service, to, Family::Ipv4)).unwrap();
        assert!(name.starts_with("backend-"), "{to:?} {name}");
    }
    let own = rig.own_address(From::Node, Family::Ipv4);
    assert_eq!(kind(&rig, From::External, (own, 80).into()), Ok("host-port".into()));
}

fn what_somebody_changed_is_put_right(mode: Mode) {
    let mut rig = rig(mode);
    let service = Service { external_policy: TrafficPolicy::Local, ..service(1, Protocol::Tcp) };
    serve(&mut rig, &service);
    let whole = netfilter(&rig);
    for mess in [
        "iptables -t nat -F",
        "ip6tables -t mangle -F",
        "iptables -F; iptables -X",
        "ipset del KUBE-CLUSTER-IP 10.96.0.1,tcp:80",
        "ipset add KUBE-6-CLUSTER-IP fd00:96::9,tcp:80",
        "ipset flush",
        "ipset add -exist IPVSD-SHORT-CIRCUIT 198.51.100.1,tcp:80 skbmark 0x1",
        "iptables -F; iptables -t nat -F; iptables -t mangle -F; ip6tables -F; ip6tables -t nat -F; ip6tables -t mangle -F; ipset destroy",
    ] {
        run_in(&rig, mess);
        assert_ne!(netfilter(&rig), whole, "{mess}");
        assert!(rig.resync().changes() > 0, "{mess}");
        assert_eq!(netfilter(&rig), whole, "{mess}");
        assert_eq!(rig.resync().changes(), 0, "{mess}");
    }
}

/// All sets and rules of the node, sorted, without what differs from one making to the next.
fn netfilter(rig: &GoldenRig) -> Vec<String> {
    let rules = ["iptables", "ip6tables"].map(|name| rig.mode().program(name, "save"));
    let all = rig.network.node.run(|| Ok(run("ipset", &["save"]) + &rules.map(|program| run(&program, &[])).concat()));
    let all = all.unwrap();
    let lines = all
        .lines()
        // Tables with nothing in them are there or not.
        .filter(|line| !line.starts_with(['#', '*']) && *line != "COMMIT" && !line.contains(" ACCEPT ["))
        .map(|line| line.split(" bucketsize").next().unwrap().split(" [").next().unwrap().trim().to_owned());
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

fn rules_are_as_many() {
    let mut rig = rig(Mode::Ipvs);
    let count = |rig: &GoldenRig| {
        let rules = || Ok(run("iptables-save", &[]) + &run("ip6tables-save", &[]));
        rig.network.node.run(rules).unwrap().lines().filter(|line| line.starts_with("-A")).count()
    };
    let numbered = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut service = service(1, Protocol::Tcp);
        service.name = ObjectName::new("default", &format!("s{number}"));
        service.cluster_ips = vec![[10, 97, high, low].into()];
        service.load_balancer_ips = vec![[10, 98, high, low].into()];
        service.external_ips.clear();
        service.ports[0].node_port = None;
        service.source_ranges = vec!["192.0.2.2/32".parse().unwrap()];
        news(&service)
    };
    rig.program((0..10).map(numbered));
    let few = count(&rig);
    rig.program((10..1_000).map(numbered));
    assert_eq!(count(&rig), few);
    println!("    {few} rules");
    // One more takes a few messages and no program. The rig itself starts a thread to enter the namespace.
    let (before, forks) = (rig.reconciler().kernel().counters(), tasks_ever());
    rig.program([numbered(1_000)]);
    let after = rig.reconciler().kernel().counters();
    assert_eq!(tasks_ever() - forks, 1);
    assert!(after.sends - before.sends <= 6, "{}", after.sends - before.sends);
    assert!(rig.resync().changes() == 0);
}

/// How many processes and threads this kernel has ever started.
fn tasks_ever() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let line = stat.lines().find_map(|line| line.strip_prefix("processes "));
    line.unwrap().parse().unwrap()
}

/// The whole program: with manifests it programs netfilter where it is told to, and a clean-up needs no telling.
fn the_program_does_it_where_it_is_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let (manifests, own) = (directory.path().join("manifests"), directory.path().join("own.yaml"));
    fs::create_dir(&manifests).unwrap();
    write_cluster(&manifests, 3);
    fs::write(&own, "netfilter: true\n").unwrap();
    let [manifests, own] = [&manifests, &own].map(|path| path.to_str().unwrap());
    let sets = || run("ipset", &["save"]).lines().filter(|line| line.starts_with("add KUBE-CLUSTER-IP ")).count();
    stdout(&ipvsd(&["run", "--once", "--manifests", manifests]), 0);
    assert_eq!((sets(), run("iptables-save", &[]).contains("KUBE-")), (0, false));

    let with = ["--manifests", manifests, "--ipvsd-config", own];
    stdout(&ipvsd(&[&["run", "--once"], &with[..]].concat()), 0);
    assert_eq!((sets(), run("iptables-save", &[]).contains("KUBE-")), (3, true));
    assert_eq!(stdout(&ipvsd(&[&["diff"], &with[..]].concat()), 0), "");
    run("ipset", &["del", "KUBE-CLUSTER-IP", "10.0.0.1,tcp:80"]);
    let differs = stdout(&ipvsd(&[&["diff"], &with[..]].concat()), 1);
    assert_eq!(differs, "+ KUBE-CLUSTER-IP 10.0.0.1,tcp:80\n");

    stdout(&ipvsd(&["cleanup"]), 0);
    assert_eq!((run("ipset", &["save"]), run("iptables-save", &[]).contains("KUBE-")), (String::new(), false));
}

fn a_cleanup_leaves_no_set_and_no_rule(mode: Mode) {
    let mut rig = rig(mode);
    run_in(&rig, "iptables -A INPUT -s 192.0.2.77 -j ACCEPT");
    run_in(&rig, "ipset create SOMEBODYS hash:ip");
    let before = netfilter(&rig);
    serve(&mut rig, &Service { external_policy: TrafficPolicy::Local, ..service(1, Protocol::Tcp) });
    // Not whole any more, and all the same in the way of removing the sets.
    run_in(&rig, "iptables -t nat -D KUBE-SERVICES 1");
    let report = rig.network.node.run(|| ipvsd::daemon::cleanup(ipvsd::reconcile::Takeover::Nothing)).unwrap();
    assert!(report.is_good(), "{:?}", report.failed);
    assert_eq!(netfilter(&rig), before);
}

fn run_in(rig: &GoldenRig, commands: &str) {
    let [four, six] = ["iptables", "ip6tables"].map(|name| rig.mode().command(name));
    let commands = commands.replace("ip6tables", "SIX").replace("iptables", &four).replace("SIX", &six);
    rig.network.node.run(|| Ok(run("bash", &["-ec", &commands]))).unwrap();
}

/// Whatever the order in which Services come.
fn marks_are_the_same_after_a_restart(mode: Mode) {
    let mut rig = rig(mode);
    let services =
        [1, 2, 3].map(|number| Service { external_policy: TrafficPolicy::Local, ..service(number, Protocol::Tcp) });
    for service in services.iter().rev() {
        serve(&mut rig, service);
    }
    let before = netfilter(&rig);
    rig.restart();
    let all: Vec<Change> =
        services.iter().flat_map(|service| [vec![news(service)], rig.slices(service)].concat()).collect();
    let report = rig.program(all);
    assert_eq!(report.changes(), 0, "{report}");
    assert_eq!(netfilter(&rig), before);
}
