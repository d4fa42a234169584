//! Services: whether one is ours to proxy, its addresses, its ports, its affinity.

use super::address::{BadAddress, address};
use super::cluster_ips::cluster_ips;
use super::context::{Conversion, Rules};
use super::raw::{RawIngress, RawService, RawServicePort, RawServiceSpec};
use super::{Rejected, annotations, claim, policies, port, protocol};
use crate::model::{Family, Protocol};
use crate::state::{Families, ObjectName, Service, ServicePort, shared_text};
use std::collections::HashMap;
use std::net::IpAddr;

/// With any value it says that some other proxy has the Service (Kubernetes API conventions).
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// The API server's default for `timeoutSeconds`, three hours.
const AFFINITY_SECONDS: u32 = 10_800;
/// The API server's limit for it, a day.
const AFFINITY_SECONDS_MAX: u64 = 86_400;

pub(super) fn convert(
    raw: &RawService,
    name: &ObjectName,
    conversion: &mut Conversion<'_>,
) -> Result<Option<Service>, Rejected> {
    let (spec, rules) = (&raw.spec, conversion.rules());
    if !is_ours(raw, rules) {
        return Ok(None);
    }
    if rules == Rules::Manifest {
        known_type(spec)?;
    }
    let (families, cluster_ips) = cluster_ips(spec, conversion)?;
    if families == Families::default() {
        return Ok(None);
    }
    let external_ips = external_ips(spec, conversion)?;
    let load_balancer_ips = load_balancer_ips(&raw.status.load_balancer.ingress, conversion)?;
    let of = |addresses: Vec<IpAddr>| addresses.into_iter().filter(|ip| families.contains(Family::of(*ip))).collect();
    let ports = ports(&spec.ports)?;
    let is_external = !external_ips.is_empty() || !load_balancer_ips.is_empty() || has_node_port(&ports);
    let external_policy = policies::external(spec, is_external, rules)?;
    let annotations = &raw.metadata.annotations;
    forgiven(annotations::known_on_service(annotations), conversion)?;
    let service = Service {
        name: name.clone(),
        origin: conversion.origin.clone(),
        families,
        cluster_ips,
        external_ips: of(external_ips),
        load_balancer_ips: of(load_balancer_ips),
        source_ranges: policies::source_ranges(spec, rules)?,
        affinity: affinity(spec, rules)?,
        internal_policy: policies::internal(spec, rules)?,
        external_policy,
        health_check_node_port: policies::health_check_node_port(spec, external_policy, &ports, rules)?,
        scheduling: forgiven(annotations::scheduling(annotations), conversion)?,
        drain_timeout: forgiven(annotations::drain_timeout(annotations), conversion)?,
        ports,
    };
    if rules == Rules::Manifest {
        has_frontend(&service)?;
    }
    Ok(Some(service))
}

/// Where an annotation cannot be read, the Service has no choice of its own of what it is about.
fn forgiven<T: Default>(read: Result<T, Rejected>, conversion: &mut Conversion<'_>) -> Result<T, Rejected> {
    read.or_else(|wrong| conversion.forgive(wrong).map(|()| T::default()))
}

fn is_ours(raw: &RawService, rules: Rules) -> bool {
    let spec = &raw.spec;
    let primary = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    let is_there = match rules {
        // As for kube-proxy, which does not look at the others then. No address yet means that one is on its way.
        Rules::Api => primary.is_some_and(|ip| ip != "None"),
        Rules::Manifest => primary.or(spec.cluster_ips.first().map(String::as_str)) != Some("None"),
    };
    let external_name = spec.kind.as_deref() == Some("ExternalName");
    is_there && !external_name && !raw.metadata.labels.contains_key(OTHER_PROXY)
}

fn known_type(spec: &RawServiceSpec) -> Result<(), Rejected> {
    match spec.kind.as_deref() {
        None | Some("" | "ClusterIP" | "NodePort" | "LoadBalancer") => Ok(()),
        Some(other) => Err(Rejected::new(
            "spec.type",
            format!("{other:?} is not a type: ClusterIP, NodePort, LoadBalancer and ExternalName are"),
        )),
    }
}

fn external_ips(spec: &RawServiceSpec, conversion: &mut Conversion<'_>) -> Result<Vec<IpAddr>, Rejected> {
    let texts = spec.external_ips.iter().enumerate();
    addresses(texts.map(|(index, text)| (format!("spec.externalIPs[{index}]"), text.as_str())), conversion)
}

/// Only addresses that packets arrive with: not hostnames, and not those of `ipMode: Proxy` (KEP-1860).
fn load_balancer_ips(ingress: &[RawIngress], conversion: &mut Conversion<'_>) -> Result<Vec<IpAddr>, Rejected> {
    let mut texts = Vec::new();
    for (index, entry) in ingress.iter().enumerate() {
        let field = |name: &str| format!("status.loadBalancer.ingress[{index}].{name}");
        match (entry.ip.as_deref(), entry.ip_mode.as_deref()) {
            (None | Some(""), _) | (_, Some("Proxy")) => {}
            (Some(ip), None | Some("VIP")) => texts.push((field("ip"), ip)),
            (_, Some(_)) if conversion.rules() == Rules::Api => {}
            (_, Some(mode)) => {
                return Err(Rejected::new(field("ipMode"), format!("{mode:?} is not a mode: VIP and Proxy are")));
            }
        }
    }
    addresses(texts.into_iter(), conversion)
}

/// The addresses of a list, each once. kube-proxy leaves out what is no address; a manifest's author is told.
fn addresses<'a>(
    texts: impl Iterator<Item = (String, &'a str)>,
    conversion: &mut Conversion<'_>,
) -> Result<Vec<IpAddr>, Rejected> {
    let mut found = Vec::new();
    for (field, text) in texts {
        match address(text) {
            Ok(address) if !found.contains(&address) => found.push(address),
            Ok(_) => {}
            Err(BadAddress::Malformed(_)) if conversion.rules() == Rules::Api => {}
            Err(why) => conversion.forgive(Rejected::new(field, why.to_string()))?,
        }
    }
    Ok(found)
}

fn ports(raw: &[RawServicePort]) -> Result<Vec<ServicePort>, Rejected> {
    if raw.is_empty() {
        return Err(Rejected::new("spec.ports", "missing: a Service needs at least one port"));
    }
    let mut taken = Taken::default();
    let mut ports = Vec::with_capacity(raw.len());
    for (index, entry) in raw.iter().enumerate() {
        let port = service_port(entry, index, raw.len())?;
        taken.take(&port, index)?;
        ports.push(port);
    }
    Ok(ports)
}

fn service_port(raw: &RawServicePort, index: usize, count: usize) -> Result<ServicePort, Rejected> {
    let rejected = |name: &str, why| Rejected::new(format!("spec.ports[{index}].{name}"), why);
    let name = raw.name.as_deref().unwrap_or_default();
    if name.is_empty() && count > 1 {
        return Err(rejected("name", "missing: each of several ports needs a name".to_owned()));
    }
    let node_port = raw.node_port.as_ref().filter(|number| number.as_u64() != Some(0));
    let node_port = node_port.map(|number| port(Some(number)));
    Ok(ServicePort {
        name: shared_text(name),
        protocol: protocol(raw.protocol.as_deref()).map_err(|why| rejected("protocol", why))?,
        port: port(raw.port.as_ref()).map_err(|why| rejected("port", why))?,
        node_port: node_port.transpose().map_err(|why| rejected("nodePort", why))?,
    })
}

/// What a Service's ports have so far, and which of them has it.
#[derive(Default)]
struct Taken {
    names: HashMap<String, usize>,
    ports: HashMap<(Protocol, u16), usize>,
    node_ports: HashMap<(Protocol, u16), usize>,
}

impl Taken {
    fn take(&mut self, port: &ServicePort, index: usize) -> Result<(), Rejected> {
        let rejected = |name: &str, what: String, first: usize| {
            Rejected::new(format!("spec.ports[{index}].{name}"), format!("{what} is taken by spec.ports[{first}]"))
        };
        if let Some(first) = claim(&mut self.names, port.name.to_string(), index) {
            return Err(rejected("name", format!("{:?}", port.name), first));
        }
        let protocol = port.protocol;
        if let Some(first) = claim(&mut self.ports, (protocol, port.port), index) {
            return Err(rejected("port", format!("{protocol} port {}", port.port), first));
        }
        let Some(node_port) = port.node_port else { return Ok(()) };
        match claim(&mut self.node_ports, (protocol, node_port), index) {
            Some(first) => Err(rejected("nodePort", format!("{protocol} node port {node_port}"), first)),
            None => Ok(()),
        }
    }
}

fn affinity(spec: &RawServiceSpec, rules: Rules) -> Result<Option<u32>, Rejected> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(_) if rules == Rules::Api => return Ok(None),
        Some(other) => {
            let why = format!("{other:?} is not an affinity: None and ClientIP are");
            return Err(Rejected::new("spec.sessionAffinity", why));
        }
    }
    let Some(number) = &spec.session_affinity_config.client_ip.timeout_seconds else {
        return Ok(Some(AFFINITY_SECONDS));
    };
    let seconds = number.as_u64().filter(|seconds| (1..=AFFINITY_SECONDS_MAX).contains(seconds));
    let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok());
    seconds.map(Some).ok_or_else(|| {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        Rejected::new(field, format!("{number} is not a timeout: 1 to {AFFINITY_SECONDS_MAX} are"))
    })
}

fn has_frontend(service: &Service) -> Result<(), Rejected> {
    let addresses = [&service.cluster_ips, &service.external_ips, &service.load_balancer_ips];
    if addresses.iter().any(|list| !list.is_empty()) || has_node_port(&service.ports) {
        return Ok(());
    }
    Err(Rejected::new(
        "spec.clusterIP",
        "missing: a Service needs spec.clusterIP, spec.externalIPs, status.loadBalancer.ingress[].ip or \
         spec.ports[].nodePort",
    ))
}

fn has_node_port(ports: &[ServicePort]) -> bool {
    ports.iter().any(|port| port.node_port.is_some())
}
