//! Loads kernel modules with modprobe: at start, and when a scheduler is missing; never for each object.

use super::program::{self, ProgramError};
use crate::model::SchedulerName;
use std::fmt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

/// How long modprobe may take, which is a matter of milliseconds unless the disk is slow or it waits for another's lock.
const LIMIT: Duration = Duration::from_secs(30);

/// What came of an attempt to load a module.
#[derive(Debug)]
pub enum Loading {
    /// It is loaded, or is part of the kernel.
    Loaded,
    /// modprobe ran and failed: no such module for this kernel, or not permitted.
    Failed,
    /// Nobody asked for it.
    NotTried,
    /// modprobe did not run, or not to its end.
    NotRun(ProgramError),
}

impl Loading {
    /// Whether the module is there now.
    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Loaded)
    }
}

impl fmt::Display for Loading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loaded => f.write_str("modprobe loaded it"),
            Self::Failed => f.write_str("modprobe could not load it"),
            Self::NotTried => f.write_str("loading it was not tried"),
            Self::NotRun(ProgramError::Io(error)) => write!(f, "modprobe cannot be run ({error})"),
            Self::NotRun(killed) => write!(f, "modprobe {killed}"),
        }
    }
}

/// Runs `modprobe -q MODULE`; blocks while it runs, for half a minute at most.
pub fn load(module: &str) -> Loading {
    match modprobe(&["--", module]) {
        Ok(output) if output.status.success() => Loading::Loaded,
        Ok(_) => Loading::Failed,
        Err(error) => Loading::NotRun(error),
    }
}

/// Whether a module is there, as far as can be seen; loads nothing.
pub fn is_there(module: &str) -> bool {
    Path::new("/sys/module").join(module).exists()
}

/// Whether modprobe would load a module; it is run with `-n`, which loads nothing.
pub fn could_be_loaded(module: &str) -> bool {
    modprobe(&["-n", "--", module]).is_ok_and(|output| output.status.success())
}

/// Whether modprobe would insert a module, or others for it; asked without inserting any. Not so of one that is part of the
/// kernel, or that there is not.
pub fn would_be_inserted(module: &str) -> bool {
    let inserts = |output: Output| output.stdout.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"insmod "));
    modprobe(&["--show-depends", "--", module]).is_ok_and(inserts)
}

fn modprobe(arguments: &[&str]) -> Result<Output, ProgramError> {
    program::output("modprobe", &[&["-q"], arguments].concat(), b"", LIMIT)
}

/// A module that is not there, as far as can be seen: one that is part of the kernel may hide.
#[derive(Debug)]
pub struct Missing {
    /// Its name.
    pub module: String,
    /// What came of loading it.
    pub loading: Loading,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the module {} is not loaded, and {}", self.module, self.loading)
    }
}

/// Loads those modules that balancing with these schedulers needs and that are not there. Returns what is missing then.
pub fn load_needed(schedulers: impl IntoIterator<Item = SchedulerName>) -> Vec<Missing> {
    let of_schedulers = schedulers.into_iter().map(|name| format!("ip_vs_{name}"));
    let needed = ["nf_conntrack", "ip_vs"].map(str::to_owned).into_iter().chain(of_schedulers);
    let absent = needed.filter(|module| !Path::new("/sys/module").join(module).exists());
    let loaded = absent.map(|module| Missing { loading: load(&module), module });
    loaded.filter(|missing| !missing.loading.succeeded()).collect()
}

/// Whether the kernel has IPVS, once its module is loaded if that can be done: asked without a netlink socket, and so
/// without any right.
pub fn has_ipvs() -> bool {
    let table = Path::new("/proc/net/ip_vs");
    table.exists() || (load("ip_vs").succeeded() && table.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_does_not_exist_is_not_loaded() {
        let loading = load("ipvsd_no_such_module");
        assert!(!loading.succeeded(), "{loading}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = load_needed(["no-such-one".parse().unwrap()]).pop().unwrap();
        let text = missing.to_string();
        assert!(text.starts_with("the module ip_vs_no-such-one is not loaded, and modprobe c"), "{text}");
    }
}
