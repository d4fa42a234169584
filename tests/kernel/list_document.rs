//! Holds the examples of docs/inspection.md to what is really printed. `IPVSD_UPDATE=1` writes what came out into the
//! document, for a person to read the diff.

use crate::lab::{is_set, run, trial};
use crate::listing::{ipvsadm, list, restore};
use crate::program::eventually;
use libtest_mimic::Trial;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![trial("list_document::the_documents_examples_are_what_is_printed", examples)]
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/inspection.md");

const RULES: &str = "\
-A -t 203.0.113.10:80 -s wrr
-a -t 203.0.113.10:80 -r 198.51.100.11:8080 -m -w 3 -x 1000 -y 800
-a -t 203.0.113.10:80 -r 198.51.100.12:8080 -m
-A -t 203.0.113.10:443 -s mh -p 10800
-a -t 203.0.113.10:443 -r 198.51.100.11:8443 -m
-a -t 203.0.113.10:443 -r 198.51.100.12:8443 -m
-A -u 203.0.113.10:53 -s rr -o
-a -u 203.0.113.10:53 -r 198.51.100.21:53 -i --tun-type gue --tun-port 6080 --tun-csum
-A -f 7 -s lc -p 60 -M 255.255.255.0
-a -f 7 -r 198.51.100.11 -m
-A -t [2001:db8::10]:80 -s sh -b sh-fallback,sh-port
-a -t [2001:db8::10]:80 -r [2001:db8:1::11]:8080 -m
";

/// The client is 192.0.2.7 or 2001:db8:2::7, on this machine as all others are.
const NETWORK: &str = "\
link add eth0 type dummy
link set eth0 up multicast on
addr add 192.0.2.7/24 dev eth0
addr add 2001:db8:2::7/64 dev eth0 nodad
route add local 203.0.113.10 dev lo src 192.0.2.7
route add local 2001:db8::10 dev lo src 2001:db8:2::7 table local
addr add 198.51.100.11 dev lo
addr add 198.51.100.12 dev lo
addr add 2001:db8:1::11 dev lo nodad
";

/// Where something listens: the backends are on `lo`.
const SERVERS: [&str; 6] = [
    "198.51.100.11:8080",
    "198.51.100.12:8080",
    "198.51.100.11:8443",
    "198.51.100.12:8443",
    "198.51.100.11:81",
    "[2001:db8:1::11]:8080",
];

/// Who is called; the last of them by its mark.
const CALLED: [&str; 7] = [
    "203.0.113.10:80",
    "203.0.113.10:80",
    "203.0.113.10:80",
    "203.0.113.10:80",
    "203.0.113.10:443",
    "[2001:db8::10]:80",
    "203.0.113.10:81",
];

fn examples() {
    let servers = population();
    let conversations = CALLED.map(|address| TcpStream::connect(address).expect("it listens"));
    for mut client in &conversations {
        client.write_all(&[b'?'; 300]).expect("it is open");
    }
    let _accepted: Vec<TcpStream> = servers.iter().flat_map(answer).collect();
    // Connections, and packets of the last seconds.
    let packets = |table: String| table.lines().nth(2).and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    eventually("counters are up to date", || {
        packets(list("-t 203.0.113.10:80 --rate")).is_some_and(|rate: u32| rate > 0)
    });
    let document = fs::read_to_string(FILE).expect("it is there");
    let printed = with_examples(&document);
    if is_set("IPVSD_UPDATE") {
        fs::write(FILE, printed).expect("it is ours");
        return;
    }
    assert_eq!(without_numbers(&document), without_numbers(&printed));
}

/// The table of the document, with servers behind it.
fn population() -> Vec<TcpListener> {
    for line in NETWORK.lines() {
        run("ip", &line.split(' ').collect::<Vec<_>>());
    }
    let marked = "-t mangle -A OUTPUT -p tcp -d 203.0.113.10 --dport 81 -j MARK --set-mark 7";
    run("iptables", &marked.split(' ').collect::<Vec<_>>());
    restore(RULES);
    ipvsadm("--start-daemon master --mcast-interface eth0 --syncid 1");
    SERVERS.map(|address| TcpListener::bind(address).expect("it is ours")).into()
}

/// Takes the connections that wait, and answers each.
fn answer(server: &TcpListener) -> Vec<TcpStream> {
    server.set_nonblocking(true).expect("a socket");
    let accepted: Vec<_> = std::iter::from_fn(|| server.accept().ok()).map(|(stream, _)| stream).collect();
    for mut stream in &accepted {
        stream.set_nonblocking(false).expect("a socket");
        stream.read_exact(&mut [0; 300]).expect("a request");
        stream.write_all(&[b'!'; 4000]).expect("it is open");
    }
    accepted
}

/// The document with what is printed now under each of its commands.
fn with_examples(document: &str) -> String {
    let mut blocks = document.split("```console\n$ ipvsd list");
    let mut text = blocks.next().unwrap_or_default().to_owned();
    for block in blocks {
        let (options, rest) = block.split_once('\n').expect("a command");
        let (_, rest) = rest.split_once("```").expect("an end");
        text += &format!("```console\n$ ipvsd list{options}\n{}```{rest}", list(options));
    }
    text
}

/// The lines without numbers, in an order of our own: ports of clients, sizes of headers, seconds and the columns
/// behind them differ from one run to the next, and connections come in no order.
fn without_numbers(text: &str) -> Vec<String> {
    let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let word = |word: &str| word.split(':').filter(|part| !is_number(part)).collect::<Vec<_>>().join(":");
    let mut lines: Vec<_> =
        text.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}
