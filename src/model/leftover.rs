//! What kube-proxy's iptables and nftables modes leave on a node.

use super::Family;
use std::fmt::{self, Display, Formatter};

/// Something that kube-proxy made for itself alone and that goes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leftover {
    /// Chains, and jumps into chains, in the back end of iptables that ipvsd uses.
    Rules(Family),
    /// The same in the back end of iptables that ipvsd does not use.
    OtherRules(Family),
    /// The table `kube-proxy` of nftables (`kube-proxy/.../nftables/proxier.go`).
    Table(Family),
}

impl Leftover {
    /// Whose traffic it is about.
    pub fn family(self) -> Family {
        match self {
            Self::Rules(family) | Self::OtherRules(family) | Self::Table(family) => family,
        }
    }
}

impl Display for Leftover {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(family) => write!(f, "kube-proxy's rules {family}"),
            Self::OtherRules(family) => write!(f, "kube-proxy's rules {family} in the other iptables"),
            Self::Table(family) => write!(f, "kube-proxy's table {family}"),
        }
    }
}
