//! EndpointSlices: whose they are, their target ports, their endpoints.

use super::address::address;
use super::annotations::Weights;
use super::raw::{RawConditions, RawEndpoint, RawEndpointSlice, RawSlicePort};
use super::{Rejected, Rules, claim, port, protocol};
use crate::model::Family;
use crate::state::{Endpoint, EndpointSlice, ObjectName, Origin, SlicePort, shared_text};
use std::collections::HashMap;
use std::net::IpAddr;

/// The Service that a slice belongs to (Kubernetes API: well-known labels).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The slice of a headless Service, which has no frontend.
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(super) fn convert(
    raw: &RawEndpointSlice,
    name: &ObjectName,
    origin: &Origin,
    rules: Rules,
) -> Result<Option<EndpointSlice>, Rejected> {
    if raw.metadata.labels.contains_key(HEADLESS) {
        return Ok(None);
    }
    let Some(family) = family(raw.address_type.as_deref(), rules)? else { return Ok(None) };
    let Some(service) = service(raw, name, rules)? else { return Ok(None) };
    let weights = Weights::of(&raw.metadata.annotations)?;
    let slice = EndpointSlice {
        name: name.clone(),
        origin: origin.clone(),
        service,
        family,
        ports: ports(&raw.ports, rules)?,
        endpoints: endpoints(&raw.endpoints, family, &weights, rules)?,
    };
    weights.check(&slice.endpoints, rules)?;
    Ok(Some(slice))
}

fn family(address_type: Option<&str>, rules: Rules) -> Result<Option<Family>, Rejected> {
    match address_type {
        Some("IPv4") => Ok(Some(Family::Ipv4)),
        Some("IPv6") => Ok(Some(Family::Ipv6)),
        Some("FQDN") => Ok(None),
        _ if rules == Rules::Api => Ok(None),
        None => Err(Rejected::new("addressType", "missing: IPv4 or IPv6")),
        Some(other) => Err(Rejected::new("addressType", format!("{other:?} is not a type: IPv4, IPv6 and FQDN are"))),
    }
}

fn service(raw: &RawEndpointSlice, slice: &ObjectName, rules: Rules) -> Result<Option<ObjectName>, Rejected> {
    let label = raw.metadata.labels.get(SERVICE_NAME).and_then(Option::as_deref).filter(|label| !label.is_empty());
    match label {
        Some(label) => Ok(Some(ObjectName { namespace: slice.namespace.clone(), name: label.into() })),
        None if rules == Rules::Api => Ok(None),
        None => Err(Rejected::new(
            format!("metadata.labels[{SERVICE_NAME}]"),
            "missing: it names the Service that the endpoints belong to",
        )),
    }
}

/// Names are unique whatever the protocol, as the API server has it.
fn ports(raw: &[RawSlicePort], rules: Rules) -> Result<Vec<SlicePort>, Rejected> {
    let mut names = HashMap::new();
    let mut ports = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        if rules == Rules::Api && is_skipped(entry) {
            continue;
        }
        let rejected = |name: &str, why| Rejected::new(format!("ports[{index}].{name}"), why);
        let name = entry.name.as_deref().unwrap_or_default();
        if let Some(first) = claim(&mut names, name, index) {
            return Err(rejected("name", format!("{name:?} is taken by ports[{first}]")));
        }
        ports.push(SlicePort {
            name: shared_text(name),
            protocol: protocol(entry.protocol.as_deref()).map_err(|why| rejected("protocol", why))?,
            port: port(entry.port.as_ref()).map_err(|why| rejected("port", why))?,
        });
    }
    Ok(ports)
}

/// kube-proxy makes nothing of a port without a name (empty is a name) or number.
fn is_skipped(port: &RawSlicePort) -> bool {
    port.name.is_none() || port.port.as_ref().is_none_or(|number| number.as_u64() == Some(0))
}

fn endpoints(raw: &[RawEndpoint], family: Family, weights: &Weights, rules: Rules) -> Result<Vec<Endpoint>, Rejected> {
    let mut endpoints = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        match first_address(entry, family) {
            Ok(address) => endpoints.push(endpoint(address, entry.conditions, weights)),
            Err(_) if rules == Rules::Api => {}
            Err((field, why)) => return Err(Rejected::new(format!("endpoints[{index}].{field}"), why)),
        }
    }
    Ok(endpoints)
}

fn first_address(raw: &RawEndpoint, family: Family) -> Result<IpAddr, (&'static str, String)> {
    let text =
        raw.addresses.first().ok_or_else(|| ("addresses", "missing: an endpoint needs an address".to_owned()))?;
    let address = address(text).map_err(|why| ("addresses[0]", why))?;
    if Family::of(address) == family {
        return Ok(address);
    }
    Err(("addresses[0]", format!("{address} is not of the slice's addressType, {}", family.name())))
}

fn endpoint(address: IpAddr, conditions: RawConditions, weights: &Weights) -> Endpoint {
    Endpoint {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        weight: weights.weight(address),
    }
}
