//! `ipvsd diff`: what `run` would change, on stdout, one operation a line; and what is wrong with the input, on
//! stderr.

use super::NO;
use super::options::ProxyOptions;
use crate::daemon;
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;

/// Flags of `ipvsd diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    proxy: ProxyOptions,
}

/// Prints the differences; exits with 1 if there are any.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (ops, problems) = daemon::preview(&arguments.proxy.resolve())?;
    for problem in problems {
        eprintln!("ipvsd: {problem}");
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for op in &ops {
        writeln!(out, "{op}")?;
    }
    out.flush()?;
    Ok(if ops.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
