//! Kubernetes objects into state values: every optional field, every default and every reject is handled here
//! and nowhere else, for all sources alike.
//!
//! A source deserializes into [`RawService`] or [`RawEndpointSlice`] and hands it to [`service()`] or
//! [`endpoint_slice()`] with the [`Rules`] of where it came from. `Ok(None)` is an object that is not ipvsd's to
//! proxy. An object is judged as a whole, and by the first thing that is wrong with it.

mod address;
mod annotations;
mod endpoint_slice;
mod raw;
mod service;

pub use raw::{
    RawClientIp, RawConditions, RawEndpoint, RawEndpointSlice, RawIngress, RawLoadBalancerStatus, RawMetadata,
    RawService, RawServicePort, RawServiceSpec, RawServiceStatus, RawSessionAffinityConfig, RawSlicePort, Strings,
};

use crate::model::Protocol;
use crate::state::{EndpointSlice, ObjectName, ObjectRef, Origin, Problem, Service};
use serde_json::Number;

/// Who checked an object before it got here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Nobody: a manifest. ipvsd does what the API server would have done, defaults and validation.
    Manifest,
    /// The API server. What it lets through and kube-proxy skips is skipped without a word.
    Api,
}

/// A Service, if it is one to proxy.
///
/// # Errors
/// The first thing that is wrong with it, naming the field.
pub fn service(raw: &RawService, origin: &Origin, rules: Rules) -> Result<Option<Service>, Problem> {
    let name = object_name(&raw.metadata).map_err(|rejected| rejected.problem(origin, None))?;
    service::convert(raw, &name, origin, rules)
        .map_err(|rejected| rejected.problem(origin, Some(ObjectRef::Service(name))))
}

/// An EndpointSlice, if it is one to use.
///
/// # Errors
/// The first thing that is wrong with it, naming the field.
pub fn endpoint_slice(raw: &RawEndpointSlice, origin: &Origin, rules: Rules) -> Result<Option<EndpointSlice>, Problem> {
    let name = object_name(&raw.metadata).map_err(|rejected| rejected.problem(origin, None))?;
    endpoint_slice::convert(raw, &name, origin, rules)
        .map_err(|rejected| rejected.problem(origin, Some(ObjectRef::EndpointSlice(name))))
}

/// A field and what is wrong with it; the object's name and origin are added at the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rejected {
    field: String,
    message: String,
}

impl Rejected {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    fn problem(self, origin: &Origin, object: Option<ObjectRef>) -> Problem {
        Problem { origin: origin.clone(), object, field: self.field, message: self.message }
    }
}

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

fn object_name(metadata: &RawMetadata) -> Result<ObjectName, Rejected> {
    let name = metadata.name.as_deref().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Rejected::new("metadata.name", "missing"))?;
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    plain("metadata.name", name)?;
    plain("metadata.namespace", namespace)?;
    Ok(ObjectName::new(namespace, name))
}

/// The API's names are DNS names. Anything else would be ambiguous, or worse, in logs and listings.
fn plain(field: &str, name: &str) -> Result<(), Rejected> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if name.len() <= 253 && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Rejected::new(field, format!("{name:?} is not a name: at most 253 characters of a-z, 0-9, - and . are")))
}

/// A port number, where one is needed.
fn port(number: Option<&Number>) -> Result<u16, String> {
    let number = number.ok_or("missing")?;
    let port = number.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
    port.ok_or_else(|| format!("{number} is not a port: 1 to 65535 are"))
}

/// A protocol; the API server's default is TCP.
fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{other:?} is not a protocol: TCP, UDP and SCTP are")),
    }
}

#[cfg(test)]
mod tests;
