//! A Service: its frontends (addresses and ports) and how connections are spread.

use super::{ObjectName, Origin};
use crate::model::{Protocol, SchedulerFlags, SchedulerName};
use std::net::IpAddr;
use std::sync::Arc;

/// A v1 Service that has something to proxy. Headless, ExternalName and other proxies' Services never get here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// Where it was read, for messages.
    pub origin: Origin,
    /// `spec.clusterIPs`, or `spec.clusterIP` alone: at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` where `ipMode` is `VIP` or unset.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.ports`; names are unique, and so are pairs of protocol and port.
    pub ports: Vec<ServicePort>,
    /// Seconds of `sessionAffinity: ClientIP`; none with `None`.
    pub affinity: Option<u32>,
    /// The Service's own choice of a scheduler, by annotation.
    pub scheduling: Option<Scheduling>,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty for the only port of a Service.
    pub name: Arc<str>,
    /// TCP unless said otherwise.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub port: u16,
    /// The node port, if it has one.
    pub node_port: Option<u16>,
}

/// A scheduler with its flags, as annotations or the default give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// Which scheduler.
    pub scheduler: SchedulerName,
    /// `fallback` and `port`, for `sh` and `mh` only.
    pub flags: SchedulerFlags,
}

impl Scheduling {
    /// A scheduler with the flags it has where nobody says any: `mh` hashes the port too, as in kube-proxy's
    /// ipvs mode, because the address alone would send a NATed office to one endpoint.
    pub fn with_usual_flags(scheduler: SchedulerName) -> Self {
        let flags = if scheduler == SchedulerName::MH { SchedulerFlags::PORT } else { SchedulerFlags::default() };
        Self { scheduler, flags }
    }
}
