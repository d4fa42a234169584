//! EndpointSlices: whose they are, their target ports, their endpoints.

use super::address::address;
use super::annotations::Weights;
use super::context::{Context, Conversion, Rules};
use super::hints::place;
use super::raw::{RawEndpoint, RawEndpointSlice, RawSlicePort};
use super::{DEFAULT_NAMESPACE, Rejected, claim, port, protocol};
use crate::model::Family;
use crate::state::{Endpoint, EndpointNames, EndpointSlice, ObjectName, SlicePort, shared_text};
use std::collections::HashMap;
use std::net::IpAddr;

/// The Service that a slice belongs to (Kubernetes API: well-known labels).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The slice of a headless Service, which has no frontend.
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(super) fn convert(
    raw: &RawEndpointSlice,
    name: &ObjectName,
    conversion: &mut Conversion<'_>,
) -> Result<Option<EndpointSlice>, Rejected> {
    if raw.metadata.labels.contains_key(HEADLESS) {
        return Ok(None);
    }
    let rules = conversion.rules();
    let Some(family) = family(raw.address_type.as_deref(), rules)? else { return Ok(None) };
    let Some(service) = service(raw, name, rules)? else { return Ok(None) };
    let weights = weights(raw, conversion)?;
    let (endpoints, names) = endpoints(&raw.endpoints, family, &weights, conversion.context)?;
    let slice = EndpointSlice {
        name: name.clone(),
        origin: conversion.origin.clone(),
        is_of_nodes: is_of_nodes(raw, &service),
        service,
        family,
        ports: ports(&raw.ports, rules)?,
        endpoints,
        names,
    };
    weights.check(&slice.endpoints, rules)?;
    Ok(Some(slice))
}

/// The API server's own slice names no nodes, and its endpoints are hosts.
fn is_of_nodes(raw: &RawEndpointSlice, service: &ObjectName) -> bool {
    let is_api_server = &*service.namespace == DEFAULT_NAMESPACE && &*service.name == "kubernetes";
    is_api_server || raw.endpoints.iter().any(|endpoint| endpoint.node_name.is_some())
}

/// Where the annotation cannot be read, all endpoints weigh the same.
fn weights(raw: &RawEndpointSlice, conversion: &mut Conversion<'_>) -> Result<Weights, Rejected> {
    match Weights::of(&raw.metadata.annotations) {
        Ok(weights) => Ok(weights),
        Err(wrong) => conversion.forgive(wrong).map(|()| Weights::default()),
    }
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

fn endpoints(
    raw: &[RawEndpoint],
    family: Family,
    weights: &Weights,
    context: &Context,
) -> Result<(Vec<Endpoint>, EndpointNames), Rejected> {
    let (mut endpoints, mut names) = (Vec::with_capacity(raw.len()), Vec::with_capacity(raw.len()));
    for (index, entry) in raw.iter().enumerate() {
        match endpoint(entry, family, weights, context) {
            Ok(endpoint) => {
                endpoints.push(endpoint);
                names.push(entry.target_ref.name.as_deref().unwrap_or_default());
            }
            Err(_) if context.rules == Rules::Api => {}
            Err(rejected) => return Err(rejected.within(&format!("endpoints[{index}]"))),
        }
    }
    Ok((endpoints, EndpointNames::new(names)))
}

/// One endpoint; what is wrong names the field within it.
fn endpoint(raw: &RawEndpoint, family: Family, weights: &Weights, context: &Context) -> Result<Endpoint, Rejected> {
    let address = first_address(raw, family)?;
    let (conditions, place) = (raw.conditions, place(raw, context)?);
    Ok(Endpoint {
        address,
        weight: weights.weight(address),
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: place.node,
        node_hint: place.node_hint,
        zones: place.zones,
    })
}

fn first_address(raw: &RawEndpoint, family: Family) -> Result<IpAddr, Rejected> {
    let text = raw.addresses.first();
    let text = text.ok_or_else(|| Rejected::new("addresses", "missing: an endpoint needs an address"))?;
    let rejected = |why: String| Rejected::new("addresses[0]", why);
    let address = address(text).map_err(|why| rejected(why.to_string()))?;
    if Family::of(address) == family {
        return Ok(address);
    }
    Err(rejected(format!("{address} is not of the slice's addressType, {}", family.name())))
}
