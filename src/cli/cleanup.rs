//! `ipvsd cleanup`: leaves the kernel without anything of ours.

use super::{NO, complain};
use crate::daemon;
use crate::reconcile::Takeover;
use std::io::{self, Write};
use std::process::ExitCode;

/// Removes what is ours, and what `takeover` makes ours, and says how much it was.
pub fn run(takeover: Takeover) -> anyhow::Result<ExitCode> {
    let report = daemon::cleanup(takeover)?;
    // What was done is done, whether or not it can be told.
    _ = writeln!(io::stdout(), "{report}");
    for (op, cause) in &report.failed {
        complain(format_args!("{op}: {cause}"));
    }
    for (family, failure) in
        report.flows.iter().filter_map(|(family, forgotten)| Some((family, forgotten.failure.as_ref()?)))
    {
        complain(format_args!("forget flows of {}: {failure}", family.name()));
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
