//! What the kernel does not know of its table: which Service a virtual server is for, and which pod a destination is.
//! Whoever has it puts it into [`Names`]; the JSON has a field more for each name that is known.

use crate::cli::explain::ask_daemon;
use crate::inspect::{NamedEndpoint, Owner};
use crate::model::{DestinationKey, VirtualServerKey};
use std::collections::BTreeMap;

/// Names by what the kernel knows instead.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `namespace/name` of Services.
    pub services: BTreeMap<VirtualServerKey, String>,
    /// `namespace/name` of pods.
    pub pods: BTreeMap<DestinationKey, String>,
}

impl Names {
    /// What the daemon knows that runs here; without one nothing is known.
    pub fn known() -> Self {
        let owners = ask_daemon::<Vec<Owner>>("/v1/owners").unwrap_or_default();
        let endpoints = ask_daemon::<Vec<NamedEndpoint>>("/v1/endpoints").unwrap_or_default();
        let key = |endpoint: &NamedEndpoint| DestinationKey { address: endpoint.address, port: endpoint.port };
        Self {
            services: owners.into_iter().map(|owner| (owner.server.into(), owner.service)).collect(),
            pods: endpoints.into_iter().map(|endpoint| (key(&endpoint), endpoint.pod)).collect(),
        }
    }

    /// The Service of a virtual server. None for a key of a protocol that IPVS does not balance.
    pub fn service(&self, key: Option<VirtualServerKey>) -> Option<&str> {
        self.services.get(&key?).map(String::as_str)
    }

    /// The pod that a destination is.
    pub fn pod(&self, key: DestinationKey) -> Option<&str> {
        self.pods.get(&key).map(String::as_str)
    }
}
