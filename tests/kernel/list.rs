//! `ipvsd list` against ipvsadm: the same bytes for each option, except where ipvsadm is wrong.

use crate::lab::{run, trial};
use crate::listing::{assert_same, ipvsadm, list, restore, words};
use crate::program::{IPVSD, add_addresses, eventually, ipvsd, rules, stdout};
use ipvsd::kernel::Kernel;
use ipvsd::kernel::linux::Linux;
use ipvsd::model::{
    DestinationKey, DestinationSpec, Forwarding, Op, Protocol, SchedulerFlags, VirtualServerKey, VirtualServerSpec,
};
use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Instant;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("list::every_option_prints_what_ipvsadm_prints", every_option),
        trial("list::traffic_is_counted_and_its_connections_shown_as_by_ipvsadm", traffic),
        trial("list::a_hundred_million_bytes_are_rounded_as_by_ipvsadm", large_counters),
        trial("list::one_virtual_server_is_shown_alone_and_a_missing_one_is_exit_code_1", one_virtual_server),
        trial("list::timeouts_and_sync_daemons_are_shown_as_by_ipvsadm", timeouts_and_daemons),
        trial("list::ipvsadm_restores_what_was_saved", restored),
        trial("list::what_ipvsadm_gets_wrong_is_right", right_where_ipvsadm_is_wrong),
        trial("list::no_rule_is_written_for_what_none_restores", not_restorable),
        trial("list::a_reader_that_has_read_enough_is_no_error", closed_pipe),
        trial("list::fifty_thousand_virtual_servers_are_all_there", at_size),
    ]
}

/// All kinds that ipvsadm prints rightly.
const POPULATION: &str = "\
-A -t 10.0.0.1:80 -s rr
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 3 -x 1000 -y 500
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -m -w 0
-a -t 10.0.0.1:80 -r 10.1.0.3:80 -g -w 2147483647
-a -t 10.0.0.1:80 -r 10.1.0.20:80 -i -x 65535
-a -t 10.0.0.1:80 -r 10.1.0.21:80 -i --tun-type gue --tun-port 6080
-a -t 10.0.0.1:80 -r 10.1.0.22:80 -i --tun-type gue --tun-port 65535 --tun-csum
-a -t 10.0.0.1:80 -r 10.1.0.23:80 -i --tun-type gue --tun-port 1 --tun-remcsum
-a -t 10.0.0.1:80 -r 10.1.0.24:80 -i --tun-type gre
-a -t 10.0.0.1:80 -r 10.1.0.25:80 -i --tun-type gre --tun-csum
-A -t 10.0.0.2:443 -s sh -b sh-port,sh-fallback -p 360 -M 255.255.255.0
-A -t 9.0.0.2:443 -s mh -b mh-port -p 10800
-A -t 9.0.0.2:444 -s wlc -b flag-1,flag-3
-A -t 9.0.0.2:445 -s wrr -p 1 -M 128.0.0.0
-A -t 9.0.0.2:446 -s lc
-A -t 9.0.0.2:447 -s lblc
-A -t 9.0.0.2:448 -s lblcr
-A -t 9.0.0.2:449 -s dh
-A -t 9.0.0.2:450 -s sed
-A -t 9.0.0.2:451 -s nq
-A -t 9.0.0.2:452 -s fo
-A -t 9.0.0.2:453 -s mh -b mh-fallback
-A -t 10.0.0.4:0 -s rr -p 50
-A -u 10.0.0.3:53 -s wlc -o
-A -u 10.0.0.3:5060 -s sh -b sh-port -p 60 -M 255.0.0.0 --pe sip -o
-a -u 10.0.0.3:5060 -r 10.1.0.1:5060 -m
-A --sctp-service 10.0.0.9:9 -s ovf
-a --sctp-service 10.0.0.9:9 -r 10.1.0.255:65535 -m
-A -f 77 -s rr
-a -f 77 -r 10.1.0.1 -m
-A -f 78 -6 -s rr -p
-a -f 78 -6 -r [fd00::3]:0 -g
-A -f 2147483647 -s mh -o
-A -t [fd00::1]:80 -s wrr -p 300 -M 64
-a -t [fd00::1]:80 -r [fd00::2]:80 -m -w 100
-a -t [fd00::1]:80 -r [fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535 -m -w 100
-A -t [fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535 -s lblcr
-A -u [fd00::1]:53 -s rr
";

/// Every option that says how the table looks, and some that go together.
const TABLE: [&str; 13] = [
    "-Ln",
    "-ln --exact",
    "-Ln --nosort",
    "-Ln --sort",
    "-Ln --stats",
    "-Ln --stats --exact",
    "-Ln --rate",
    "-Ln --rate --exact",
    "-Ln --thresholds",
    "-Ln --persistent-conn",
    "-Ln --tun-info",
    "--list --numeric --stats --rate --thresholds",
    "-Ln --thresholds --persistent-conn --tun-info",
];

fn every_option() {
    restore(POPULATION);
    for options in TABLE {
        assert!(assert_same(options).lines().count() >= POPULATION.lines().count(), "{options}");
    }
    assert_eq!(list(""), ipvsadm("-Ln"), "no names are looked up");
    let without_thresholds = |line: &str| line.split(" -x").next().map(str::to_owned);
    let saved: Vec<_> = list("-Sn").lines().filter_map(without_thresholds).collect();
    assert_eq!(saved.join("\n") + "\n", ipvsadm("-Sn"));
    assert_eq!(list("--save --sort"), list("-Sn"));
}

/// Servers on `lo`, one for each of the protocols, and connections to them.
struct Traffic {
    _servers: (Vec<TcpListener>, UdpSocket),
    _clients: (Vec<TcpStream>, UdpSocket),
}

const WITH_TRAFFIC: &str = "\
-A -t 10.0.0.1:80 -s rr -p 60
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m
-A -u 10.0.0.1:5060 -s rr -p 60 --pe sip -o
-a -u 10.0.0.1:5060 -r 10.1.0.1:5060 -m
-A -u 10.0.0.1:53 -s rr
-a -u 10.0.0.1:53 -r 10.1.0.1:5060 -m
-A -t [fd00::1]:80 -s rr
-a -t [fd00::1]:80 -r [fd00::2]:8080 -m
-A -f 9 -s rr -p
-a -f 9 -r 10.1.0.1 -m
";

const CALL: &str = "INVITE sip:a@example.com SIP/2.0\r\nCall-ID: 3848276298220188511@example.com\r\nFrom: b\r\n\r\n";

impl Traffic {
    fn start() -> Self {
        for address in ["10.0.0.1", "10.1.0.1", "fd00::1", "fd00::2"] {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            run("ip", &[&["addr", "add", address, "dev", "lo"], nodad].concat());
        }
        run("iptables", &words("-t mangle -A OUTPUT -p tcp -d 10.0.0.1 --dport 99 -j MARK --set-mark 9"));
        restore(WITH_TRAFFIC);
        let servers =
            ["10.1.0.1:8080", "[fd00::2]:8080", "10.1.0.1:99"].map(|address| TcpListener::bind(address).expect("ours"));
        let server = UdpSocket::bind("10.1.0.1:5060").expect("ours");
        let connect = |address: &str| TcpStream::connect(address).expect("it listens");
        let clients = ["10.0.0.1:80", "10.0.0.1:80", "[fd00::1]:80", "10.0.0.1:99"].map(connect).into();
        let client = UdpSocket::bind("0.0.0.0:0").expect("any port");
        client.send_to(CALL.as_bytes(), "10.0.0.1:5060").expect("a route");
        client.send_to(b"?", "10.0.0.1:53").expect("a route");
        Self { _servers: (servers.into(), server), _clients: (clients, client) }
    }
}

fn traffic() {
    let _traffic = Traffic::start();
    // The kernel brings counters up to date every two seconds.
    eventually("connections are counted", || {
        list("--stats --exact").contains("TCP  10.0.0.1:80                         2")
    });
    TABLE.iter().for_each(|options| drop(assert_same(options)));
    let shown = assert_same("-Lnc");
    assert_eq!(shown.lines().count(), 2 + 5 + 3, "three clients are remembered:\n{shown}");
    assert!(
        assert_same("-Ln --connection --persistent-conn")
            .contains("sip                3848276298220188511@example.com")
    );
    for (protocol, state) in [("TCP", "ESTABLISHED"), ("UDP", "UDP"), ("IP ", "ASSURED")] {
        let is_of = |line: &&str| line.starts_with(protocol) && line.split_ascii_whitespace().nth(2) == Some(state);
        assert_ne!(shown.lines().filter(is_of).count(), 0, "{protocol} {state}:\n{shown}");
    }

    let json: serde_json::Value = serde_json::from_str(&list("-c --json")).expect("JSON");
    let connections = json["connections"].as_array().expect("a list");
    assert_eq!(connections.len() + 2, shown.lines().count());
    assert!(connections.iter().any(|connection| connection["virtual"]["address"] == "fd00::1"));
    let json: serde_json::Value = serde_json::from_str(&list("-t 10.0.0.1:80 --json")).expect("JSON");
    let server = &json["virtualServers"][0];
    assert_eq!(
        (&server["stats"]["connections"], &server["destinations"][0]["persistentConnections"]),
        (&2.into(), &1.into())
    );
}

fn large_counters() {
    for address in ["10.0.0.1", "10.1.0.1"] {
        run("ip", &["addr", "add", address, "dev", "lo"]);
    }
    restore("-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m\n");
    let server = TcpListener::bind("10.1.0.1:8080").expect("ours");
    let reader = thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a client");
        let mut buffer = vec![0; 1 << 20];
        while stream.read(&mut buffer).expect("it is open") > 0 {}
    });
    let mut client = TcpStream::connect("10.0.0.1:80").expect("it listens");
    (0..110).for_each(|_| client.write_all(&[7; 1_000_000]).expect("it reads"));
    drop(client);
    reader.join().expect("no failure");
    eventually("bytes are counted", || assert_same("-Ln --stats").contains("K "));
    assert!(
        assert_same("-Ln --stats --exact")
            .lines()
            .any(|line| line.split_ascii_whitespace().any(|word| word.len() == 9))
    );
    assert_same("-Ln --rate");
}

fn one_virtual_server() {
    restore(POPULATION);
    for server in [
        "-t 10.0.0.1:80",
        "-t 10.0.0.4",
        "--tcp-service [fd00::1]:80",
        "-u 10.0.0.3:53",
        "--udp-service [fd00::1]:53",
        "--sctp-service 10.0.0.9:9",
        "-f 77",
        "--fwmark-service 78 -6",
    ] {
        for columns in ["", "--stats", "--rate --exact", "--thresholds", "--persistent-conn", "--tun-info", "--nosort"]
        {
            assert_same(&format!("-Ln {server} {columns}"));
        }
    }
    for (server, name) in [
        ("-t 10.0.0.9:80", "tcp 10.0.0.9:80"),
        ("-u 10.0.0.1:80", "udp 10.0.0.1:80"),
        ("-f 78", "mark 78 ipv4"),
        ("-f 77 -6", "mark 77 ipv6"),
    ] {
        for json in ["-Ln", "--json"] {
            let output = ipvsd(&[&["list", json], &words(server)[..]].concat());
            assert_eq!(stdout(&output, 1), "");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(errors, format!("ipvsd: there is no virtual server {name}\n"));
        }
    }
    assert_eq!(ipvsd(&["list", "-Lnc", "-t", "10.0.0.1:80"]).status.code(), Some(2));
}

fn timeouts_and_daemons() {
    assert_same("-L --daemon");
    assert_same("-L --timeout");
    ipvsadm("--set 901 121 301");
    assert_eq!(assert_same("-Ln --timeout"), "Timeout (tcp tcpfin udp): 901 121 301\n");
    let json: serde_json::Value = serde_json::from_str(&list("--timeout --json")).expect("JSON");
    let timeouts = serde_json::json!({"tcpSeconds": 901, "tcpFinSeconds": 121, "udpSeconds": 301});
    assert_eq!(json["timeouts"], timeouts);

    add_addresses(&["172.17.0.1/24", "fd00:9::1/64"]);
    run("ip", &words("link set node0 multicast on"));
    ipvsadm(
        "--start-daemon backup --mcast-interface node0 --syncid 7 --sync-maxlen 1400 --mcast-group ff02::9 \
         --mcast-port 8849",
    );
    assert_same("-L --daemon");
    ipvsadm("--start-daemon master --mcast-interface node0 --syncid 5");
    let both = assert_same("-Ln --daemon");
    assert!(both.starts_with("master sync daemon (mcast=node0, syncid=5, maxlen="), "{both}");
    assert_eq!(both.lines().count(), 2);
    let json: serde_json::Value = serde_json::from_str(&list("--daemon --json")).expect("JSON");
    assert_eq!((&json["syncDaemons"][1]["group"], &json["syncDaemons"][1]["port"]), (&"ff02::9".into(), &8849.into()));
    ipvsadm("--stop-daemon backup");
    assert_same("-L --daemon");
    ipvsadm("--stop-daemon master");
}

fn restored() {
    restore(POPULATION);
    let (before, saved) = (rules(), list("--save"));
    assert!(saved.contains(" -x 1000 -y 500\n"), "{saved}");
    ipvsadm("-C");
    assert_eq!(list("-S"), "");
    restore(&saved);
    assert_eq!(rules(), before);
    assert_eq!(list("--save"), saved, "with thresholds");
}

/// What ipvsadm 1.31 does is asserted too, so that a version that does better is noticed.
fn right_where_ipvsadm_is_wrong() {
    restore(
        "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -x 9 -y 3\n\
         -a -t 10.0.0.1:80 -r 192.168.0.1:80 -i\n-a -t 10.0.0.1:80 -r [fd00::1]:80 -i\n\
         -A -t 192.168.0.1:80 -s sh -b sh-port,flag-3\n-A -f 4000000000 -s rr\n",
    );
    let names = |text: String| -> Vec<String> {
        text.lines().skip(3).filter_map(|line| line.split_ascii_whitespace().nth(1).map(str::to_owned)).collect()
    };
    // It compares by subtraction in 32 bits with a sign, and marks are numbers with a sign to it.
    let theirs = ["-294967296", "192.168.0.1:80", "10.0.0.1:80", "192.168.0.1:80", "[fd00::1]:80", "10.1.0.1:80"];
    assert_eq!(names(ipvsadm("-Ln")), theirs);
    let ours = ["10.0.0.1:80", "10.1.0.1:80", "192.168.0.1:80", "[fd00::1]:80", "192.168.0.1:80", "4000000000"];
    assert_eq!(names(list("-Ln")), ours);
    assert!(!ipvsadm("-Sn").contains("-x"), "thresholds are lost");
    assert!(ipvsadm("-Sn").contains("-b sh-port\n"), "and flags that have no name of their scheduler");
    assert!(list("-Ln").contains("TCP  192.168.0.1:80 sh (sh-port,flag-3)\n"));

    let saved = list("-Sn");
    ipvsadm("-C");
    restore(&saved);
    assert_eq!(list("-Sn"), saved);
}

fn add(ops: &[Op]) {
    assert_eq!(Linux::open().expect("IPVS").apply(ops), []);
}

fn server(address: [u8; 4]) -> (VirtualServerKey, VirtualServerSpec) {
    let key = VirtualServerKey::new(address.into(), 80, Protocol::Tcp);
    (
        key,
        VirtualServerSpec {
            scheduler: "rr".parse().expect("a name"),
            flags: SchedulerFlags::default(),
            persistence: None,
        },
    )
}

/// Forwarding that ipvsadm has no option for.
fn not_restorable() {
    let (key, spec) = server([10, 0, 0, 1]);
    let destination = |last, forwarding| {
        let real = DestinationKey { address: [10, 1, 0, last].into(), port: 8080 };
        Op::AddDestination(key, real, DestinationSpec { forwarding, ..DestinationSpec::masquerading(1) })
    };
    add(&[Op::AddVirtualServer(key, spec), destination(1, Forwarding::Local), destination(2, Forwarding::Bypass)]);
    let output = ipvsd(&["list", "--save"]);
    // With -g, which ipvsadm writes, it would be restored with port 80.
    assert_eq!(stdout(&output, 1), "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "ipvsd: no rule can restore TCP  10.0.0.1:80 -> 10.1.0.2:8080\n");
}

fn closed_pipe() {
    restore(POPULATION);
    for options in ["", "--json", "-Sn", "-Lnc", "-c --json", "--timeout", "--stats -f 77"] {
        let pipe = std::io::pipe().expect("a pipe").1;
        let output = Command::new(IPVSD).arg("list").args(words(options)).stdout(pipe).output().expect("it is there");
        assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]), "{options}");
    }
}

fn at_size() {
    let ops: Vec<Op> = (0..50_000_u32)
        .flat_map(|number| {
            let [_, _, high, low] = number.to_be_bytes();
            let (key, spec) = server([10, 0, high, low]);
            let destination = |last| {
                let real = DestinationKey { address: [10, 1, last, low].into(), port: 8080 };
                Op::AddDestination(key, real, DestinationSpec::masquerading(1))
            };
            [Op::AddVirtualServer(key, spec), destination(1), destination(2)]
        })
        .collect();
    let (servers, destinations): (Vec<_>, Vec<_>) =
        ops.into_iter().partition(|op| matches!(op, Op::AddVirtualServer(..)));
    add(&[servers, destinations].concat());
    let begun = Instant::now();
    let listed = list("");
    println!("    listed in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(listed == ipvsadm("-Ln"), "the same bytes");
}
