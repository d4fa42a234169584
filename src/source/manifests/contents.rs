//! What one file holds, as values: the words that `parse` and `merge` share.

use crate::state::{Change, EndpointSlice, ObjectName, ObjectRef, Origin, Problem, Service};
use std::sync::Arc;

/// One file of the directory, read and parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path as the user would write it.
    pub path: Arc<str>,
    /// Everything in it, in the order of the documents and of the items of lists.
    pub entries: Vec<Entry>,
}

/// One thing found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An object to use.
    Object(Object),
    /// A good object that is not ipvsd's to proxy. It still has its name for itself.
    NotOurs(ObjectRef, Origin),
    /// An object that is known by name but cannot be used.
    Bad(ObjectRef, Box<Problem>),
    /// Something that cannot be told, and which objects it might have been.
    Unclear(Box<Problem>, Doubt),
    /// Something that means nothing, in an object that is used without it.
    Slip(Box<Problem>),
    /// Whatever is still to come. Nothing is wrong, and nobody knows what may be missing.
    Unseen,
}

/// Which objects of the same file something unreadable may be: those keep their last good version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Any: a syntax error, an unreadable file.
    AnyOfTheFile,
    /// Those of this name: a misspelt kind.
    Named(ObjectName),
    /// None: an object of a kind that is known to be another.
    Nothing,
}

/// An object to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A v1 Service.
    Service(Arc<Service>),
    /// A discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
}

impl Object {
    /// Kind and name.
    pub fn reference(&self) -> ObjectRef {
        match self {
            Self::Service(service) => ObjectRef::Service(service.name.clone()),
            Self::EndpointSlice(slice) => ObjectRef::EndpointSlice(slice.name.clone()),
        }
    }

    /// Where it was read.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Service(service) => &service.origin,
            Self::EndpointSlice(slice) => &slice.origin,
        }
    }

    /// The change that brings it.
    pub fn arrival(&self) -> Change {
        match self {
            Self::Service(service) => Change::Service(Arc::clone(service)),
            Self::EndpointSlice(slice) => Change::EndpointSlice(Arc::clone(slice)),
        }
    }
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(service.into())
    }
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Self {
        Self::EndpointSlice(slice.into())
    }
}
