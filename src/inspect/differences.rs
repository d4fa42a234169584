//! What would change in a kernel by what is wanted, as the next pass of the daemon would decide it.

use super::form::Malformed;
use super::{ServiceAnswer, Wanted};
use crate::desired::Drains;
use crate::desired::drain::{Moment, Occasion};
use crate::desired::routes::{self, Standing};
use crate::diff::Steps;
use crate::kernel::Observation;
use crate::model::netfilter::{Member, Set, SetKey, SetKind};
use crate::model::{DestinationKey, Family, Model, Op, RouteSpec, VirtualServerKey};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The operations that the next pass would apply to what was found, which was read just now. Of kube-proxy's device
/// nothing is said.
pub fn differences(wanted: &Wanted, found: &Observation) -> Vec<Op> {
    let mut steps = Steps::default();
    let served = compare_servers(wanted, found, &mut steps);
    let vips = compare_routes(wanted, found, &served, &mut steps);
    // Where it keeps off netfilter, what is there is none of its business.
    for family in [Family::Ipv4, Family::Ipv6].into_iter().filter(|_| !wanted.model.rules.is_empty()) {
        compare_netfilter(wanted, found, (family, &vips), &mut steps);
    }
    if let Some(is_wanted) = wanted.localhost_path {
        steps.localhost_path(is_wanted, found.model.localhost_path);
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

/// Returns the addresses that have a route then.
fn compare_routes(
    wanted: &Wanted,
    found: &Observation,
    served: &BTreeSet<IpAddr>,
    steps: &mut Steps,
) -> BTreeSet<IpAddr> {
    let found = &found.model.routes;
    let mut vips = BTreeSet::new();
    for vip in served.iter().chain(found.keys()).collect::<BTreeSet<_>>() {
        let is_served = served.contains(vip);
        let is_vip = wanted.model.routes.contains_key(vip) || found.contains_key(vip);
        let standing = Standing { is_served, is_vip, is_elsewhere: wanted.elsewhere.contains(vip) };
        let route = routes::route(*vip, standing, &wanted.node);
        steps.route(*vip, route.as_ref(), found.get(vip));
        vips.extend(route.map(|_| *vip));
    }
    vips
}

fn compare_netfilter(
    wanted: &Wanted,
    found: &Observation,
    (family, vips): (Family, &BTreeSet<IpAddr>),
    steps: &mut Steps,
) {
    let found = &found.model;
    let settings = wanted.model.rules.get(&family);
    let is_ours = found.has_sets_of_ours(family);
    for key in SetKey::all().filter(|key| key.family == family) {
        let there = found.sets.get(&key);
        match settings {
            Some(_) => steps.set(key, Some(&set(wanted, key, (there, vips))), there),
            None => steps.set(key, None, there.filter(|_| is_ours)),
        }
    }
    steps.rules_in(family, settings, found);
}

fn set(wanted: &Wanted, key: SetKey, (found, vips): (Option<&Set>, &BTreeSet<IpAddr>)) -> Set {
    let mut members = wanted.model.sets.get(&key).map(|set| set.members.clone()).unwrap_or_default();
    if key.kind == SetKind::Vips {
        let of_family = vips.iter().filter(|vip| Family::of(**vip) == key.family);
        members = of_family.map(|vip| (Member::Address(*vip), None)).collect();
    } else if wanted.in_doubt {
        for (member, mark) in found.into_iter().flat_map(|set| &set.members) {
            members.entry(*member).or_insert(*mark);
        }
    }
    Set::with(key.kind, members).no_smaller_than(found)
}
