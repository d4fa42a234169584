//! The seam to the kernel: one trait with two real implementations, Linux and a faithful fake.
//!
//! Both block: a network namespace belongs to a thread, and netlink answers within the system call that asks.

mod answer;
pub mod connections;
pub mod conntrack;
pub mod device;
pub mod fake;
pub mod ipset;
pub mod iptables;
pub mod ipvs;
pub mod linux;
pub mod localhost;
pub mod modules;
pub mod nat;
pub mod netfilter;
pub mod netlink;
pub mod nfacct;
pub mod nftables;
pub mod node_setup;
pub mod ownership;
pub mod program;
pub mod route;
pub mod sysctl;

use crate::model::{DestinationKey, Family, Kept, Model, Op, VirtualServerKey};
use iptables::leftovers::Held;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use nix::errno::Errno;

/// A kernel that can be read and programmed.
pub trait Kernel {
    /// Reads what is ours.
    ///
    /// # Errors
    /// Any failure to read all of it: half a reading is an error, never a smaller model.
    fn observe(&mut self, scope: Scope<'_>) -> Result<Observation, ObserveError>;

    /// Applies operations that are sorted by [`Op::phase`], all of them even when some fail.
    ///
    /// Returns what failed, by index into `ops`, ascending; empty means all of it is done.
    fn apply(&mut self, ops: &[Op]) -> Vec<Failure>;

    /// Has connection tracking forget the flows of these frontends that lead to none of a frontend's destinations. The
    /// frontends are of this family, and none is of TCP.
    fn forget_flows(&mut self, family: Family, kept: &Kept) -> Forgotten;
}

/// What an observation should cover.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Everything ipvsd owns, the keys of what it does not, and kube-proxy's device.
    All,
    /// The same without destinations and connections, which take the most time.
    Outline,
    /// These virtual servers with their destinations, which the caller knows to be ours even if they lack the
    /// tag: their spec differs from every wanted one then. Those that are gone are left out of the result.
    VirtualServers(&'a [VirtualServerKey]),
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// What ipvsd owns, as far as the scope goes.
    pub model: Model,
    /// Virtual servers that somebody else made (not with [`Scope::VirtualServers`]). They are never touched.
    pub foreign: BTreeSet<VirtualServerKey>,
    /// Chains that kube-proxy left and that cannot be removed (only with [`Scope::All`]).
    pub held: BTreeSet<Held>,
    /// Families in which kube-proxy's ipvs mode wrote last, and so has the sets that both have (only with
    /// [`Scope::All`]).
    pub kube_proxys_sets: BTreeSet<Family>,
    /// Connections (active and inactive) of each of our destinations that has any.
    pub connections: BTreeMap<(VirtualServerKey, DestinationKey), u32>,
}

/// A reading that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The kernel refused a request.
    #[error("the kernel refused to list {what}: {errno}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// The socket failed.
    #[error("cannot read {what} from the kernel")]
    Io {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The answer cannot be understood.
    #[error("the kernel's answer about {what} cannot be understood: {detail}")]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A program failed that reads for us.
    #[error("rules cannot be read: {0}")]
    Program(iptables::Failed),
    /// The table changed during every attempt to read it (`NLM_F_DUMP_INTR`).
    #[error("{what} kept changing while it was read")]
    Inconsistent {
        /// What was asked for.
        what: &'static str,
    },
}

/// What came of looking for flows that lead nowhere.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// How many there were and are no more.
    pub flows: usize,
    /// How long it took.
    pub took: Duration,
    /// Why others may still be there.
    pub failure: Option<FlowsError>,
}

/// Why flows that lead nowhere may still be there.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// Nobody can say which flows there are.
    #[error("the module nf_conntrack_netlink is not loaded, and the kernel cannot load it")]
    Unavailable,
    /// They could not all be read, and none was touched.
    #[error(transparent)]
    Unread(ObserveError),
    /// Some stayed.
    #[error("the kernel refused to forget one: {0}")]
    Unforgotten(Errno),
}

/// An operation that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index into the operations given to [`Kernel::apply`].
    pub index: usize,
    /// Why.
    pub cause: Cause,
}

/// Why an operation failed, told apart by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// What should be added is there, or what should be changed or removed is not: our picture is out of date.
    #[error("the kernel's state is not what it was thought to be: {0}")]
    OutOfDate(Errno),
    /// The kernel has no such scheduler, and cannot load it.
    #[error("the kernel cannot load the scheduler")]
    SchedulerMissing,
    /// An IPv6 route cannot be made where the node's owner has switched IPv6 off.
    #[error("IPv6 is switched off on lo: net.ipv6.conf.lo.disable_ipv6 is not 0")]
    Ipv6Off,
    /// A set has as many members as it may have. It is made larger long before, up to four million.
    #[error("the set is full")]
    SetFull,
    /// There is a set of this name that is of another type, and not ours to have: rules refer to it, so that it cannot be
    /// destroyed.
    #[error(
        "there is a set of this name with the type {found} where {wanted} is needed, and rules refer to it: delete \
         those, ipvsd's own by `ipvsd cleanup`, and it is replaced; all else is programmed"
    )]
    SetOfOtherType {
        /// As ipset writes it.
        found: Arc<str>,
        /// The same of what is needed.
        wanted: Arc<str>,
    },
    /// iptables is missing or failed.
    #[error("the rules cannot be set: {0}")]
    Rules(iptables::Failed),
    /// The kernel refused.
    #[error("the kernel refused: {0}")]
    Refused(Errno),
    /// The answer was lost, so the operation may or may not have been done.
    #[error("the kernel's answer was lost: {0}")]
    Unknown(Errno),
}
