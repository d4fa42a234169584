//! What the kernel does not know of its table: which Service a virtual server is for, and which pod a destination is.
//! Whoever has it puts it into [`Names`]; the JSON has a field more for each name that is known, the text a remark.

use crate::cli::explain::ask_daemon;
use crate::inspect::{NamedEndpoint, Owner};
use crate::model::{DestinationKey, VirtualServerKey};
use crate::server::AskError;
use std::collections::BTreeMap;

/// Names by what the kernel knows instead.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `namespace/name` of Services, and their ports' names, which are empty for the only one.
    pub services: BTreeMap<VirtualServerKey, (String, String)>,
    /// `namespace/name` of pods.
    pub pods: BTreeMap<DestinationKey, String>,
}

impl Names {
    /// What the daemon knows that runs here.
    ///
    /// # Errors
    /// There is none, or it does not answer.
    pub fn known() -> Result<Self, AskError> {
        let owners = ask_daemon::<Vec<Owner>>("/v1/owners")?;
        let endpoints = ask_daemon::<Vec<NamedEndpoint>>("/v1/endpoints")?;
        let key = |endpoint: &NamedEndpoint| DestinationKey { address: endpoint.address, port: endpoint.port };
        let port = |owner: Owner| (owner.server.into(), (owner.service, owner.port_name));
        Ok(Self {
            services: owners.into_iter().map(port).collect(),
            pods: endpoints.into_iter().map(|endpoint| (key(&endpoint), endpoint.pod)).collect(),
        })
    }

    /// The Service of a virtual server. None for a key of a protocol that IPVS does not balance.
    pub fn service(&self, key: Option<VirtualServerKey>) -> Option<&str> {
        self.services.get(&key?).map(|(service, _)| service.as_str())
    }

    /// The same with the name of the Service's port: `namespace/name:port`, as `ipvsd explain` takes it.
    pub fn service_port(&self, key: Option<VirtualServerKey>) -> Option<String> {
        let (service, port) = self.services.get(&key?)?;
        Some(if port.is_empty() { service.clone() } else { format!("{service}:{port}") })
    }

    /// The pod that a destination is.
    pub fn pod(&self, key: DestinationKey) -> Option<&str> {
        self.pods.get(&key).map(String::as_str)
    }
}
