//! Explanations as text, for people.

use super::explained::{Explained, InKernel, InUse};
use crate::inspect::ServiceAnswer;
use crate::inspect::form::{Drain, Server};
use crate::inspect::service::{Endpoint, Judgement, Kind, Policy, Port, Way};
use crate::model::VirtualServerKey;
use crate::state::OneLine;
use std::net::SocketAddr;

/// A Service, or what the kernel has at one of its frontends.
pub fn service(explained: &Explained) -> String {
    let Explained { service, kernel, differences } = explained;
    let mut text = String::new();
    match service {
        Some(service) => decided(&mut text, service),
        None => line(&mut text, format_args!("no daemon knows whose this is; the kernel alone:")),
    }
    line(&mut text, format_args!("in the kernel{}", if kernel.is_empty() { ": nothing" } else { "" }));
    let drains = service.as_ref().map_or(&[][..], |service| &service.drains);
    kernel.iter().for_each(|server| in_kernel(&mut text, server, drains));
    if !differences.is_empty() {
        line(&mut text, format_args!("what it lacks of what should be"));
        differences.iter().for_each(|op| line(&mut text, format_args!("  {op}")));
    }
    for problem in service.iter().flat_map(|service| &service.problems) {
        line(&mut text, format_args!("problem: {}", OneLine(problem)));
    }
    text
}

fn decided(text: &mut String, service: &ServiceAnswer) {
    line(text, format_args!("Service {}/{}", OneLine(&service.namespace), OneLine(&service.name)));
    for port in &service.ports {
        let Port { name, protocol, port: number, family, frontends, endpoints, endpoints_without_port } = port;
        let name = if name.is_empty() { String::new() } else { format!(" {}", OneLine(name)) };
        let (protocol, family) = (crate::model::Protocol::from(*protocol), crate::model::Family::from(*family));
        line(text, format_args!("port{name} {number}/{protocol} {family}"));
        frontends.iter().for_each(|frontend| way(text, frontend));
        let chosen = endpoints.iter().filter(|endpoint| verdict(endpoint).is_none()).count();
        line(text, format_args!("  endpoints: {}, of which {chosen} get traffic by every way", endpoints.len()));
        endpoints.iter().for_each(|one| endpoint(text, one));
        if *endpoints_without_port > 0 {
            let lacking = "more endpoints are in slices that have no port of this name and protocol";
            line(text, format_args!("    {endpoints_without_port} {lacking}"));
        }
    }
}

fn way(text: &mut String, way: &Way) {
    let kind = match way.kind {
        Kind::ClusterIp => "cluster IP",
        Kind::ExternalIp => "external IP",
        Kind::LoadBalancerIp => "load-balancer IP",
        Kind::NodePort => "node port",
    };
    let policy = match way.policy {
        Policy::Cluster => "",
        Policy::Local => ", policy Local",
    };
    let holder = way.holder.as_ref().map(|holder| format!(", which Service {} has", OneLine(holder)));
    let foreign = if way.foreign { ", which a virtual server has that ipvsd did not make" } else { "" };
    let at = SocketAddr::new(way.address, way.port);
    line(text, format_args!("  {kind} {at}{policy}{}{foreign}", holder.unwrap_or_default()));
}

fn endpoint(text: &mut String, endpoint: &Endpoint) {
    let at = SocketAddr::new(endpoint.address, endpoint.port);
    let name = endpoint.name.as_ref().map(|name| format!(" {}", OneLine(name))).unwrap_or_default();
    let place = if endpoint.local { " on this node" } else { "" };
    let verdict = verdict(endpoint).unwrap_or_else(|| match endpoint.cluster.or(endpoint.local_policy) {
        Some(Judgement::LastResort) => "gets traffic while it terminates: no other is left".into(),
        _ => "gets traffic".into(),
    });
    line(text, format_args!("    {at}{name}{place}: {verdict}"));
}

/// What stands against an endpoint by one way or the other; none if nothing does.
fn verdict(endpoint: &Endpoint) -> Option<String> {
    let against = |judgement: Option<Judgement>| judgement.filter(|judgement| !judgement.is_chosen()).map(reason);
    match (against(endpoint.cluster), against(endpoint.local_policy)) {
        (None, None) => None,
        (Some(why), Some(other)) if why == other => Some(format!("no traffic: {why}")),
        (Some(why), Some(other)) => Some(format!("no traffic: {why}; by policy Local: {other}")),
        (Some(why), None) if endpoint.local_policy.is_none() => Some(format!("no traffic: {why}")),
        (Some(why), None) => Some(format!("traffic by policy Local only: {why}")),
        (None, Some(why)) if endpoint.cluster.is_none() => Some(format!("no traffic: {why}")),
        (None, Some(why)) => Some(format!("no traffic by policy Local: {why}")),
    }
}

fn reason(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Chosen | Judgement::LastResort => "it gets traffic",
        Judgement::OnOtherNode => "it is on another node",
        Judgement::ForOtherNodes => "its hints are for other nodes",
        Judgement::ForOtherZones => "its hints are for other zones",
        Judgement::NotReady => "it is not ready",
        Judgement::Terminating => "it terminates",
    }
}

fn in_kernel(text: &mut String, server: &InKernel, drains: &[Drain]) {
    let foreign = if server.managed { "" } else { ", not made by ipvsd" };
    line(text, format_args!("  {} {}{foreign}", key(server.server), server.scheduler));
    for one in &server.destinations {
        let InUse { address, port, weight, active_connections, inactive_connections } = *one;
        let is_this = |drain: &&Drain| {
            (drain.server, drain.destination, drain.destination_port) == (server.server, address, port)
        };
        let drains = drains.iter().find(is_this).map(|drain| format!(", drains {} s at most", drain.seconds_left));
        line(
            text,
            format_args!(
                "    {} weight {weight}, connections: {active_connections} active, {inactive_connections} inactive{}",
                SocketAddr::new(address, port),
                drains.unwrap_or_default()
            ),
        );
    }
    if server.destinations.iter().all(|one| one.weight == 0) {
        line(text, format_args!("    no destination takes connections: they are refused"));
    }
}

/// A virtual server as it is written everywhere else.
pub fn key(server: Server) -> VirtualServerKey {
    server.into()
}

/// Adds a line.
pub fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    *text += &format!("{what}\n");
}
