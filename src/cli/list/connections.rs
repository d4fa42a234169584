//! The connection table as `ipvsadm -L -n -c` prints it.

use crate::kernel::connections::{Connection, ConnectionsError};
use std::io::Write;
use std::net::SocketAddr;

/// Prints connections as they come; with what persistence engines know, if it is asked for.
pub fn print(
    out: &mut impl Write,
    connections: impl IntoIterator<Item = Result<Connection, ConnectionsError>>,
    with_engines: bool,
) -> anyhow::Result<()> {
    let behind = if with_engines { "        pe name          pe_data" } else { "" };
    writeln!(out, "IPVS connection entries")?;
    writeln!(out, "pro expire state       source             virtual            destination{behind}")?;
    for connection in connections {
        writeln!(out, "{}", line(&connection?, with_engines))?;
    }
    Ok(())
}

fn line(connection: &Connection, with_engines: bool) -> String {
    let Connection { protocol, state, expires, .. } = connection;
    let expires = format!("{:02}:{:02}", expires / 60, expires % 60);
    let [client, virtual_address, destination] =
        [connection.client, connection.virtual_address, connection.destination].map(|at: SocketAddr| at.to_string());
    let line = format!("{protocol:<3} {expires:<6} {state:<11} {client:<18} {virtual_address:<18}");
    match &connection.persistence_engine {
        Some((engine, data)) if with_engines => format!("{line} {destination:<16} {engine:<18} {data}"),
        _ => format!("{line} {destination}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::connections::parse;

    fn printed(text: &str, with_engines: bool) -> Vec<String> {
        let mut out = Vec::new();
        let connections = text.lines().map(|line| parse(line).ok_or(ConnectionsError::Malformed(line.into())));
        print(&mut out, connections, with_engines).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn days_and_long_addresses_move_what_is_behind_them() {
        let line = "TCP fd00:1234:5678:9abc:def0:1234:5678:9abc FFFF 0A000001 0050 0A010001 1F90 ESTABLISHED  432000";
        assert_eq!(
            printed(line, false)[2],
            "TCP 7200:00 ESTABLISHED [fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535 10.0.0.1:80        10.1.0.1:8080"
        );
    }

    #[test]
    fn what_a_persistence_engine_knows_is_shown_on_request() {
        let line = "UDP 0A000001 0000 0A000001 13C4 0A010001 13C4 NONE             57 sip 3848@example.com";
        assert_eq!(
            printed(line, false)[1..],
            [
                "pro expire state       source             virtual            destination",
                "UDP 00:57  NONE        10.0.0.1:0         10.0.0.1:5060      10.1.0.1:5060",
            ]
        );
        assert_eq!(
            printed(line, true)[1..],
            [
                "pro expire state       source             virtual            destination        \
                 pe name          pe_data",
                "UDP 00:57  NONE        10.0.0.1:0         10.0.0.1:5060      10.1.0.1:5060    \
                 sip                3848@example.com",
            ]
        );
        let mut wrong = Vec::new();
        assert!(print(&mut wrong, [Err(ConnectionsError::Malformed("?".into()))], false).is_err());
    }
}
