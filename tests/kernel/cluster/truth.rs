//! What the kernel must hold for a cluster, said from the objects' JSON in the plainest way and without ipvsd.

use super::table::{Frontend, Server, Table};
use crate::objects::NODE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What the node adds to what the cluster says.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where node ports are.
    pub addresses: Vec<IpAddr>,
    pub zone: Option<String>,
    /// If somebody chose one.
    pub scheduler: Option<&'static str>,
}

/// Everything that is asked of the kernel.
pub fn truth(services: &[Value], slices: &[Value], node: &Node) -> Table {
    let mut table = Table::new();
    for service in services.iter().filter(|service| is_proxied(service)) {
        for port in list(&service["spec"]["ports"]) {
            for (address, number, policy) in ways_in(service, port, node) {
                let frontend = Frontend { protocol: flag(protocol(port)), address: SocketAddr::new(address, number) };
                let of_family = endpoints(service, port, slices, address.is_ipv4());
                let chosen = chosen(&of_family, policy, node);
                let options = format!("-s {}", scheduling(service, node));
                let destinations = chosen.into_iter().map(|(to, _)| (*to, "-m -w 1".to_owned())).collect();
                table.insert(frontend, Server { options, destinations });
            }
        }
    }
    table
}

fn is_proxied(service: &Value) -> bool {
    let cluster_ip = text(&service["spec"]["clusterIP"]);
    let has_other_proxy = !service["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"].is_null();
    !["", "None"].contains(&cluster_ip) && service["spec"]["type"] != "ExternalName" && !has_other_proxy
}

/// Address, port, and the traffic policy that holds there.
fn ways_in<'a>(service: &'a Value, port: &Value, node: &Node) -> Vec<(IpAddr, u16, &'a str)> {
    let spec = &service["spec"];
    let (internal, external) = (text(&spec["internalTrafficPolicy"]), text(&spec["externalTrafficPolicy"]));
    let own = number(&port["port"]);
    let mut ways: Vec<_> = addresses(&spec["clusterIPs"]).map(|address| (address, own, internal)).collect();
    ways.extend(addresses(&spec["externalIPs"]).map(|address| (address, own, external)));
    let ingress = list(&service["status"]["loadBalancer"]["ingress"]).iter();
    let vips = ingress.filter(|ingress| ingress["ipMode"] != "Proxy").filter_map(|ingress| address(&ingress["ip"]));
    ways.extend(vips.map(|address| (address, own, external)));
    if let node_port @ 1.. = number(&port["nodePort"]) {
        ways.extend(node.addresses.iter().map(|address| (*address, node_port, external)));
    }
    let families: Vec<_> = addresses(&spec["clusterIPs"]).map(|address| address.is_ipv4()).collect();
    ways.retain(|(address, ..)| families.contains(&address.is_ipv4()));
    ways
}

/// Each endpoint of a port with what its slice says of it.
fn endpoints<'a>(service: &Value, port: &Value, slices: &'a [Value], is_ipv4: bool) -> BTreeMap<SocketAddr, &'a Value> {
    let of_service = |slice: &&Value| {
        slice["metadata"]["namespace"] == service["metadata"]["namespace"]
            && slice["metadata"]["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
            && slice["addressType"] == if is_ipv4 { "IPv4" } else { "IPv6" }
    };
    let mut found = BTreeMap::new();
    for slice in slices.iter().filter(of_service) {
        let same_port =
            |target: &&Value| text(&target["name"]) == text(&port["name"]) && protocol(target) == protocol(port);
        for target in list(&slice["ports"]).iter().filter(same_port) {
            for endpoint in list(&slice["endpoints"]) {
                let at = SocketAddr::new(address(&endpoint["addresses"][0]).unwrap(), number(&target["port"]));
                found.insert(at, endpoint);
            }
        }
    }
    found
}

/// Those that get new connections.
fn chosen<'a>(
    all: &'a BTreeMap<SocketAddr, &'a Value>,
    policy: &str,
    node: &Node,
) -> Vec<(&'a SocketAddr, &'a &'a Value)> {
    let those = |wanted: &dyn Fn(&Value) -> bool| all.iter().filter(|(_, one)| wanted(one)).collect::<Vec<_>>();
    let reachable = |one: &Value| policy != "Local" || one["nodeName"] == NODE;
    let is_ready = |one: &Value| one["conditions"]["ready"] != false;
    let is_near = |one: &Value| hints(one).any(|zone| Some(zone) == node.zone.as_deref());
    let ready = those(&|one| reachable(one) && is_ready(one));
    let all_are_hinted = ready.iter().all(|(_, one)| hints(one).next().is_some());
    let near = those(&|one| is_ready(one) && is_near(one));
    if policy != "Local" && all_are_hinted && !near.is_empty() {
        near
    } else if ready.is_empty() {
        let is_leaving =
            |one: &Value| one["conditions"]["serving"] != false && one["conditions"]["terminating"] == true;
        those(&|one| reachable(one) && is_leaving(one))
    } else {
        ready
    }
}

fn hints(endpoint: &Value) -> impl Iterator<Item = &str> {
    list(&endpoint["hints"]["forZones"]).iter().map(|zone| text(&zone["name"]))
}

fn scheduling(service: &Value, node: &Node) -> String {
    let spec = &service["spec"];
    let seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_u64().unwrap_or(10_800);
    match (text(&spec["sessionAffinity"]), node.scheduler) {
        ("ClientIP", scheduler) => format!("{} -p {seconds}", scheduler.unwrap_or("rr")),
        (_, scheduler) => scheduler.unwrap_or("rr").to_owned(),
    }
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

fn flag(protocol: &str) -> &'static str {
    match protocol {
        "UDP" => "-u",
        "SCTP" => "--sctp-service",
        _ => "-t",
    }
}

fn addresses(values: &Value) -> impl Iterator<Item = IpAddr> {
    list(values).iter().filter_map(address)
}

fn address(value: &Value) -> Option<IpAddr> {
    text(value).parse().ok()
}

fn number(value: &Value) -> u16 {
    value.as_u64().unwrap_or_default().try_into().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
