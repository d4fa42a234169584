//! EndpointSlices: where a Service's connections may go.

use super::{ObjectName, Origin};
use crate::model::{Family, Protocol};
use std::net::IpAddr;
use std::sync::Arc;

/// A discovery.k8s.io/v1 EndpointSlice of IPv4 or IPv6 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// Where it was read, for messages.
    pub origin: Origin,
    /// The Service it belongs to: the label `kubernetes.io/service-name`, same namespace.
    pub service: ObjectName,
    /// `addressType`.
    pub family: Family,
    /// `ports`; a Service's port is matched by name and protocol.
    pub ports: Vec<SlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
}

/// One entry of a slice's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name, empty for the only one.
    pub name: Arc<str>,
    /// TCP unless said otherwise.
    pub protocol: Protocol,
    /// The target port, 1 to 65535.
    pub port: u16,
}

/// One entry of a slice's `endpoints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first of `addresses`; the others are the same pod's and are not used, as in kube-proxy.
    pub address: IpAddr,
    /// `conditions.ready`, true where unset.
    pub ready: bool,
    /// `conditions.serving`, true where unset.
    pub serving: bool,
    /// `conditions.terminating`, false where unset.
    pub terminating: bool,
    /// Share for weighted schedulers, 0 to 65535: annotation `ipvsd.io/weights`, else 1.
    pub weight: u32,
}
