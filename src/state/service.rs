//! A Service: its frontends (addresses and ports) and how connections are spread.

use super::{ObjectName, Origin};
use crate::model::{Family, Protocol, SchedulerFlags, SchedulerName};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A v1 Service that has something to proxy. Headless, ExternalName and other proxies' Services never get here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// Where it was read, for messages.
    pub origin: Origin,
    /// The families in which it is proxied. Every address below is of one of them, and so are its node ports: those of
    /// its cluster IPs; a manifest's without `spec.ipFamilies` is proxied in both.
    pub families: Families,
    /// `spec.clusterIPs`, or `spec.clusterIP` alone: at most one of each family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` where `ipMode` is `VIP` or unset.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: if there are any of a family, only clients in one of them may use the
    /// load-balancer IPs of that family. A family with a range of everything has none here.
    pub source_ranges: Vec<IpNet>,
    /// `spec.ports`; names are unique, and so are pairs of protocol and port.
    pub ports: Vec<ServicePort>,
    /// Seconds of `sessionAffinity: ClientIP`; none with `None`.
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy`: for the cluster IPs.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: for every other way in.
    pub external_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort` of a Service of type `LoadBalancer` whose external policy is `Local`: where load
    /// balancers ask whether this node has endpoints.
    pub health_check_node_port: Option<u16>,
    /// The Service's own choice of a scheduler, by annotation.
    pub scheduling: Option<Scheduling>,
    /// How long its departing endpoints may keep their connections, by annotation; zero cuts them.
    pub drain_timeout: Option<Duration>,
}

impl Service {
    /// One of the API's that has no frontend yet and asks for nothing in particular.
    pub fn new(name: ObjectName) -> Self {
        Self {
            name,
            origin: Origin::Api,
            families: Families::BOTH,
            cluster_ips: vec![],
            external_ips: vec![],
            load_balancer_ips: vec![],
            source_ranges: vec![],
            ports: vec![],
            affinity: None,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            health_check_node_port: None,
            scheduling: None,
            drain_timeout: None,
        }
    }
}

/// Which endpoints may get the traffic of a frontend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Those of all nodes.
    #[default]
    Cluster,
    /// Those of this node, and no others when it has none.
    Local,
}

/// A choice of address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4 is one of them.
    pub ipv4: bool,
    /// IPv6 is one of them.
    pub ipv6: bool,
}

impl Families {
    /// Both of them.
    pub const BOTH: Self = Self { ipv4: true, ipv6: true };

    /// Whether a family is one of them.
    pub fn contains(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// One by one.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        [Family::Ipv4, Family::Ipv6].into_iter().filter(move |family| self.contains(*family))
    }
}

impl FromIterator<Family> for Families {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        families.into_iter().fold(Self::default(), |found, family| Self {
            ipv4: found.ipv4 || family == Family::Ipv4,
            ipv6: found.ipv6 || family == Family::Ipv6,
        })
    }
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
