//! Which endpoints get a Service port's traffic, and with which weight.

use crate::model::{DestinationKey, Family, Protocol};
use crate::state::{Endpoint, EndpointSlice};
use std::collections::BTreeMap;

/// The destinations of one Service port in one family, with their weights.
///
/// Those that are ready; where none is, those that are terminating but still serving (KEP-1669). A slice's port
/// belongs to the Service's port of the same name and protocol, and gives the target port.
pub fn chosen<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: (&str, Protocol),
    family: Family,
) -> BTreeMap<DestinationKey, u32> {
    let merged = merged(slices.filter(|slice| slice.family == family), port);
    let pick = |wanted: fn(&Endpoint) -> bool| -> BTreeMap<DestinationKey, u32> {
        merged.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(key, endpoint)| (*key, endpoint.weight)).collect()
    };
    let ready = pick(|endpoint| endpoint.ready);
    if ready.is_empty() { pick(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
}

/// Every endpoint of the port once. The same address and port may stand in several slices while a pod's address
/// passes to another pod: one that is not terminating beats one that is.
fn merged<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    (name, protocol): (&str, Protocol),
) -> BTreeMap<DestinationKey, &'a Endpoint> {
    let mut merged: BTreeMap<DestinationKey, &Endpoint> = BTreeMap::new();
    for slice in slices {
        for port in slice.ports.iter().filter(|port| &*port.name == name && port.protocol == protocol) {
            for endpoint in &slice.endpoints {
                let key = DestinationKey { address: endpoint.address, port: port.port };
                let known = merged.entry(key).or_insert(endpoint);
                if known.terminating && !endpoint.terminating {
                    *known = endpoint;
                }
            }
        }
    }
    merged
}
