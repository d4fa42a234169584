//! `ipvsd cleanup`: leaves the kernel without anything of ours.

use super::NO;
use crate::daemon;
use std::process::ExitCode;

/// Removes what is ours and says how much it was.
pub fn run() -> anyhow::Result<ExitCode> {
    let report = daemon::cleanup()?;
    println!("{report}");
    for (op, cause) in &report.failed {
        eprintln!("ipvsd: {op}: {cause}");
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
