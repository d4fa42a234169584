//! What would change in a kernel by what is wanted, as the next pass of the daemon would decide it.

use super::form::Malformed;
use super::{ServiceAnswer, Wanted};
use crate::desired::Drains;
use crate::desired::drain::{Moment, Occasion};
use crate::desired::routes::{self, Standing};
use crate::diff::Steps;
use crate::kernel::Observation;
use crate::model::{DestinationKey, LocalhostPath, Model, Op, RouteSpec, VirtualServerKey};
use crate::reconcile::Netfilter;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The operations that the next pass would apply to what was found, which was read just now. Of kube-proxy's device
/// nothing is said.
pub fn differences(wanted: &Wanted, found: &Observation) -> Vec<Op> {
    let mut steps = Steps::default();
    let served = compare_servers(wanted, found, &mut steps);
    let netfilter = Netfilter {
        rules: wanted.model.rules.clone(),
        is_in_doubt: wanted.in_doubt,
        cleans_up: false,
        found: &found.model,
    };
    // Where it keeps off netfilter, what is there is none of its business.
    if !netfilter.rules.is_empty() {
        let members = |key| wanted.model.sets.get(&key).map(|set| set.members.clone());
        netfilter.compare_all(|key| members(key).unwrap_or_default(), &mut steps);
    }
    compare_addresses(wanted, &served, &netfilter, &mut steps);
    if let Some(is_wanted) = wanted.localhost_path {
        steps.localhost_path(is_wanted.then_some(LocalhostPath::Whole), found.model.localhost_path);
    }
    steps.into_ops()
}

/// The operations that would make a Service's virtual servers and routes what they should be; what departs may stay.
///
/// # Errors
/// The answer cannot be understood.
pub fn of_service(wanted: &ServiceAnswer, found: &Model) -> Result<Vec<Op>, Malformed> {
    let mut steps = Steps::default();
    for form in &wanted.virtual_servers {
        let (key, mut server) = form.to_model()?;
        let found = found.virtual_servers.get(&key);
        for drain in wanted.drains.iter().filter(|drain| VirtualServerKey::from(drain.server) == key) {
            let departing = DestinationKey { address: drain.destination, port: drain.destination_port };
            let there = found.and_then(|found| found.destinations.get(&departing));
            server.destinations.extend(there.map(|spec| (departing, spec.drained())));
        }
        steps.virtual_server(key, Some(&server), found);
    }
    for (vip, route) in wanted.routes.iter().map(|route| <(IpAddr, RouteSpec)>::from(*route)) {
        steps.route(vip, Some(&route), found.routes.get(&vip));
    }
    Ok(steps.into_ops())
}

/// Returns the addresses on which a virtual server stays.
fn compare_servers(wanted: &Wanted, found: &Observation, steps: &mut Steps) -> BTreeSet<IpAddr> {
    let mut drains = Drains::default();
    let occasion = |key: &VirtualServerKey| Occasion {
        now: Moment::ZERO,
        timeout: wanted.drain_timeouts.get(key).copied().unwrap_or(wanted.drain_timeout),
        linger: wanted.linger,
        counted: Some(&found.connections),
    };
    let lingers = |key: &VirtualServerKey| wanted.lingering.contains(key);
    let (servers, ours) = (&wanted.model.virtual_servers, &found.model.virtual_servers);
    let keys: BTreeSet<&VirtualServerKey> = servers.keys().chain(ours.keys()).collect();
    let mut served = BTreeSet::new();
    for key in keys.into_iter().filter(|key| !found.foreign.contains(key)) {
        let found = ours.get(key);
        if lingers(key) && !servers.contains_key(key) {
            served.extend(key.address());
            continue;
        }
        let kept = drains.keep(*key, (servers.get(key), found), occasion(key));
        served.extend(kept.as_ref().and_then(|_| key.address()));
        steps.virtual_server(*key, kept.as_deref(), found);
    }
    served
}

/// Compares the routes of these addresses and of those that have one, and the sets of VIPs.
fn compare_addresses(wanted: &Wanted, served: &BTreeSet<IpAddr>, netfilter: &Netfilter<'_>, steps: &mut Steps) {
    let routes = &netfilter.found.routes;
    let others = routes.keys().copied().chain(netfilter.found_vips());
    for address in served.iter().copied().chain(others).collect::<BTreeSet<_>>() {
        let standing = Standing {
            is_served: served.contains(&address),
            is_vip: wanted.model.routes.contains_key(&address) || routes.contains_key(&address),
            is_elsewhere: wanted.elsewhere.contains(&address),
        };
        let route = routes::route(address, standing, &wanted.node);
        steps.route(address, route.as_ref(), routes.get(&address));
        netfilter.vip(address, route.is_some(), steps);
    }
}
