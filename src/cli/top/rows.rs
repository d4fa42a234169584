//! What there is to show: a row for each virtual server, or for each destination of one, filtered and sorted. Pure.

use super::NameOf;
use crate::kernel::ipvs::{DestinationEntry, Identity, Stats, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{DestinationKey, Family, Protocol};
use clap::ValueEnum;
use std::net::SocketAddr;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The most connections
    Connections,
    /// The most new connections per second
    New,
    /// The most packets per second
    Packets,
    /// The most bytes per second
    Bytes,
    /// By name, then by address
    Name,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A virtual server.
    VirtualServer(Identity),
    /// A destination of the virtual server that is looked into.
    Destination(DestinationKey),
}

/// What is worth a second look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    None,
    /// A destination takes no new connections, or so many of a virtual server's.
    Draining(usize),
    /// No destination of a virtual server takes new connections: they are refused.
    Refusing,
    /// Something is wrong with the Service, or could not be done: `ipvsd explain` says what.
    Error,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub subject: Subject,
    /// The Service's name and the like; empty where nobody knows it.
    pub name: String,
    /// Address and port, with the protocol of a virtual server.
    pub address: String,
    /// The scheduler and how many destinations, or the weight.
    pub detail: String,
    /// Connections in the protocol's established state.
    pub active: u64,
    /// Connections in any other state.
    pub inactive: u64,
    /// New connections per second.
    pub new: u64,
    /// Packets per second, both ways.
    pub packets: u64,
    /// Bytes per second, both ways.
    pub bytes: u64,
    /// What is worth a second look.
    pub mark: Mark,
}

/// Which rows are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What comes first.
    pub order: Order,
    /// The text that rows must have.
    pub filter: String,
    /// The virtual server whose destinations they are; none for virtual servers.
    pub inside: Option<Identity>,
}

/// Rows in their order, and what they add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Those that the filter lets through.
    pub rows: Vec<Row>,
    /// How many there are without it.
    pub total: usize,
    /// How many have a mark, without the filter.
    pub marked: usize,
    /// The virtual server that is looked into.
    pub inside: Option<String>,
}

impl Rows {
    /// The rows of a table that are wanted.
    pub fn of(table: &Table, wanted: &Wanted, name_of: NameOf<'_>) -> Self {
        let inside =
            wanted.inside.and_then(|of| table.virtual_servers.iter().find(|(server, _)| server.identity == of));
        let all: Vec<Row> = match inside {
            Some((_, destinations)) => destinations.iter().map(Row::of_destination).collect(),
            None => table.virtual_servers.iter().map(|server| Row::of_virtual_server(server, name_of)).collect(),
        };
        let (total, marked) = (all.len(), all.iter().filter(|row| row.mark != Mark::None).count());
        let mut rows: Vec<Row> = all.into_iter().filter(|row| row.has(&wanted.filter)).collect();
        rows.sort_by(|one, other| {
            let most_first = |of: fn(&Row) -> u64| of(other).cmp(&of(one));
            let by_measure = match wanted.order {
                Order::Connections => most_first(|row| row.active + row.inactive),
                Order::New => most_first(|row| row.new),
                Order::Packets => most_first(|row| row.packets),
                Order::Bytes => most_first(|row| row.bytes),
                Order::Name => one.name.cmp(&other.name),
            };
            by_measure.then_with(|| one.address.cmp(&other.address))
        });
        let inside = inside.map(|(server, _)| Row::of_virtual_server(&(server.clone(), vec![]), name_of));
        Self { rows, total, marked, inside: inside.map(|row| format!("{} {}", row.address, row.name)) }
    }

    /// Where a subject is.
    pub fn position(&self, subject: Subject) -> Option<usize> {
        self.rows.iter().position(|row| row.subject == subject)
    }
}

impl Row {
    fn of_virtual_server(
        (server, destinations): &(VirtualServerEntry, Vec<DestinationEntry>),
        names: NameOf<'_>,
    ) -> Self {
        let draining = destinations.iter().filter(|destination| destination.weight == 0).count();
        let known = names(&server.identity).unwrap_or_default();
        let mark = match draining {
            _ if known.in_trouble => Mark::Error,
            all if all == destinations.len() => Mark::Refusing,
            0 => Mark::None,
            some => Mark::Draining(some),
        };
        let sum =
            |of: fn(&DestinationEntry) -> u32| destinations.iter().map(|destination| u64::from(of(destination))).sum();
        Self {
            name: known.service,
            detail: format!("{} {}", server.scheduler, destinations.len()),
            active: sum(|destination| destination.active),
            inactive: sum(|destination| destination.inactive),
            mark,
            ..Self::measured(Subject::VirtualServer(server.identity), address(&server.identity), &server.stats)
        }
    }

    fn of_destination(destination: &DestinationEntry) -> Self {
        let DestinationKey { address, port } = destination.key;
        let address = SocketAddr::new(address, port).to_string();
        Self {
            detail: destination.weight.to_string(),
            active: destination.active.into(),
            inactive: destination.inactive.into(),
            mark: if destination.weight == 0 { Mark::Draining(1) } else { Mark::None },
            ..Self::measured(Subject::Destination(destination.key), address, &destination.stats)
        }
    }

    fn measured(subject: Subject, address: String, stats: &Stats) -> Self {
        Self {
            subject,
            address,
            name: String::new(),
            detail: String::new(),
            active: 0,
            inactive: 0,
            new: stats.connection_rate,
            packets: stats.packet_rate_in.saturating_add(stats.packet_rate_out),
            bytes: stats.byte_rate_in.saturating_add(stats.byte_rate_out),
            mark: Mark::None,
        }
    }

    fn has(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        [&self.name, &self.address, &self.detail].iter().any(|part| part.to_lowercase().contains(&text))
    }
}

fn address(of: &Identity) -> String {
    match *of {
        Identity::Address { address, port, protocol } => {
            let name = Protocol::from_number(protocol)
                .map_or_else(|| protocol.to_string(), |known| known.name().to_lowercase());
            format!("{name} {}", SocketAddr::new(address, port))
        }
        Identity::Mark { mark, family: Family::Ipv4 } => format!("mark {mark:#x}"),
        Identity::Mark { mark, family: Family::Ipv6 } => format!("mark {mark:#x} IPv6"),
    }
}
