//! Which VIPs are local addresses by a route of ours, and which source the node's own traffic to them has.

use crate::model::{Family, RouteSpec};
use crate::state::Node;
use std::net::IpAddr;

/// What stands on an address.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// A virtual server is there, or only drains there.
    pub is_served: bool,
    /// A Service asks for the address, or its route is there already.
    pub is_vip: bool,
    /// An endpoint or an API server has the address as its own, and no Service as its cluster IP.
    pub is_elsewhere: bool,
}

/// The route that an address should have. One that is the node's own anyway needs none. What only drains keeps its
/// route and gets none: an address that the node lost may be another node's by now. One that is known to be another's gets
/// none, as it would cut this node off from the other one; packets to it go there, where it is served as its own.
pub fn route(address: IpAddr, standing: Standing, node: &Node) -> Option<RouteSpec> {
    let is_ours = standing.is_vip && !standing.is_elsewhere && !node.addresses.contains(&address);
    let needs_one = standing.is_served && is_ours;
    needs_one.then(|| RouteSpec { preferred_source: node.primary(Family::of(address)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_routed_while_it_is_served_and_not_the_nodes_own() {
        let (vip, own): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let node = Node { addresses: [own].into(), primary_ipv4: Some(own), primary_ipv6: None };
        let standing = |is_served, is_vip| Standing { is_served, is_vip, is_elsewhere: false };
        let routed = Some(RouteSpec { preferred_source: Some(own) });
        assert_eq!(route(vip, standing(true, true), &node), routed);
        assert_eq!(route(vip, standing(false, true), &node), None);
        assert_eq!(route(vip, standing(true, false), &node), None, "it only drains on an address that was lost");
        assert_eq!(route(own, standing(true, true), &node), None);
        assert_eq!(route(vip, Standing { is_elsewhere: true, ..standing(true, true) }, &node), None);
        let six = "fd00::1".parse().unwrap();
        assert_eq!(route(six, standing(true, true), &node), Some(RouteSpec { preferred_source: None }));
    }
}
