//! `ipvsd diff`: what `run` would change, on stdout, one operation a line; and what is wrong with the input, on
//! stderr.

use super::log::Log;
use super::options::{Name, ProxyOptions};
use super::{NO, complain};
use crate::daemon;
use crate::model::Op;
use clap::Args;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Flags of `ipvsd diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    proxy: ProxyOptions,
}

/// Prints the differences; exits with 1 if there are any.
pub fn run(arguments: &Arguments, log: &Log) -> anyhow::Result<ExitCode> {
    let config = arguments.proxy.resolve(Name::Ipvsd)?;
    log.start(&config.logging)?;
    let (ops, problems) = daemon::preview(&config)?;
    for problem in problems {
        complain(problem);
    }
    match print(&ops) {
        // The answer stays the answer when the reader has seen enough of it: `ipvsd diff | grep -q route`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        outcome => outcome?,
    }
    Ok(if ops.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

fn print(ops: &[Op]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for op in ops {
        writeln!(out, "{op}")?;
    }
    out.flush()
}
