//! What the operator decides, resolved: checked values that the rest of the program takes as they are.
//!
//! The raw forms are the command line (`cli/options.rs`), kube-proxy's file ([`kube_proxy`]) and a small file of
//! ipvsd's own ([`own`]); [`resolve`] turns them into a [`Config`]. Nothing here asks the system for anything, but that
//! the two files are read.

pub mod address;
mod checks;
pub mod families;
pub mod kube_proxy;
pub mod logging;
pub mod network;
pub mod own;
pub mod resolve;

use crate::desired::{NetfilterSettings, Settings};
use crate::kernel::node_setup::NodeSetup;
pub use crate::model::duration;
use crate::reconcile::Options;
use kube_proxy::gates::FeatureGates;
use kube_proxy::v1alpha1::KubeProxyConfiguration;
use logging::Logging;
use network::{DetectLocal, Masquerade};
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest configuration file that is read, in bytes: a ConfigMap holds a fourth of it.
const FILE_SIZE_MAX: u64 = 4 << 20;

/// Reads a configuration file; what is not UTF-8 is replaced.
fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if File::open(path)?.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes)? as u64 > FILE_SIZE_MAX {
        let message = format!("larger than {} MiB, the most that is read", FILE_SIZE_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The configuration of a daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where Services come from.
    pub input: Input,
    /// What balances.
    pub mode: Mode,
    /// How Services are balanced that say nothing about it, and which of the node's addresses have node ports.
    pub settings: Settings,
    /// How often, and for how long.
    pub options: Options,
    /// The node's name, in lower case; the system's host name has to do where there is none.
    pub node_name: Option<String>,
    /// What is served to others.
    pub servers: Servers,
    /// How traffic of this node's pods is told.
    pub detect_local: DetectLocal,
    /// Which traffic leaves with the node's address.
    pub masquerade: Masquerade,
    /// What is set on the node at the start.
    pub node: NodeSetup,
    /// The features that are on.
    pub feature_gates: FeatureGates,
    /// What is logged, if the program's own filter does not say it.
    pub logging: Logging,
    /// The files that were read; a change of one may mean another configuration.
    pub files: Vec<PathBuf>,
    /// What the operator should know of the configuration: sentences to be logged at the start.
    pub notices: Vec<String>,
    /// All this as kube-proxy has it in effect.
    pub effective: KubeProxyConfiguration,
}

/// What balances, as the operator wants it: kube-proxy's modes of these names.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// IPVS.
    Ipvs {
        /// What netfilter is told where the kernel has no IPVS and rules balance instead; none forbids that.
        fallback: Option<NetfilterSettings>,
        /// Whether the program moves over to IPVS where a kernel that had none gets it.
        moves_over: bool,
    },
    /// Netfilter's rules.
    Iptables,
}

/// Where Services and EndpointSlices come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// A cluster's API server.
    Cluster(Cluster),
}

impl Display for Input {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifests(directory) => write!(f, "{}", directory.display()),
            Self::Cluster(_) => f.write_str("the API server"),
        }
    }
}

/// How to reach a cluster's API server. Without kubeconfig and server, by the credentials of the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The server's address, which counts more than that of the kubeconfig.
    pub master: Option<String>,
    /// Requests a second; none is no limit.
    pub qps: Option<f32>,
    /// Requests at once.
    pub burst: u32,
    /// The `Accept` header, if it is to differ.
    pub accept_content_types: Option<String>,
    /// The type of what is sent.
    pub content_type: String,
    /// How often everything is asked for again.
    pub resync: Duration,
}

/// What metrics tell of what goes through Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceMetrics {
    /// Whether of destinations too, and not of virtual servers alone.
    pub destinations: bool,
    /// In at most so many series.
    pub limit: NonZeroUsize,
}

/// What is served to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// Where health is served; none is nowhere.
    pub healthz: Option<SocketAddr>,
    /// Where metrics are served; none is nowhere.
    pub metrics: Option<SocketAddr>,
    /// Whether a socket that cannot be bound ends the process.
    pub hard_fail: bool,
    /// Whether the metrics socket serves profiles.
    pub profiling: bool,
    /// What the metrics tell of Services; none is nothing.
    pub service_metrics: Option<ServiceMetrics>,
    /// The file by which the daemon is asked; none is no file.
    pub inspection: Option<PathBuf>,
}
