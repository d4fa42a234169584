//! What the kernel does not know of its table: which Service a virtual server is for, and which pod a destination is.
//! Whoever has it puts it into [`Names`]; the JSON has a field more for each name that is known.

use crate::model::{DestinationKey, VirtualServerKey};
use std::collections::BTreeMap;

/// Names by what the kernel knows instead.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `namespace/name` of Services, with `:port` where the port has a name.
    pub services: BTreeMap<VirtualServerKey, String>,
    /// `namespace/name` of pods.
    pub pods: BTreeMap<DestinationKey, String>,
}

impl Names {
    /// The Service of a virtual server. None for a key of a protocol that IPVS does not balance.
    pub fn service(&self, key: Option<VirtualServerKey>) -> Option<&str> {
        self.services.get(&key?).map(String::as_str)
    }

    /// The pod that a destination is.
    pub fn pod(&self, key: DestinationKey) -> Option<&str> {
        self.pods.get(&key).map(String::as_str)
    }
}
