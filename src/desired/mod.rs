//! What this node's kernel should hold. Pure: cluster state, node and settings in, virtual servers out.
//!
//! [`endpoints`] chooses who gets traffic, [`frontends`] and [`node_ports`] where it comes in, [`ipvs`] with which
//! scheduler and persistence; [`part`] puts these together for one Service, [`plan`] folds the Services into one whole
//! and settles who has an address that two want; [`local`] says what endpoints on this node mean to others; [`drain`] keeps what goes until its connections are gone, [`inherited`] what an
//! earlier process made and nobody can judge; [`routes`] says which VIPs are local by a route, [`netfilter`] who is masqueraded or kept out.

pub mod drain;
pub mod endpoints;
pub mod explained;
pub mod frontends;
pub mod inherited;
pub mod ipvs;
pub mod local;
pub mod netfilter;
pub mod node_ports;
pub mod part;
pub mod plan;
pub mod routes;

use crate::model::SchedulerName;
use crate::model::netfilter::Balancing;
use crate::state::Scheduling;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub use drain::{Drains, Moment};
pub use inherited::Inherited;
pub use local::{HealthCheck, Locals, Traffic};
pub use netfilter::{DetectLocal, NetfilterSettings, untold_pods};
pub use node_ports::NodePortAddresses;
pub use plan::Plan;

/// What the deciding depends on besides the cluster and the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For Services that choose no scheduler, and for those whose choice the kernel cannot load.
    pub scheduling: Scheduling,
    /// Whether Services with affinity that choose no scheduler have one that begins it alike at all addresses of a port.
    pub shares_affinity: bool,
    /// Schedulers that the kernel was asked for and could not load.
    pub unavailable: BTreeSet<SchedulerName>,
    /// Which of the node's addresses have node ports.
    pub node_ports: NodePortAddresses,
    /// The node's primary address of its family, where the operator says it.
    pub bind_address: Option<IpAddr>,
    /// Whether a cluster says what the node's primary addresses are. Without one its links do; with one, and before it
    /// has said it, they are not known.
    pub has_cluster: bool,
    /// Whether `spec.externalIPs` are served: kube-proxy's feature gate `AllowServiceExternalIPs`.
    pub external_ips_allowed: bool,
    /// About masquerading and the rules around VIPs; none where ipvsd keeps off netfilter.
    pub netfilter: Option<NetfilterSettings>,
}

impl Settings {
    /// Whether netfilter's rules balance, which have one way to choose a destination.
    pub fn balances_by_nat(&self) -> bool {
        self.netfilter.as_ref().is_some_and(|netfilter| netfilter.balancing != Balancing::Ipvs)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scheduling: Scheduling::with_usual_flags(SchedulerName::RR),
            shares_affinity: false,
            unavailable: BTreeSet::new(),
            node_ports: NodePortAddresses::default(),
            bind_address: None,
            has_cluster: false,
            external_ips_allowed: true,
            netfilter: None,
        }
    }
}
