//! What goes through virtual servers and destinations, by the kernel's counters: as Prometheus' text, under the names
//! of Services and pods, and no more of it than is allowed.
//!
//! It is written here and not by way of a registry, which would hold every label of every series as a text of its own.

use crate::kernel::ipvs::{DestinationEntry, Identity, Stats, VirtualServerEntry};
use crate::model::{DestinationKey, VirtualServerKey};
use std::collections::HashMap;

/// The port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The port's name; empty for the only one.
    pub name: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: &'static str,
}

/// What the kernel does not know.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Whose virtual servers are. Those of nobody are not told of.
    pub ports: HashMap<VirtualServerKey, ServicePort>,
    /// Names of pods, without their namespaces.
    pub pods: HashMap<DestinationKey, String>,
}

/// A virtual server with its destinations, or without them where they are not to be told of.
pub type Entry = (VirtualServerEntry, Vec<DestinationEntry>);

/// What is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// In Prometheus' text format 0.0.4.
    pub text: String,
    /// How many series would have been more than the limit.
    pub left_out: usize,
}

/// A number that each thing has.
struct Column<T> {
    /// What the metric's name ends in.
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&T) -> u64,
}

const COUNTED: [Column<Stats>; 10] = [
    counter("connections_total", "Connections that were given to a destination", |stats| stats.connections),
    counter("incoming_packets_total", "Packets from clients", |stats| stats.packets_in),
    counter("outgoing_packets_total", "Packets to clients", |stats| stats.packets_out),
    counter("incoming_bytes_total", "Bytes from clients", |stats| stats.bytes_in),
    counter("outgoing_bytes_total", "Bytes to clients", |stats| stats.bytes_out),
    gauge("connections_per_second", "Connections, as the kernel averages them", |stats| stats.connection_rate),
    gauge("incoming_packets_per_second", "Packets from clients, likewise", |stats| stats.packet_rate_in),
    gauge("outgoing_packets_per_second", "Packets to clients, likewise", |stats| stats.packet_rate_out),
    gauge("incoming_bytes_per_second", "Bytes from clients, likewise", |stats| stats.byte_rate_in),
    gauge("outgoing_bytes_per_second", "Bytes to clients, likewise", |stats| stats.byte_rate_out),
];

const OF_DESTINATION: [Column<DestinationEntry>; 3] = [
    gauge("active_connections", "TCP: established connections", |destination| destination.active.into()),
    gauge("inactive_connections", "Connections in any other state", |destination| destination.inactive.into()),
    gauge("weight", "Share of new connections; 0 takes none", |destination| destination.weight.into()),
];

const fn counter<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Column<T> {
    Column { name, kind: "counter", help, value }
}

const fn gauge<T>(name: &'static str, help: &'static str, value: fn(&T) -> u64) -> Column<T> {
    Column { name, kind: "gauge", help, value }
}

const SERIES_OF_VIRTUAL_SERVER: usize = COUNTED.len();
const SERIES_OF_DESTINATION: usize = COUNTED.len() + OF_DESTINATION.len();

const OF_SERVICES: &str = "ipvsd_service_";
const OF_DESTINATIONS: &str = "ipvsd_destination_";

/// Tells of those that have a name, in at most so many series: first of virtual servers, by Service and port, then of
/// their destinations in the same order. So the same ones are left out each time.
pub fn traffic(table: &[Entry], names: &Names, limit: usize) -> Traffic {
    let mut servers: Vec<_> = table.iter().filter_map(|entry| named(entry, names)).collect();
    servers.sort_by_key(|(port, key, _)| (*port, *key));
    let destinations = servers.iter().map(|(.., (_, destinations))| destinations.len()).sum::<usize>();
    let all = servers.len() * SERIES_OF_VIRTUAL_SERVER + destinations * SERIES_OF_DESTINATION;

    let labelled = servers.iter().map(|(port, _, entry)| (labels(port, entry.0.identity), *entry));
    let labelled: Vec<_> = labelled.take(limit / SERIES_OF_VIRTUAL_SERVER).collect();
    let limit = limit - labelled.len() * SERIES_OF_VIRTUAL_SERVER;
    let of_destinations = labelled.iter().flat_map(|(labels, (_, destinations))| {
        let mut destinations: Vec<_> = destinations.iter().collect();
        destinations.sort_by_key(|destination| destination.key);
        destinations.into_iter().map(move |destination| (destination_labels(labels, destination, names), destination))
    });
    let of_destinations: Vec<_> = of_destinations.take(limit / SERIES_OF_DESTINATION).collect();

    let mut text = String::new();
    for column in &COUNTED {
        let rows = labelled.iter().map(|(labels, (server, _))| (labels, &server.stats));
        write_metric(&mut text, OF_SERVICES, column, rows);
    }
    for column in &COUNTED {
        let rows = of_destinations.iter().map(|(labels, destination)| (labels, &destination.stats));
        write_metric(&mut text, OF_DESTINATIONS, column, rows);
    }
    for column in &OF_DESTINATION {
        let rows = of_destinations.iter().map(|(labels, destination)| (labels, *destination));
        write_metric(&mut text, OF_DESTINATIONS, column, rows);
    }
    let given = labelled.len() * SERIES_OF_VIRTUAL_SERVER + of_destinations.len() * SERIES_OF_DESTINATION;
    Traffic { text, left_out: all - given }
}

fn named<'a>(entry: &'a Entry, names: &'a Names) -> Option<(&'a ServicePort, VirtualServerKey, &'a Entry)> {
    let key = entry.0.identity.key()?;
    Some((names.ports.get(&key)?, key, entry))
}

/// A metric without series is not there.
fn write_metric<'r, T: 'r>(
    text: &mut String,
    of: &str,
    column: &Column<T>,
    rows: impl Iterator<Item = (&'r String, &'r T)>,
) {
    let Column { name, kind, help, value } = column;
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    *text += &format!("# HELP {of}{name} {help}\n# TYPE {of}{name} {kind}\n");
    for (labels, thing) in rows {
        *text += &format!("{of}{name}{{{labels}}} {}\n", value(thing));
    }
}

/// An address and port, or a mark and the family of the packets with it.
fn labels(port: &ServicePort, identity: Identity) -> String {
    let ServicePort { namespace, service, name, protocol } = port;
    let [namespace, service, name] = [namespace, service, name].map(|text| escaped(text));
    let identity = match identity {
        Identity::Address { address, port, .. } => format!("address=\"{address}\",port=\"{port}\""),
        Identity::Mark { mark, family } => format!("mark=\"{mark}\",ip_family=\"{}\"", family.name()),
    };
    format!("namespace=\"{namespace}\",service=\"{service}\",port_name=\"{name}\",protocol=\"{protocol}\",{identity}")
}

fn destination_labels(of_server: &str, destination: &DestinationEntry, names: &Names) -> String {
    let DestinationKey { address, port } = destination.key;
    let pod = names.pods.get(&destination.key).map(|pod| escaped(pod)).unwrap_or_default();
    format!("{of_server},endpoint_address=\"{address}\",endpoint_port=\"{port}\",pod=\"{pod}\"")
}

/// A text as the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ipvs::Tunnel;
    use crate::model::{Family, Forwarding, Protocol};

    fn server(identity: Identity, destinations: &[u8]) -> Entry {
        let stats = Stats {
            connections: u64::MAX,
            packets_in: 2,
            packets_out: 3,
            bytes_in: 4,
            bytes_out: 5,
            connection_rate: 6,
            packet_rate_in: 7,
            packet_rate_out: 8,
            byte_rate_in: 9,
            byte_rate_out: 10,
        };
        let server = VirtualServerEntry {
            identity,
            scheduler: "rr".into(),
            persistence_engine: None,
            flags: VirtualServerEntry::flags_of_ours(false),
            timeout: 0,
            netmask: u32::MAX,
            stats,
        };
        let destination = |last: &u8| DestinationEntry {
            key: DestinationKey { address: [10, 244, 0, *last].into(), port: 8080 },
            forwarding: Some(Forwarding::Masquerade),
            weight: 11,
            upper_threshold: 0,
            lower_threshold: 0,
            active: 12,
            inactive: 13,
            persistent: 0,
            stats,
            tunnel: Tunnel::default(),
        };
        (server, destinations.iter().map(destination).collect())
    }

    fn at(last: u8) -> VirtualServerKey {
        VirtualServerKey::new([10, 96, 0, last].into(), 80, Protocol::Tcp)
    }

    fn port(service: &str) -> ServicePort {
        let [namespace, name] = ["shop", "http"].map(str::to_owned);
        ServicePort { namespace, service: service.to_owned(), name, protocol: "TCP" }
    }

    /// The series of a text, without values.
    fn series(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0).collect()
    }

    #[test]
    fn each_counter_stands_under_its_own_name_with_all_64_bits() {
        let pod = DestinationKey { address: [10, 244, 0, 2].into(), port: 8080 };
        let names = Names { ports: [(at(1), port("web"))].into(), pods: [(pod, "a\\b\"c\nd".to_owned())].into() };
        let told = traffic(&[server(at(1).into(), &[2])], &names, usize::MAX);
        let of_service =
            r#"{namespace="shop",service="web",port_name="http",protocol="TCP",address="10.96.0.1",port="80""#;
        let of_destination =
            format!(r#"{of_service},endpoint_address="10.244.0.2",endpoint_port="8080",pod="a\\b\"c\nd""#);
        let counted = [
            ("connections_total", u64::MAX),
            ("incoming_packets_total", 2),
            ("outgoing_packets_total", 3),
            ("incoming_bytes_total", 4),
            ("outgoing_bytes_total", 5),
            ("connections_per_second", 6),
            ("incoming_packets_per_second", 7),
            ("outgoing_packets_per_second", 8),
            ("incoming_bytes_per_second", 9),
            ("outgoing_bytes_per_second", 10),
        ];
        let more = [("active_connections", 12), ("inactive_connections", 13), ("weight", 11)];
        let of_services = counted.map(|(name, value)| format!("ipvsd_service_{name}{of_service}}} {value}"));
        let of_destinations = counted
            .into_iter()
            .chain(more)
            .map(|(name, value)| format!("ipvsd_destination_{name}{of_destination}}} {value}"));
        let wanted: Vec<_> = of_services.into_iter().chain(of_destinations).collect();
        let lines: Vec<_> = told.text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, wanted);
        assert_eq!(told.left_out, 0);
        assert_eq!(told.text.matches("# TYPE ").count(), 23);
        assert_eq!(told.text.matches("_total counter\n").count(), 10);
    }

    #[test]
    fn of_whom_nobody_knows_nothing_is_told() {
        let foreign = Identity::Address { address: [10, 96, 0, 9].into(), port: 0, protocol: 50 };
        let table = [server(at(1).into(), &[2]), server(at(2).into(), &[]), server(foreign, &[])];
        assert_eq!(traffic(&table, &Names::default(), usize::MAX), Traffic::default());
        let names = Names { ports: [(at(2), port("web"))].into(), ..Names::default() };
        let told = traffic(&table, &names, usize::MAX);
        assert_eq!((series(&told.text).len(), told.left_out), (SERIES_OF_VIRTUAL_SERVER, 0));
        assert!(!told.text.contains("ipvsd_destination_"));
    }

    #[test]
    fn marks_of_both_families_are_told_apart() {
        let mark = |family| VirtualServerKey::Mark { mark: 0x0010_1040, family };
        let keys = [mark(Family::Ipv4), mark(Family::Ipv6)];
        let names = Names { ports: keys.map(|key| (key, port("web"))).into(), ..Names::default() };
        let told = traffic(&keys.map(|key| server(key.into(), &[])), &names, usize::MAX);
        let of =
            |family| format!(r#"service="web",port_name="http",protocol="TCP",mark="1052736",ip_family="{family}"}}"#);
        assert_eq!(["IPv4", "IPv6"].map(|family| told.text.matches(&of(family)).count()), [10, 10]);
    }

    #[test]
    fn there_are_at_most_so_many_series_and_always_the_same() {
        let mut table = [3, 1, 2].map(|last| server(at(last).into(), &[2 * last, 2 * last + 1]));
        let ports = [(at(1), port("c")), (at(2), port("b")), (at(3), port("a"))];
        let names = Names { ports: ports.into(), ..Names::default() };
        let all = 3 * SERIES_OF_VIRTUAL_SERVER + 6 * SERIES_OF_DESTINATION;
        let whole = traffic(&table, &names, all);
        assert_eq!((series(&whole.text).len(), whole.left_out), (all, 0));
        for limit in 0..all {
            let told = traffic(&table, &names, limit);
            let given = series(&told.text);
            assert!(given.len() <= limit, "{limit}");
            assert_eq!(told.left_out, all - given.len(), "{limit}");
            assert!(given.iter().all(|one| whole.text.contains(one)), "{limit}");
            table.reverse();
            table.iter_mut().for_each(|(_, destinations)| destinations.reverse());
            assert_eq!(traffic(&table, &names, limit), told, "the kernel's order is nobody's");
        }
        // Virtual servers come first, by the names of their Services.
        let told = traffic(&table, &names, 2 * SERIES_OF_VIRTUAL_SERVER + 9).text;
        assert_eq!(["a", "b", "c"].map(|name| told.matches(&format!("service=\"{name}\"")).count()), [10, 10, 0]);
        let told = traffic(&table, &names, 3 * SERIES_OF_VIRTUAL_SERVER + SERIES_OF_DESTINATION).text;
        assert_eq!(told.matches("endpoint_address=\"10.244.0.6\"").count(), SERIES_OF_DESTINATION);
    }
}
