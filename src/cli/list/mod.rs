//! `ipvsd list`: everything in the kernel's IPVS table, ours or not, read from the kernel itself.

mod json;
mod text;

use crate::kernel::ipvs::{Identity, VirtualServerEntry};
use crate::kernel::linux::{Linux, Table};
use crate::model::Family;
use clap::Args;
use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

/// Flags of `ipvsd list`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print JSON: all fields, counters and rates, and whether ipvsd made the virtual server
    #[arg(long)]
    json: bool,
    /// Numeric addresses and ports; they always are, this is for the habit of `-Ln`
    #[arg(short = 'n', long)]
    numeric: bool,
}

/// Prints the table.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut table = Linux::open()?.table()?;
    sort(&mut table);
    let mut out = io::BufWriter::new(io::stdout().lock());
    if arguments.json {
        json::print(&mut out, &table)?
    } else {
        text::print(&mut out, &table)?
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// ipvsadm's order: by mark, family, protocol, address and port; destinations by address and port.
fn sort(table: &mut Table) {
    table.virtual_servers.sort_by_key(|(server, _)| rank(server));
    for (_, destinations) in &mut table.virtual_servers {
        destinations.sort_by_key(|destination| destination.key);
    }
}

fn rank(server: &VirtualServerEntry) -> (u32, Family, u16, Option<IpAddr>, u16) {
    match server.identity {
        Identity::Address { address, port, protocol } => (0, Family::of(address), protocol, Some(address), port),
        Identity::Mark { mark, family } => (mark, family, 0, None, 0),
    }
}
