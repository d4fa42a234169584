//! IPVS's connection table, which the kernel tells nowhere but in `/proc/net/ip_vs_conn`, as text.
//!
//! A line of that text is
//! `TCP 0A000001 8A68 0A000002 0050 0A010001 1F90 ESTABLISHED     897`, and behind it the name and the data of a
//! persistence engine, if the connection has one (`ip_vs_conn_seq_show` in the kernel). IPv4 addresses and all ports
//! are in hexadecimal, IPv6 addresses are written out.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Of the network namespace of the calling thread; `/proc/net` is that of the process's first thread.
const TABLE: &str = "/proc/thread-self/net/ip_vs_conn";

/// A connection, or what the kernel remembers of a client whose connections are to stay together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// `TCP`, `UDP`, `SCTP`; `IP` for a client of a virtual server that matches a mark.
    pub protocol: String,
    /// Who connected. Port 0 is a client that is remembered.
    pub client: SocketAddr,
    /// What it connected to. For a remembered client of a virtual server that matches a mark, the address is the mark.
    pub virtual_address: SocketAddr,
    /// Where its packets go.
    pub destination: SocketAddr,
    /// The protocol's state by the kernel's name for it.
    pub state: String,
    /// Seconds until it is forgotten, if nothing comes.
    pub expires: u64,
    /// The persistence engine that knows the client by something else than its address, and what it knows it by.
    pub persistence_engine: Option<(String, String)>,
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionsError {
    /// It is not there, or the system call failed.
    #[error("cannot read {TABLE}")]
    Io(#[from] io::Error),
    /// The kernel writes other lines than those that are known.
    #[error("{TABLE} has a line that cannot be understood: {0:?}")]
    Malformed(String),
}

/// Opens the table of the calling thread's network namespace. Its connections come in no order, and are read as they
/// are asked for, since there may be millions: one that comes or goes meanwhile may be among them or not.
///
/// # Errors
/// The table is not there.
pub fn connections() -> Result<impl Iterator<Item = Result<Connection, ConnectionsError>>, ConnectionsError> {
    let lines = BufReader::new(File::open(TABLE)?).split(b'\n');
    // The first has the names of the columns.
    Ok(lines.skip(1).map(|line| {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        parse(&line).ok_or_else(|| ConnectionsError::Malformed(line.into_owned()))
    }))
}

/// The connection in a line; none if it is of another form.
pub fn parse(line: &str) -> Option<Connection> {
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next();
    let connection = Connection {
        protocol: word()?.to_owned(),
        client: socket_address(word()?, word()?)?,
        virtual_address: socket_address(word()?, word()?)?,
        destination: socket_address(word()?, word()?)?,
        state: word()?.to_owned(),
        expires: word()?.parse().ok()?,
        persistence_engine: None,
    };
    let persistence_engine = words.next().map(|name| (name.to_owned(), words.next().unwrap_or_default().to_owned()));
    Some(Connection { persistence_engine, ..connection })
}

fn socket_address(address: &str, port: &str) -> Option<SocketAddr> {
    let address = match hexadecimal(address, 8) {
        Some(bits) => Ipv4Addr::from_bits(bits).into(),
        None => IpAddr::V6(address.parse().ok()?),
    };
    Some(SocketAddr::new(address, hexadecimal(port, 4)?.try_into().ok()?))
}

/// A number of exactly so many digits.
fn hexadecimal(text: &str, digits: usize) -> Option<u32> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    fn parsed(line: &str) -> String {
        let Some(connection) = parse(line) else { return "-".into() };
        let Connection { protocol, client, virtual_address, destination, state, expires, .. } = connection;
        let engine = connection.persistence_engine.map(|(name, data)| format!(" {name} {data}")).unwrap_or_default();
        format!("{protocol} {client} {virtual_address} {destination} {state} {expires}{engine}")
    }

    #[test]
    fn lines_of_linux_6_1_are_read() {
        for (line, expected) in [
            (
                "TCP 0A000001 8A7C 0A000001 0050 0A010001 1F90 ESTABLISHED     897",
                "TCP 10.0.0.1:35452 10.0.0.1:80 10.1.0.1:8080 ESTABLISHED 897",
            ),
            (
                "TCP fd00:0000:0000:0000:0000:0000:0000:0001 965A fd00:0000:0000:0000:0000:0000:0000:0001 0050 \
                 fd00:0000:0000:0000:0000:0000:0000:0002 1F90 ESTABLISHED     897",
                "TCP [fd00::1]:38490 [fd00::1]:80 [fd00::2]:8080 ESTABLISHED 897",
            ),
            (
                "TCP 0A000001 ED06 0A000001 0051 fd00:0000:0000:0000:0000:0000:0000:0002 0051 CLOSE             7",
                "TCP 10.0.0.1:60678 10.0.0.1:81 [fd00::2]:81 CLOSE 7",
            ),
            (
                "IP  0A000001 0000 00000009 0000 0A010001 0000 NONE            357",
                "IP 10.0.0.1:0 0.0.0.9:0 10.1.0.1:0 NONE 357",
            ),
            (
                "UDP 0A000001 0000 0A000001 13C4 0A010001 13C4 NONE             57 sip 38482762@atlanta.example.com",
                "UDP 10.0.0.1:0 10.0.0.1:5060 10.1.0.1:5060 NONE 57 sip 38482762@atlanta.example.com",
            ),
        ] {
            assert_eq!(parsed(line), expected);
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData",
            "TCP 0A000001 8A7C 0A000001 0050 0A010001 1F90 ESTABLISHED",
            "TCP 0A000001 8A7C 0A000001 0050 0A010001 1F90 ESTABLISHED -1",
            "TCP 0A000001 8A7C 0A000001 0050 0A01000 1F90 ESTABLISHED 1",
            "TCP 0A000001 +A7C 0A000001 0050 0A010001 1F90 ESTABLISHED 1",
            "TCP 10.0.0.1 8A7C 10.0.0.1 0050 10.1.0.1 1F90 ESTABLISHED 1",
        ] {
            assert_eq!(parsed(line), "-", "{line}");
        }
    }

    fn any_address() -> impl Strategy<Value = (SocketAddr, String)> {
        (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| {
            let written = match address {
                IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
                IpAddr::V6(address) => written_out(address),
            };
            (SocketAddr::new(address, port), format!("{written} {port:04X}"))
        })
    }

    fn written_out(address: Ipv6Addr) -> String {
        address.segments().map(|segment| format!("{segment:04x}")).join(":")
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_the_kernel_writes_is_read(
            (client, client_text) in any_address(),
            (virtual_address, virtual_text) in any_address(),
            (destination, destination_text) in any_address(),
            (protocol, state, expires) in ("[A-Z]{2,4}", "[A-Z_]{3,11}", any::<u32>()),
            engine in proptest::option::of(("[a-z]{3}", "[!-~]{1,40}")),
        ) {
            let behind = engine.as_ref().map(|(name, data)| format!(" {name} {data}")).unwrap_or_default();
            let line = format!(
                "{protocol:<3} {client_text} {virtual_text} {destination_text} {state:<11} {expires:7}{behind}"
            );
            let (expires, persistence_engine) = (expires.into(), engine);
            let expected =
                Connection { protocol, client, virtual_address, destination, state, expires, persistence_engine };
            prop_assert_eq!(parse(&line), Some(expected));
        }

        #[test]
        fn nothing_makes_it_panic(words in vec("[0-9A-Fa-f:]{0,9}|\\PC{0,12}|[0-9]{0,30}", 0..14)) {
            let _ = parse(&words.join(" "));
            let _ = parse(&words.concat());
        }
    }
}
