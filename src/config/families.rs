//! What the configuration says of IP families, against the families that the node turns out to have.
//!
//! Most of it is only told: a cluster that is moved from one family to two has halves of both for a while. As in
//! kube-proxy, what leaves no way to tell the node's own pods is an error. What the Node object says comes later, may
//! change, and is told where it is used (`desired/netfilter`).

use super::Config;
use super::network::DetectLocal;
use crate::desired::NodePortAddresses;
use crate::model::Family;
use crate::reconcile::Takeover;
use ipnet::IpNet;
use std::net::SocketAddr;

/// The families of the node.
#[derive(Clone, Copy, Debug)]
pub struct Families {
    /// That of its primary address.
    pub primary: Family,
    /// Whether the kernel can do the other one too.
    pub both: bool,
}

/// No pod of this node could be told from any other traffic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, so no pod of this node could be told")]
pub struct Mismatch(String);

/// What the operator should know, a sentence each.
///
/// # Errors
/// [`Mismatch`] if local pods are to be told by CIDRs, and all of these are of a family that does not count.
pub fn check(config: &Config, families: &Families) -> Result<Vec<String>, Mismatch> {
    let mut found = Vec::from_iter(node_ports(config, families));
    if families.all_wrong(cluster_cidr(config)) {
        let sentence = format!("the node is {}, and clusterCIDR has only {}", families.name(), families.wrong().name());
        if !families.both {
            return Err(Mismatch(sentence));
        }
        found.push(sentence);
    }
    if !families.both {
        found.extend(wrong_alone(config, families));
    }
    Ok(found)
}

/// A family without a CIDR of its own has node ports on all its addresses.
fn node_ports(config: &Config, families: &Families) -> Option<String> {
    let cidrs = match &config.settings.node_ports {
        NodePortAddresses::Primary => return None,
        NodePortAddresses::Any => {
            let advice = "`nodePortAddresses: [primary]` has them on the node's primary ones only";
            return Some(format!("node ports are on all addresses of the node; {advice}"));
        }
        NodePortAddresses::Within(cidrs) => cidrs,
    };
    let of = |family| cidrs.iter().any(|cidr| Family::of(cidr.addr()) == family);
    let open = if !of(families.primary) {
        families.primary
    } else if !of(families.wrong()) && is_dual_stack(config) {
        families.wrong()
    } else {
        return None;
    };
    Some(format!("nodePortAddresses has no {0}: node ports are on all {0} addresses of the node", open.name()))
}

/// Whether anything in the configuration is of both families.
fn is_dual_stack(config: &Config) -> bool {
    let has_both = |cidrs: &[IpNet]| {
        [Family::Ipv4, Family::Ipv6].iter().all(|family| cidrs.iter().any(|cidr| Family::of(cidr.addr()) == *family))
    };
    [cluster_cidr(config), excluded(config)].into_iter().any(has_both)
}

/// Where it counts.
fn cluster_cidr(config: &Config) -> &[IpNet] {
    match &config.detect_local {
        DetectLocal::ClusterCidr(cidrs) => cidrs,
        _ => &[],
    }
}

/// What is of a family that the node does not have.
fn wrong_alone<'a>(config: &'a Config, families: &'a Families) -> impl Iterator<Item = String> + 'a {
    let is_wrong = |socket: &SocketAddr| Family::of(socket.ip()) == families.wrong() && !socket.ip().is_unspecified();
    let healthz = config.servers.healthz.filter(is_wrong).map(|_| "healthzBindAddress");
    let metrics = config.servers.metrics.filter(is_wrong).map(|_| "metricsBindAddress");
    let excluded = families.all_wrong(excluded(config)).then_some("ipvs.excludeCIDRs");
    let fields = [healthz, metrics, excluded].into_iter().flatten();
    fields.map(|field| format!("the node is {}, and {field} is {}", families.name(), families.wrong().name()))
}

fn excluded(config: &Config) -> &[IpNet] {
    match &config.options.takeover {
        Takeover::AllBut(excluded) => excluded,
        Takeover::Nothing => &[],
    }
}

impl Families {
    /// The family that is not the primary one.
    fn wrong(&self) -> Family {
        match self.primary {
            Family::Ipv4 => Family::Ipv6,
            Family::Ipv6 => Family::Ipv4,
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.primary.name(), if self.both { "primary" } else { "only" })
    }

    fn all_wrong(&self, cidrs: &[IpNet]) -> bool {
        !cidrs.is_empty() && cidrs.iter().all(|cidr| Family::of(cidr.addr()) == self.wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kube_proxy;
    use crate::config::resolve::{Request, resolve};

    const QUIET: &str = "mode: ipvs\nnodePortAddresses: [primary]\nmetricsBindAddress: 0.0.0.0\n";

    fn told(fields: &str, (primary, both): (Family, bool)) -> Result<Vec<String>, Mismatch> {
        let header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let mut effective = kube_proxy::parse(&format!("{header}{fields}")).unwrap().object;
        effective.set_platform_defaults();
        let config = resolve(Request { effective, ..Request::default() }).unwrap();
        check(&config, &Families { primary, both })
    }

    #[test]
    fn open_node_ports_are_told() {
        let open =
            |family| format!("nodePortAddresses has no {family}: node ports are on all {family} addresses of the node");
        let all = "node ports are on all addresses of the node; `nodePortAddresses: [primary]` has them on the node's primary ones only";
        for (fields, wanted) in [
            ("", Some(all.to_owned())),
            ("nodePortAddresses: [primary]", None),
            ("nodePortAddresses: [10.0.0.0/8]", None),
            ("nodePortAddresses: [10.0.0.0/8]\nclusterCIDR: 10.0.0.0/8,fd00::/8", Some(open("IPv6"))),
            ("nodePortAddresses: [10.0.0.0/8, \"fd00::/8\"]\nclusterCIDR: 10.0.0.0/8,fd00::/8", None),
            ("nodePortAddresses: [\"fd00::/8\"]", Some(open("IPv4"))),
        ] {
            let found = told(&format!("mode: ipvs\n{fields}"), (Family::Ipv4, true)).unwrap();
            assert_eq!(found, Vec::from_iter(wanted), "{fields}");
        }
    }

    #[test]
    fn cidrs_of_the_wrong_family_are_told_or_end_it() {
        let (v4_only, v6_only, v6_primary) = ((Family::Ipv4, false), (Family::Ipv6, false), (Family::Ipv6, true));
        for (fields, node, wanted) in [
            ("clusterCIDR: fd00::/8", v6_only, Ok(0)),
            ("clusterCIDR: fd00::/8", v4_only, Err(())),
            ("clusterCIDR: 10.0.0.0/8", v6_primary, Ok(1)),
            ("clusterCIDR: 10.0.0.0/8,fd00::/8", v6_only, Ok(0)),
            ("detectLocalMode: NodeCIDR\nclusterCIDR: fd00::/8", v4_only, Ok(0)),
            ("detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: b}", v4_only, Ok(0)),
            ("ipvs: {excludeCIDRs: [10.0.0.0/8]}", v6_only, Ok(1)),
            ("ipvs: {excludeCIDRs: [10.0.0.0/8]}", v6_primary, Ok(0)),
            ("healthzBindAddress: \"[fd00::1]:1\"\nmetricsBindAddress: \"[fd00::1]:2\"", v4_only, Ok(2)),
            ("healthzBindAddress: \"[::]:1\"\nmetricsBindAddress: 127.0.0.1", v4_only, Ok(0)),
        ] {
            let found = told(&format!("{QUIET}{fields}"), node);
            assert_eq!(found.map(|found| found.len()).map_err(drop), wanted, "{fields}");
        }
        let error = told(&format!("{QUIET}clusterCIDR: fd00::/8"), v4_only).unwrap_err().to_string();
        assert_eq!(error, "the node is IPv4-only, and clusterCIDR has only IPv6, so no pod of this node could be told");
    }
}
