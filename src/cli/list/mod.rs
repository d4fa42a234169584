//! `ipvsd list`: what the kernel's IPVS holds, ours or not, read from the kernel itself; or the virtual servers that
//! netfilter's rules hold in its place.
//!
//! | file | job |
//! |---|---|
//! | `arguments` | ipvsadm's options, and what they ask for |
//! | `text` | the table as `ipvsadm -Ln` prints it, in each of its layouts |
//! | `rules` | the table as `ipvsadm -Sn` does, to be restored |
//! | `connections` | the connection table as `ipvsadm -Lnc` does |
//! | `words` | ipvsadm's words for flags, masks, forwarding and tunnels |
//! | `json` | all of it as JSON, for programs |
//! | `names` | what the kernel does not know of the table |

mod arguments;
mod connections;
mod json;
mod names;
mod rules;
mod text;
mod words;

use super::{NO, complain};
use crate::kernel::connections::connections as connection_table;
use crate::kernel::ipvs::sync::{SyncDaemon, SyncRole};
use crate::kernel::ipvs::{Identity, Timeouts, VirtualServerEntry};
use crate::kernel::linux::{Linux, Table};
use crate::model::Family;
use arguments::Subject;
use names::Names;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

pub use arguments::Arguments;

/// Prints what is asked for; exits with 1 if a part of it is not there or cannot be said.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut linux = Linux::open_as_found()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let missing = print(&mut out, &mut linux, arguments)?;
    out.flush()?;
    missing.iter().for_each(complain);
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

/// Prints what is asked for; returns a sentence for each thing that is not there or cannot be said.
fn print(out: &mut impl Write, linux: &mut Linux, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let is_json = arguments.json;
    match arguments.subject() {
        Subject::All => {
            let table = in_order(linux.table()?, arguments);
            if !is_json {
                text::print_head(out, table.info)?;
            }
            return Ok(print_table(out, &table, arguments)?);
        }
        Subject::VirtualServer(key) => {
            let table = in_order(linux.table_of(key)?, arguments);
            if table.virtual_servers.is_empty() {
                return Ok(vec![format!("there is no virtual server {key}")]);
            }
            return Ok(print_table(out, &table, arguments)?);
        }
        Subject::Rules => return Ok(rules::print(out, &in_order(linux.table()?, arguments))?),
        Subject::Connections if is_json => json::print_connections(out, connection_table()?)?,
        Subject::Connections => connections::print(out, connection_table()?, arguments.persistent_conn)?,
        Subject::Timeouts if is_json => json::print_timeouts(out, linux.timeouts()?)?,
        Subject::Timeouts => print_timeouts(out, linux.timeouts()?)?,
        Subject::SyncDaemons if is_json => json::print_sync_daemons(out, &linux.sync_daemons()?)?,
        Subject::SyncDaemons => print_sync_daemons(out, &linux.sync_daemons()?)?,
    }
    Ok(Vec::new())
}

/// Names are a part of what is asked for where they are asked for; JSON has those that can be had.
fn print_table(out: &mut impl Write, table: &Table, arguments: &Arguments) -> io::Result<Vec<String>> {
    if arguments.json {
        json::print(out, table, &Names::known().unwrap_or_default())?;
    } else if arguments.names {
        let known = Names::known().map_err(|error| format!("names are not known: {error}"));
        text::print(out, table, arguments.style(), known.as_ref().unwrap_or(&Names::default()))?;
        return Ok(known.err().into_iter().collect());
    } else {
        text::print(out, table, arguments.style(), &Names::default())?;
    }
    Ok(Vec::new())
}

/// As ipvsadm documents it: by mark, family, protocol, address and port; destinations by address and port.
fn in_order(mut table: Table, arguments: &Arguments) -> Table {
    if arguments.is_sorted() {
        table.virtual_servers.sort_by_key(|(server, _)| rank(server));
        for (_, destinations) in &mut table.virtual_servers {
            destinations.sort_by_key(|destination| destination.key);
        }
    }
    table
}

fn rank(server: &VirtualServerEntry) -> (u32, Family, u16, Option<IpAddr>, u16) {
    match server.identity {
        Identity::Address { address, port, protocol } => (0, Family::of(address), protocol, Some(address), port),
        Identity::Mark { mark, family } => (mark, family, 0, None, 0),
    }
}

fn print_timeouts(out: &mut impl Write, timeouts: Timeouts) -> io::Result<()> {
    let Timeouts { tcp, tcp_fin, udp } = timeouts;
    writeln!(out, "Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}")
}

fn print_sync_daemons(out: &mut impl Write, daemons: &[SyncDaemon]) -> io::Result<()> {
    for SyncDaemon { role, interface, sync_id, max_length, group, port, ttl } in daemons {
        let role = match role {
            SyncRole::Master => "master",
            SyncRole::Backup => "backup",
        };
        write!(out, "{role} sync daemon (mcast={interface}, syncid={sync_id}")?;
        if let Some(group) = group {
            write!(out, ", maxlen={max_length}, group={group}, port={port}, ttl={ttl}")?;
        }
        writeln!(out, ")")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_old_kernels_daemon_only_what_it_tells_is_printed() {
        let daemon = SyncDaemon {
            role: SyncRole::Master,
            interface: "eth0".into(),
            sync_id: 5,
            max_length: 0,
            group: None,
            port: 0,
            ttl: 0,
        };
        let newer = SyncDaemon {
            role: SyncRole::Backup,
            max_length: 1452,
            group: Some("ff02::1:9".parse().unwrap()),
            port: 8848,
            ttl: 1,
            ..daemon.clone()
        };
        let mut text = Vec::new();
        print_sync_daemons(&mut text, &[daemon, newer]).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "master sync daemon (mcast=eth0, syncid=5)\n\
             backup sync daemon (mcast=eth0, syncid=5, maxlen=1452, group=ff02::1:9, port=8848, ttl=1)\n"
        );
    }
}
