//! `ipvsd log-level`: what the daemon that runs here logs, and how much from now on.

use super::explain::{ask_daemon, give_daemon};
use crate::server::{LOG, Told};
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;

/// Arguments of `ipvsd log-level`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to log from now on, in the form of --log: a level (off, error, warn, info, debug, trace), `module=level`
    /// pairs, or both with commas between them, as in `info,ipvsd::source=debug` [default: only show what is logged]
    filter: Option<String>,
}

/// Changes the filter if one is given, and prints the one in force.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Told { filter } = match &arguments.filter {
        None => ask_daemon(LOG),
        Some(filter) => give_daemon(LOG, filter),
    }?;
    writeln!(io::stdout(), "{filter}")?;
    Ok(ExitCode::SUCCESS)
}
