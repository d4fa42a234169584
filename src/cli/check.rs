//! `ipvsd check`: whether this node is fit for balancing, one line for each thing that was looked at.

use super::NO;
use super::log::Log;
use super::options::{Name, ProxyOptions};
use crate::daemon;
use crate::inspect::check::{Finding, Level, findings};
use crate::state::OneLine;
use clap::Args;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Flags of `ipvsd check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print JSON: a list of `subject`, `level`, `message` and `advice`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    proxy: ProxyOptions,
}

/// Prints the findings; exits with 1 if one is bad.
pub fn run(arguments: &Arguments, log: &Log) -> anyhow::Result<ExitCode> {
    let config = arguments.proxy.resolve(Name::Ipvsd)?;
    log.start(&config.logging)?;
    let found = findings(&daemon::survey(&config, arguments.proxy.name_source())?);
    match print(arguments.json, &found) {
        // The answer stays the answer when the reader has seen enough of it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        outcome => outcome?,
    }
    let is_bad = found.iter().any(|finding| finding.level == Level::Bad);
    Ok(if is_bad { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn print(json: bool, found: &[Finding]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        serde_json::to_writer_pretty(&mut out, found)?;
        writeln!(out)?;
        return out.flush();
    }
    for Finding { subject, level, message, advice } in found {
        write!(out, "{level:<8} {subject:<12} {}", OneLine(message))?;
        match advice {
            Some(advice) => writeln!(out, "; {advice}")?,
            None => writeln!(out)?,
        }
    }
    out.flush()
}
