//! What the operator decides, resolved: checked values that the rest of the program takes as they are.
//!
//! The command line (`cli/options.rs`) is the raw form. Nothing here asks the system for anything.

pub mod duration;

use crate::desired::Settings;
use crate::reconcile::Options;
use std::path::PathBuf;

/// The configuration of a daemon.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of manifests.
    pub manifests: PathBuf,
    /// How Services are balanced that say nothing about it.
    pub settings: Settings,
    /// How often, and for how long.
    pub options: Options,
}
