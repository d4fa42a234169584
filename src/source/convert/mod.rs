//! Kubernetes objects into state values: every optional field, every default and every reject is handled here
//! and nowhere else, for all sources alike.
//!
//! A source deserializes into [`RawService`] or [`RawEndpointSlice`] and hands it to [`service()`] or
//! [`endpoint_slice()`] with its [`Context`]: the [`Rules`] of where it came from, and the node's name. `Ok(None)` is an
//! object that is not ipvsd's to proxy. An object is judged as a whole, and by the first thing that is wrong with it.

mod address;
mod annotations;
mod cluster_ips;
mod context;
mod endpoint_slice;
mod hints;
mod policies;
mod raw;
mod service;

pub use context::{Context, Rules};
pub use raw::{RawEndpointSlice, RawService};

use crate::model::Protocol;
use crate::state::{EndpointSlice, ObjectName, ObjectRef, Origin, Problem, Service};
use context::Conversion;
use raw::RawMetadata;
use serde_json::Number;
use std::collections::HashMap;
use std::hash::Hash;

/// An object to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The object.
    pub object: T,
    /// What is wrong with parts that it is used without. Under [`Rules::Manifest`] there is nothing here: whatever is
    /// wrong costs the object.
    pub problems: Vec<Problem>,
}

/// What an object is converted into: none if it is not ipvsd's to proxy, a problem if it cannot be used.
pub type Outcome<T> = Result<Option<Converted<T>>, Problem>;

/// A Service, if it is one to proxy.
///
/// # Errors
/// The first thing that is wrong with it, naming the field.
pub fn service(raw: &RawService, origin: &Origin, context: &Context) -> Outcome<Service> {
    let name = object_name(&raw.metadata).map_err(|rejected| rejected.problem(origin, None))?;
    let mut conversion = Conversion::new(context, origin);
    let result = service::convert(raw, &name, &mut conversion);
    conversion.finish(ObjectRef::Service(name), result)
}

/// An EndpointSlice, if it is one to use.
///
/// # Errors
/// The first thing that is wrong with it, naming the field.
pub fn endpoint_slice(raw: &RawEndpointSlice, origin: &Origin, context: &Context) -> Outcome<EndpointSlice> {
    let name = object_name(&raw.metadata).map_err(|rejected| rejected.problem(origin, None))?;
    let mut conversion = Conversion::new(context, origin);
    let result = endpoint_slice::convert(raw, &name, &mut conversion);
    conversion.finish(ObjectRef::EndpointSlice(name), result)
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

    /// With the path of what the field is in.
    fn within(self, place: &str) -> Self {
        Self { field: format!("{place}.{}", self.field), ..self }
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
        None | Some("") => Ok(Protocol::Tcp),
        Some(name) => {
            Protocol::from_name(name).ok_or_else(|| format!("{name:?} is not a protocol: TCP, UDP and SCTP are"))
        }
    }
}

/// Who has `key` already, or nobody and now it is `index`.
fn claim<K: Eq + Hash>(taken: &mut HashMap<K, usize>, key: K, index: usize) -> Option<usize> {
    let first = *taken.entry(key).or_insert(index);
    (first != index).then_some(first)
}

#[cfg(test)]
mod tests;
