//! What a Service says of traffic from outside and inside: its policies, its health check and who may come.

use super::context::Rules;
use super::raw::RawServiceSpec;
use super::{Rejected, port};
use crate::model::address::range;
use crate::model::{Family, Protocol};
use crate::state::{ServicePort, TrafficPolicy};
use ipnet::IpNet;

const EXTERNAL: &str = "spec.externalTrafficPolicy";
const HEALTH_CHECK: &str = "spec.healthCheckNodePort";

/// The policy of the cluster IPs.
pub(super) fn internal(spec: &RawServiceSpec, rules: Rules) -> Result<TrafficPolicy, Rejected> {
    policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), rules)
}

/// The policy of all other frontends, which a Service without any must not have.
pub(super) fn external(
    spec: &RawServiceSpec,
    has_external_frontend: bool,
    rules: Rules,
) -> Result<TrafficPolicy, Rejected> {
    let text = spec.external_traffic_policy.as_deref().filter(|text| !text.is_empty());
    let is_accessible = has_external_frontend || matches!(spec.kind.as_deref(), Some("NodePort" | "LoadBalancer"));
    if rules == Rules::Manifest && text.is_some() && !is_accessible {
        let message = "is for spec.externalIPs, status.loadBalancer.ingress[].ip and spec.ports[].nodePort: there are \
                       none";
        return Err(Rejected::new(EXTERNAL, message));
    }
    policy(EXTERNAL, text, rules)
}

/// The API server's default is `Cluster`, and that is what kube-proxy makes of a policy that it does not know.
fn policy(field: &str, text: Option<&str>, rules: Rules) -> Result<TrafficPolicy, Rejected> {
    match text {
        Some("Local") => Ok(TrafficPolicy::Local),
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some(_) if rules == Rules::Api => Ok(TrafficPolicy::Cluster),
        Some(other) => Err(Rejected::new(field, format!("{other:?} is not a policy: Cluster and Local are"))),
    }
}

/// The port where load balancers ask for local endpoints: only they ask, and only the policy `Local` gives them
/// reason to.
pub(super) fn health_check_node_port(
    spec: &RawServiceSpec,
    external: TrafficPolicy,
    ports: &[ServicePort],
    rules: Rules,
) -> Result<Option<u16>, Rejected> {
    let rejected = |why: String| Rejected::new(HEALTH_CHECK, why);
    let Some(number) = spec.health_check_node_port.as_ref().filter(|number| number.as_u64() != Some(0)) else {
        return Ok(None);
    };
    let is_asked = is_load_balancer(spec) && external == TrafficPolicy::Local;
    if rules == Rules::Api {
        return Ok(port(Some(number)).ok().filter(|_| is_asked));
    }
    let found = port(Some(number)).map_err(rejected)?;
    if !is_asked {
        return Err(rejected(format!("needs spec.type LoadBalancer and {EXTERNAL} Local")));
    }
    let is_taken = |port: &ServicePort| port.node_port == Some(found) && port.protocol == Protocol::Tcp;
    match ports.iter().position(is_taken) {
        Some(index) => Err(rejected(format!("tcp node port {found} is taken by spec.ports[{index}]"))),
        None => Ok(Some(found)),
    }
}

/// Which clients may use the load balancer's addresses. A range of everything makes the others of its family
/// meaningless, and kube-proxy's answer to a family without ranges is that everybody may.
pub(super) fn source_ranges(spec: &RawServiceSpec, rules: Rules) -> Result<Vec<IpNet>, Rejected> {
    let mut ranges = Vec::with_capacity(spec.load_balancer_source_ranges.len());
    for (index, text) in spec.load_balancer_source_ranges.iter().enumerate() {
        match range(text.trim()) {
            Some(range) => ranges.push(range),
            None if rules == Rules::Api => {}
            None => {
                let message = format!("{text:?} is not an address range such as 192.0.2.0/24");
                return Err(Rejected::new(format!("spec.loadBalancerSourceRanges[{index}]"), message));
            }
        }
    }
    if rules == Rules::Manifest && !ranges.is_empty() && !is_load_balancer(spec) {
        return Err(Rejected::new("spec.loadBalancerSourceRanges", "needs spec.type LoadBalancer"));
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let is_of_family = |range: &IpNet| Family::of(range.addr()) == family;
        if ranges.iter().any(|range| is_of_family(range) && range.prefix_len() == 0) {
            ranges.retain(|range| !is_of_family(range));
        }
    }
    Ok(ranges)
}

fn is_load_balancer(spec: &RawServiceSpec) -> bool {
    spec.kind.as_deref() == Some("LoadBalancer")
}
