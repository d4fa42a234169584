//! The IPVS table as `ipvsadm -Sn` prints it, as a value.

use crate::lab::run;
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::{Kernel, Scope};
use ipvsd::model::{Protocol, VirtualServer, VirtualServerKey};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What IPVS has.
pub type Table = BTreeMap<Frontend, Server>;

/// Where clients go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// In ipvsadm's words: `-t`, `-u` or `--sctp-service`.
    pub protocol: &'static str,
    pub address: SocketAddr,
}

/// What becomes of them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Scheduler and persistence, such as `-s rr -p 10800`.
    pub options: String,
    /// Forwarding and weight of each, such as `-m -w 1`.
    pub destinations: BTreeMap<SocketAddr, String>,
}

/// A frontend and a destination that it leads to.
pub type Way = (Frontend, SocketAddr);

const PROTOCOLS: [&str; 3] = ["-t", "-u", "--sctp-service"];

/// What the kernel has, by ipvsadm's word. Virtual servers by mark, which only clients on the node meet, are not in it.
pub fn table() -> Table {
    parse(&run("ipvsadm", &["-Sn"]))
}

fn parse(text: &str) -> Table {
    let mut table = Table::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[1] == "-f" {
            continue;
        }
        let frontend = Frontend { protocol: protocol(words[1]), address: words[2].parse().unwrap() };
        if words[0] == "-A" {
            table.insert(frontend, Server { options: words[3..].join(" "), destinations: BTreeMap::new() });
        } else {
            assert_eq!((words[0], words[3]), ("-a", "-r"), "{line}");
            let server = table.get_mut(&frontend).expect("a destination comes after its virtual server");
            server.destinations.insert(words[4].parse().unwrap(), words[5..].join(" "));
        }
    }
    table
}

fn protocol(word: &str) -> &'static str {
    PROTOCOLS.into_iter().find(|known| *known == word).unwrap_or_else(|| panic!("{word} is no protocol"))
}

/// Every way through a table on which new connections go.
pub fn ways(table: &Table) -> BTreeSet<Way> {
    let of = |(frontend, server): (&Frontend, &Server)| {
        let weighty = server.destinations.iter().filter(|(_, options)| !options.ends_with("-w 0"));
        weighty.map(|(destination, _)| (frontend.clone(), *destination)).collect::<Vec<_>>()
    };
    table.iter().flat_map(of).collect()
}

/// The same of this kernel as it is, without a process in between: quick enough to look all the time.
pub fn ways_now(kernel: &mut Linux) -> BTreeSet<Way> {
    let model = kernel.observe(Scope::All).unwrap().model;
    let of = |(key, server): (VirtualServerKey, VirtualServer)| {
        let VirtualServerKey::Address { address, port, protocol } = key else { return Vec::new() };
        let protocol = match protocol {
            Protocol::Tcp => PROTOCOLS[0],
            Protocol::Udp => PROTOCOLS[1],
            Protocol::Sctp => PROTOCOLS[2],
        };
        let frontend = Frontend { protocol, address: SocketAddr::new(address, port) };
        let weighty = server.destinations.into_iter().filter(|(_, spec)| spec.weight > 0);
        weighty.map(|(to, _)| (frontend.clone(), SocketAddr::new(to.address, to.port))).collect()
    };
    model.virtual_servers.into_iter().flat_map(of).collect()
}

/// How one table differs from another, line by line.
pub fn difference(found: &Table, wanted: &Table) -> String {
    let (found, wanted) = (lines(found), lines(wanted));
    let missing = wanted.difference(&found).map(|line| format!("  missing: {line}\n"));
    missing.chain(found.difference(&wanted).map(|line| format!("  too many: {line}\n"))).collect()
}

fn lines(table: &Table) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (Frontend { protocol, address }, server) in table {
        lines.insert(format!("-A {protocol} {address} {}", server.options));
        let destinations = server.destinations.iter();
        lines.extend(destinations.map(|(to, options)| format!("-a {protocol} {address} -r {to} {options}")));
    }
    lines
}
