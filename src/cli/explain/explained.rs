//! What there is to show of a Service: what the daemon says, what the kernel holds, and in what they differ.

use crate::inspect::{ServiceAnswer, form};
use crate::kernel::ipvs::{DestinationEntry, VirtualServerEntry};
use crate::model::Op;
use serde::Serialize;
use std::net::IpAddr;

/// What there is to show.
#[derive(Debug)]
pub struct Explained {
    /// What the daemon says; none without a daemon.
    pub service: Option<ServiceAnswer>,
    /// What the kernel holds.
    pub kernel: Vec<InKernel>,
    /// What would make the kernel what it should be.
    pub differences: Vec<Op>,
}

/// A virtual server in the kernel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InKernel {
    /// Which one.
    #[serde(flatten)]
    pub server: form::Server,
    /// The scheduler's name.
    pub scheduler: String,
    /// Whether ipvsd made it.
    pub managed: bool,
    /// Where connections go.
    pub destinations: Vec<InUse>,
}

/// A destination in the kernel.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InUse {
    /// Where connections go.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// 0 takes no new connections.
    pub weight: u32,
    /// TCP: established.
    pub active_connections: u32,
    /// TCP: in any other state.
    pub inactive_connections: u32,
}

impl InKernel {
    /// One in IPVS; none of a protocol that IPVS does not balance.
    pub fn of((server, destinations): &(VirtualServerEntry, Vec<DestinationEntry>)) -> Option<Self> {
        let destination = |entry: &DestinationEntry| InUse {
            address: entry.key.address,
            port: entry.key.port,
            weight: entry.weight,
            active_connections: entry.active,
            inactive_connections: entry.inactive,
        };
        Some(Self {
            server: server.identity.key()?.into(),
            scheduler: server.scheduler.clone(),
            managed: server.is_ours(),
            destinations: destinations.iter().map(destination).collect(),
        })
    }
}
