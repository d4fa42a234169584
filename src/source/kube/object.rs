//! The JSON of one object into what is kept of it. Only the fields that are used are read, so `managedFields` and the
//! like are gone with the text.

use super::kind::Kind;
use super::node::{self, RawNode};
use super::wire::Identity;
use crate::source::convert::{self, DEFAULT_NAMESPACE, RawEndpointSlice, RawService, Rules};
use crate::state::{EndpointSlice, NodeObject, ObjectName, ObjectRef, Origin, Problem, Service};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::SystemTime;

/// Written by the endpoint slice controller: when the change happened that led to this version of the slice.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// An object as the API server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Namespace and name (a Node's namespace means nothing). None where not even that can be read.
    pub name: Option<ObjectName>,
    /// When it was changed last, on the clock that all objects of the cluster share; 0 where that cannot be read.
    pub version: u64,
    /// What led to that change happened then; EndpointSlices only.
    pub trigger: Option<SystemTime>,
    /// What it says.
    pub content: Content,
}

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Node(NodeObject),
    /// Nothing for ipvsd.
    NotOurs,
    /// Something that cannot be.
    Bad(Problem),
}

impl Object {
    /// Reads the object of kind `kind` in `json`.
    pub(super) fn read(kind: Kind, json: &RawValue) -> Self {
        let identity = Identity::of(json);
        let trigger = if kind == Kind::EndpointSlices { identity.annotation(TRIGGER) } else { None };
        let name = identity
            .name()
            .map(|name| ObjectName::new(identity.namespace().as_deref().unwrap_or(DEFAULT_NAMESPACE), &name));
        let content = content(kind, json).unwrap_or_else(|problem| {
            Content::Bad(Problem { object: name.clone().and_then(|name| reference(kind, name)), ..problem })
        });
        Self {
            name,
            version: identity.version().and_then(|version| version.parse().ok()).unwrap_or_default(),
            trigger: trigger.and_then(|text| text.parse::<Timestamp>().ok()).map(SystemTime::from),
            content,
        }
    }
}

fn content(kind: Kind, json: &RawValue) -> Result<Content, Problem> {
    Ok(match kind {
        Kind::Services => match convert::service(&typed::<RawService>(json)?, &Origin::Api, Rules::Api)? {
            Some(service) => Content::Service(Arc::new(service)),
            None => Content::NotOurs,
        },
        Kind::EndpointSlices => {
            match convert::endpoint_slice(&typed::<RawEndpointSlice>(json)?, &Origin::Api, Rules::Api)? {
                Some(slice) => Content::EndpointSlice(Arc::new(slice)),
                None => Content::NotOurs,
            }
        }
        Kind::Node => Content::Node(node::convert(&typed::<RawNode>(json)?)),
    })
}

/// Finding the path of a wrong field costs as much as reading, so it is done only when there is one.
fn typed<R: DeserializeOwned>(json: &RawValue) -> Result<R, Problem> {
    serde_json::from_str(json.get()).or_else(|_| {
        let mut text = serde_json::Deserializer::from_str(json.get());
        serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let field = Some(error.path().to_string()).filter(|path| path != ".").unwrap_or_default();
            Problem { origin: Origin::Api, object: None, field, message: without_place(&error.into_inner()) }
        })
    })
}

/// The line and column are those of a text that nobody can look at.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

fn reference(kind: Kind, name: ObjectName) -> Option<ObjectRef> {
    match kind {
        Kind::Services => Some(ObjectRef::Service(name)),
        Kind::EndpointSlices => Some(ObjectRef::EndpointSlice(name)),
        Kind::Node => None,
    }
}
