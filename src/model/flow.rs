//! Flows: what connection tracking remembers of clients that speak to a frontend, by protocols whose flows do not end by
//! themselves when nobody answers.

use super::DestinationKey;
use super::netfilter::AddressPort;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// A UDP flow or an SCTP association, as connection tracking remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Who began it.
    pub client: SocketAddr,
    /// Whom the client addressed.
    pub frontend: AddressPort,
    /// Who gets the packets: where the answers are expected from. The frontend itself in a flow that was there before its
    /// virtual server, which IPVS cannot turn to a destination any more (`ip_vs_update_conntrack` in the kernel).
    pub destination: DestinationKey,
}

/// Frontends whose flows are judged, each with the destinations to which they may lead.
pub type Kept = BTreeMap<AddressPort, BTreeSet<DestinationKey>>;

impl Flow {
    /// Whether it leads to where its frontend has no destination. That of a frontend that is not judged does not.
    pub fn is_stale(&self, kept: &Kept) -> bool {
        kept.get(&self.frontend).is_some_and(|destinations| !destinations.contains(&self.destination))
    }
}
