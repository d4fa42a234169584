//! What the cluster says, as ipvsd keeps it: Services, EndpointSlices, this node; and which Services changed.
//!
//! A [`State`] has one owner and no clock, socket or file. Sources turn their input into [`Change`]s (parsed and
//! checked, see `source/convert`); `desired` reads the Services named by [`State::take_dirty`].

mod endpoint;
mod external;
mod node;
mod problem;
mod service;
mod store;

pub use endpoint::{Endpoint, EndpointNames, EndpointSlice, NodeHint, SlicePort, Whereabouts, Zones};
pub use node::{Node, NodeObject};
pub use problem::{ObjectRef, OneLine, Origin, Problem};
pub use service::{Families, Scheduling, Service, ServicePort, TrafficPolicy};
pub use store::{Change, State};

use std::fmt;
use std::sync::{Arc, LazyLock};

/// Namespace and name of a Service or EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `metadata.namespace`, `default` where a manifest has none.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: shared_text(namespace), name: name.into() }
    }
}

/// A text as it is kept: those two that nearly every object has exist once.
pub fn shared_text(text: &str) -> Arc<str> {
    static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
    static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| "default".into());
    match text {
        "" => Arc::clone(&EMPTY),
        "default" => Arc::clone(&DEFAULT),
        other => other.into(),
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
