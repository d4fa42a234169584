//! What only Linux can be asked: that it keeps the contract of `contract.rs`, and what concerns others' virtual
//! servers and routes, real connections, and answers that get lost.

use crate::contract::{CASES, apply, destination, ip, observe, scheduled, tcp};
use crate::lab::{in_namespace, run, trial};
use crate::program::eventually;
use ipvsd::kernel::ipvs::encode::Encoder;
use ipvsd::kernel::linux::{Linux, OpenError};
use ipvsd::kernel::netlink::{Answer, Socket, family};
use ipvsd::kernel::{Cause, Errno, Kernel, Scope};
use ipvsd::model::{DestinationSpec, Family, Op, Persistence, RouteSpec, VirtualServerKey, VirtualServerSpec};
use libtest_mimic::Trial;
use neli::consts::socket::NlFamily;
use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    let contract = CASES.iter().map(|(name, case)| {
        Trial::test(format!("contract::{name}"), move || {
            in_namespace(|| case(&mut Linux::open().unwrap()));
            Ok(())
        })
    });
    let own = [
        trial("linux::others_virtual_servers_are_seen_and_left_alone", others_virtual_servers_are_seen_and_left_alone),
        trial("linux::others_routes_are_left_alone", others_routes_are_left_alone),
        trial("linux::the_owners_tag_is_invisible_to_ipvsadm", the_owners_tag_is_invisible_to_ipvsadm),
        trial("linux::editing_by_hand_takes_a_virtual_server_over", editing_by_hand_takes_a_virtual_server_over),
        trial("linux::the_owners_tag_disturbs_no_scheduling", the_owners_tag_disturbs_no_scheduling),
        trial("linux::a_scheduler_that_is_not_loaded_gets_loaded", a_scheduler_that_is_not_loaded_gets_loaded),
        trial("linux::without_the_right_to_it_says_which", without_the_right_to_it_says_which),
        trial("linux::connections_are_counted", connections_are_counted),
        trial("linux::the_table_has_what_others_made", the_table_has_what_others_made),
        trial("linux::lost_answers_are_told_as_unknown", lost_answers_are_told_as_unknown),
        trial("linux::thousands_of_operations_take_dozens_of_system_calls", thousands_take_dozens_of_system_calls),
        trial("linux::a_source_that_the_node_lacks_is_refused", a_source_that_the_node_lacks_is_refused),
    ];
    contract.chain(own).collect()
}

/// Services such as keepalived and people make, among them some that ipvsd never would.
const FOREIGN: &str = "\
-A -f 7 -s rr
-A -f 8 -6 -s wlc
-A -t 10.0.0.1:80 -s sh -b sh-fallback,sh-port -p 10800 -M 255.255.255.0
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 5 -x 100 -y 50
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -i -w 0
-A -t [fd00::1]:80 -s wrr -p 60 -M 64
-a -t [fd00::1]:80 -r [fd00::2]:80 -g -w 1
-A -u 10.0.0.1:53 -s rr -o
-A -t 10.0.0.1:0 -s rr -p 300
-A --sctp-service 10.0.0.1:9999 -s mh -b mh-port
";

fn make_foreign() -> String {
    for line in FOREIGN.lines() {
        run("ipvsadm", &line.split(' ').collect::<Vec<_>>());
    }
    run("ipvsadm", &["-Sn"])
}

fn others_virtual_servers_are_seen_and_left_alone() {
    let foreign = make_foreign();
    let mut linux = Linux::open().unwrap();
    let ours = Op::AddVirtualServer(tcp("10.96.0.1", 80), scheduled("rr"));
    apply(&mut linux, &[ours]);
    let seen = observe(&mut linux);
    assert_eq!(seen.model.to_string(), "tcp 10.96.0.1:80 rr\n");
    assert_eq!(seen.foreign.len(), 7);
    assert!(seen.foreign.contains(&VirtualServerKey::Mark { mark: 8, family: Family::Ipv6 }));

    let taken = tcp("10.0.0.1", 80);
    let failures = linux.apply(&[Op::AddVirtualServer(taken, scheduled("rr"))]);
    assert_eq!(failures[0].cause, Cause::OutOfDate(Errno::EEXIST));
    // Who asks for a key knows it to be ours; the spec tells that it is not as we would have made it.
    let read = linux.observe(Scope::VirtualServers(&[taken])).unwrap().model;
    assert_eq!(read.virtual_servers[&taken].destinations.len(), 2);
    assert!(read.virtual_servers[&taken].spec.flags.0 > u32::from(u16::MAX));

    apply(&mut linux, &[Op::RemoveVirtualServer(tcp("10.96.0.1", 80))]);
    assert_eq!(run("ipvsadm", &["-Sn"]), foreign);
}

fn local_routes() -> BTreeSet<String> {
    let all = run("ip", &["route", "show", "table", "local"]) + &run("ip", &["-6", "route", "show", "table", "local"]);
    all.lines().map(|line| line.trim().to_owned()).collect()
}

/// An address on a device has a route for the same destination, and somebody may use our protocol's number.
fn others_routes_are_left_alone() {
    for (six, vip) in [("-4", "10.96.0.1"), ("-6", "fd00:96::1")] {
        run("ip", &[six, "route", "add", "local", vip, "dev", "lo", "table", "local", "proto", "99", "metric", "5"]);
        run("ip", &[six, "route", "add", "local", vip, "dev", "lo", "table", "local", "proto", "118", "metric", "6"]);
        run("ip", &[six, "route", "add", vip, "dev", "lo", "proto", "118", "metric", "18768"]);
        run("ip", &[six, "address", "add", vip, "dev", "lo"]);
    }
    let foreign = local_routes();
    let mut linux = Linux::open().unwrap();
    assert_eq!(observe(&mut linux).model, Default::default());

    let vips = [ip("10.96.0.1"), ip("fd00:96::1")];
    apply(&mut linux, &vips.map(|vip| Op::AddRoute(vip, RouteSpec::default())));
    assert_eq!(observe(&mut linux).model.to_string(), "route 10.96.0.1\nroute fd00:96::1\n");
    assert_eq!(local_routes().difference(&foreign).count(), 2);
    let sources = [ip("127.0.0.1"), ip("::1")].map(|source| RouteSpec { preferred_source: Some(source) });
    apply(&mut linux, &[Op::UpdateRoute(vips[0], sources[0]), Op::UpdateRoute(vips[1], sources[1])]);
    assert!(local_routes().is_superset(&foreign));

    apply(&mut linux, &vips.map(Op::RemoveRoute));
    assert_eq!(local_routes(), foreign);
    let causes = linux.apply(&vips.map(Op::RemoveRoute)).into_iter().map(|failure| failure.cause);
    assert!(causes.eq([(); 2].map(|()| Cause::OutOfDate(Errno::ESRCH))));
}

fn the_owners_tag_is_invisible_to_ipvsadm() {
    let mut linux = Linux::open().unwrap();
    let key = tcp("10.96.0.1", 80);
    apply(
        &mut linux,
        &[
            Op::AddVirtualServer(key, scheduled("wrr")),
            Op::AddDestination(key, destination("10.1.0.1", 8080), DestinationSpec::masquerading(3)),
        ],
    );
    assert_eq!(run("ipvsadm", &["-Sn"]), "-A -t 10.96.0.1:80 -s wrr\n-a -t 10.96.0.1:80 -r 10.1.0.1:8080 -m -w 3\n");
    let listed = run("ipvsadm", &["-Ln"]);
    assert!(listed.contains("\nTCP  10.96.0.1:80 wrr\n"), "{listed}");
}

fn editing_by_hand_takes_a_virtual_server_over() {
    let mut linux = Linux::open().unwrap();
    let key = tcp("10.96.0.1", 80);
    apply(&mut linux, &[Op::AddVirtualServer(key, scheduled("rr"))]);
    // Destinations can be edited by hand and stay ours to repair.
    run("ipvsadm", &["-a", "-t", "10.96.0.1:80", "-r", "10.1.0.1:80", "-m"]);
    assert!(observe(&mut linux).model.virtual_servers.contains_key(&key));
    run("ipvsadm", &["-E", "-t", "10.96.0.1:80", "-s", "wrr"]);
    let seen = observe(&mut linux);
    assert_eq!((seen.model, seen.foreign), (Default::default(), BTreeSet::from([key])));
}

/// Every connection goes on in turn, or with persistence to where the client's first one went.
fn the_owners_tag_disturbs_no_scheduling() {
    let mut linux = Linux::open().unwrap();
    run("ip", &["address", "add", "192.168.7.1/32", "dev", "lo"]);
    let reals = [destination("192.168.7.1", 8080), destination("192.168.7.1", 8081)];
    let _backends = reals.map(|real| TcpListener::bind((real.address, real.port)).unwrap());
    let persistence = Some(Persistence { timeout: 300, prefix: 32 });
    let spread = |key: VirtualServerKey, spec: VirtualServerSpec, linux: &mut Linux| -> Vec<u32> {
        let mut ops = vec![Op::AddVirtualServer(key, spec)];
        ops.extend(reals.map(|real| Op::AddDestination(key, real, DestinationSpec::masquerading(1))));
        apply(linux, &ops);
        let VirtualServerKey::Address { address, port, .. } = key else { return Vec::new() };
        let _clients = [(); 6].map(|()| TcpStream::connect((address, port)).unwrap());
        let mut counts: Vec<u32> =
            reals.iter().filter_map(|real| observe(linux).connections.get(&(key, *real)).copied()).collect();
        counts.sort_unstable();
        counts
    };
    apply(&mut linux, &[Op::AddRoute(ip("10.96.0.1"), RouteSpec { preferred_source: Some(ip("192.168.7.1")) })]);
    assert_eq!(spread(tcp("10.96.0.1", 80), scheduled("rr"), &mut linux), [3, 3]);
    let sticky = VirtualServerSpec { persistence, ..scheduled("rr") };
    assert_eq!(spread(tcp("10.96.0.1", 81), sticky, &mut linux), [6]);
}

fn a_scheduler_that_is_not_loaded_gets_loaded() {
    // It may be in use by somebody else's namespace, or be part of the kernel.
    let _ = Command::new("modprobe").args(["-q", "-r", "ip_vs_nq"]).status();
    let mut linux = Linux::open().unwrap();
    apply(&mut linux, &[Op::AddVirtualServer(tcp("10.96.0.1", 80), scheduled("nq"))]);
    assert_eq!(observe(&mut linux).model.to_string(), "tcp 10.96.0.1:80 nq\n");
}

fn without_the_right_to_it_says_which() {
    // SAFETY: three numbers; the raw call changes this thread alone, which ends with this test.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
    assert_eq!(changed, 0);
    let error = Linux::open().err().unwrap();
    assert!(matches!(error, OpenError::NotPermitted), "{error:?}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"));
}

fn connections_are_counted() {
    let mut linux = Linux::open().unwrap();
    run("ip", &["address", "add", "192.168.7.1/32", "dev", "lo"]);
    let (key, real) = (tcp("10.96.0.1", 80), destination("192.168.7.1", 8080));
    let idle = destination("192.168.7.1", 8081);
    apply(
        &mut linux,
        &[
            Op::AddVirtualServer(key, scheduled("rr")),
            Op::AddDestination(key, real, DestinationSpec::masquerading(1)),
            Op::AddDestination(key, idle, DestinationSpec::masquerading(0)),
            Op::AddRoute(ip("10.96.0.1"), RouteSpec { preferred_source: Some(ip("192.168.7.1")) }),
        ],
    );
    let _backend = TcpListener::bind("192.168.7.1:8080").unwrap();
    let clients = [(); 3].map(|()| TcpStream::connect("10.96.0.1:80").unwrap());
    assert_eq!(clients[0].local_addr().unwrap().ip(), ip("192.168.7.1"), "the route's preferred source");
    let seen = observe(&mut linux);
    assert_eq!(seen.connections.into_iter().collect::<Vec<_>>(), [((key, real), 3)]);
    assert_eq!(linux.observe(Scope::VirtualServers(&[key])).unwrap().connections[&(key, real)], 3);
    let busy = |linux: &mut Linux| {
        let (_, destinations) = linux.table().unwrap().virtual_servers.remove(0);
        destinations.into_iter().find(|destination| destination.key == real).unwrap()
    };
    assert_eq!((busy(&mut linux).active, busy(&mut linux).inactive), (3, 0));
    // The kernel adds the processors' counts up every two seconds.
    eventually("connections are counted", || busy(&mut linux).stats.connections > 0);
    let stats = busy(&mut linux).stats;
    assert_eq!(stats.connections, 3);
    assert!(stats.packets_in >= 6 && stats.bytes_in >= 300 && stats.packets_out >= 3, "{stats:?}");
}

fn the_table_has_what_others_made() {
    make_foreign();
    let table = Linux::open().unwrap().table().unwrap();
    assert_eq!(table.info.version >> 8, 0x01_02, "1.2.x");
    assert!(table.info.connection_table_size.is_power_of_two());
    assert_eq!(table.virtual_servers.len(), 7);
    assert!(table.virtual_servers.iter().all(|(server, _)| !server.is_ours()));
    let find = |key| table.virtual_servers.iter().find(|(server, _)| server.identity.key() == Some(key)).unwrap();
    let (service, destinations) = find(tcp("10.0.0.1", 80));
    assert_eq!((service.netmask, service.timeout), (0xffff_ff00, 10_800));
    let thresholds: BTreeSet<_> = destinations.iter().map(|one| (one.upper_threshold, one.lower_threshold)).collect();
    assert_eq!(thresholds, BTreeSet::from([(0, 0), (100, 50)]));
    let (service, _) = find(tcp("fd00::1", 80));
    assert_eq!(service.netmask, 64);
}

/// A socket with room for a few answers only: every item is then told as refused or as unknown, none is forgotten.
fn lost_answers_are_told_as_unknown() {
    let mut socket = Socket::open(NlFamily::Generic, 2048).unwrap();
    let encoder = Encoder { family: family::look_up(&mut socket, "IPVS").unwrap() };
    let ops: Vec<Op> = (1..=200).map(|port| Op::RemoveVirtualServer(tcp("10.96.0.1", port))).collect();
    let (mut refused, mut lost) = (0, 0);
    socket.exchange(
        &ops,
        |batch, op| encoder.operation(batch, op),
        |_, answer| match answer {
            Answer::Refused(errno) => refused += i32::from(errno == Errno::ESRCH),
            Answer::Lost(errno) => lost += i32::from(errno == Errno::ENOBUFS),
            Answer::Data(_) => {}
        },
    );
    assert_eq!(refused + lost, 200);
    assert!(refused > 0 && lost > 0, "{refused} refused, {lost} lost");
    // It is of use afterwards.
    let mut answers = 0;
    socket.exchange(&ops[..1], |batch, op| encoder.operation(batch, op), |_, _| answers += 1);
    assert_eq!(answers, 1);
}

fn thousands_take_dozens_of_system_calls() {
    let mut linux = Linux::open().unwrap();
    let keys: Vec<_> = (0..2000).map(|number| tcp("10.96.0.1", number + 1)).collect();
    let mut ops: Vec<_> = keys.iter().map(|key| Op::AddVirtualServer(*key, scheduled("rr"))).collect();
    let real = destination("10.1.0.1", 80);
    ops.extend(keys.iter().map(|key| Op::AddDestination(*key, real, DestinationSpec::masquerading(1))));
    let before = linux.counters();
    apply(&mut linux, &ops);
    let cost = linux.counters();
    assert_eq!(cost.messages - before.messages, 4000);
    assert_eq!((cost.sends - before.sends, cost.receives - before.receives), (16, 16));
}

fn a_source_that_the_node_lacks_is_refused() {
    let mut linux = Linux::open().unwrap();
    let lacking = RouteSpec { preferred_source: Some(ip("192.0.2.1")) };
    let failures = linux.apply(&[Op::AddRoute(ip("10.96.0.1"), lacking)]);
    assert_eq!(failures[0].cause, Cause::Refused(Errno::EINVAL));
}
