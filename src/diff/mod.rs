//! What must change to get from what is found to what is wanted, in a safe order.
//!
//! Pure: two models in, operations out. The law, in `tests/converge.rs`: applying `diff(wanted, found)` to
//! `found` gives `wanted`, and `diff(x, x)` is empty.

pub mod flows;
mod netfilter;

use crate::model::netfilter::{Capacity, Mark, Member, RuleSettings, Set, SetKey};
use crate::model::{
    Destinations, Family, Leftover, LocalhostPath, Model, Op, RouteSpec, VirtualServer, VirtualServerKey,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The operations that turn `found` into `wanted`, sorted by phase and repeatable.
pub fn diff(wanted: &Model, found: &Model) -> Vec<Op> {
    let mut steps = Steps::default();
    pairs(&wanted.virtual_servers, &found.virtual_servers, |key, wanted, found| {
        steps.virtual_server(*key, wanted, found);
    });
    pairs(&wanted.routes, &found.routes, |vip, wanted, found| steps.route(*vip, wanted, found));
    if wanted.kube_proxy_device.is_none() && found.kube_proxy_device.is_some() {
        steps.remove_kube_proxy_device();
    }
    steps.kube_proxy_leftovers(&found.kube_proxy_leftovers, |leftover| wanted.kube_proxy_leftovers.contains(&leftover));
    pairs(&wanted.sets, &found.sets, |key, wanted, found| steps.set(*key, wanted, found));
    pairs(&wanted.rules, &found.rules, |family, wanted, found| steps.rules(*family, wanted, found));
    steps.localhost_path(wanted.localhost_path, found.localhost_path);
    steps.into_ops()
}

/// The operations for some objects, compared one by one.
#[derive(Debug, Default)]
pub struct Steps {
    /// In the order of comparing.
    ops: Vec<Op>,
}

impl Steps {
    /// Compares one virtual server.
    pub fn virtual_server(
        &mut self,
        key: VirtualServerKey,
        wanted: Option<&VirtualServer>,
        found: Option<&VirtualServer>,
    ) {
        virtual_server(key, wanted, found, &mut self.ops);
    }

    /// Compares the route of one VIP.
    pub fn route(&mut self, vip: IpAddr, wanted: Option<&RouteSpec>, found: Option<&RouteSpec>) {
        self.ops.extend(route(vip, wanted, found));
    }

    /// Removes kube-proxy's device, which never comes by us.
    pub fn remove_kube_proxy_device(&mut self) {
        self.ops.push(Op::RemoveKubeProxyDevice);
    }

    /// Compares what kube-proxy's other modes left with what of it stays. It never comes by us either.
    pub fn kube_proxy_leftovers(&mut self, found: &BTreeSet<Leftover>, stays: impl Fn(Leftover) -> bool) {
        let goes = found.iter().copied().filter(|leftover| !stays(*leftover));
        self.ops.extend(goes.map(Op::RemoveLeftover));
    }

    /// Compares a set with all its members.
    pub fn set(&mut self, key: SetKey, wanted: Option<&Set>, found: Option<&Set>) {
        netfilter::set(key, wanted, found, &mut self.ops);
    }

    /// Compares one member of a set, which is there whether wanted or not: each side's mark, if it has the member.
    pub fn member(&mut self, which: (SetKey, Member), wanted: Option<Option<Mark>>, found: Option<Option<Mark>>) {
        self.ops.extend(netfilter::member(which, wanted, found));
    }

    /// Gives a set another capacity, before members come that are compared later.
    pub fn resize(&mut self, key: SetKey, capacity: Capacity) {
        self.ops.push(Op::ResizeSet(key, capacity));
    }

    /// Compares the rules of a family.
    pub fn rules(&mut self, family: Family, wanted: Option<&RuleSettings>, found: Option<&RuleSettings>) {
        self.ops.extend(netfilter::rules(family, wanted, found));
    }

    /// Compares the rules of a family with all that was found: perhaps they are not whole, but in the way of removing sets.
    pub fn rules_in(&mut self, family: Family, wanted: Option<&RuleSettings>, found: &Model) {
        if wanted.is_none() && found.has_sets_of_ours(family) {
            self.ops.push(Op::RemoveRules(family));
        } else {
            self.rules(family, wanted, found.rules.get(&family));
        }
    }

    /// Compares the way from 127.0.0.1, which is wanted whole or not at all.
    pub fn localhost_path(&mut self, wanted: Option<LocalhostPath>, found: Option<LocalhostPath>) {
        self.ops.extend(match (wanted, found) {
            (Some(_), None | Some(LocalhostPath::Broken)) => Some(Op::MakeLocalhostPath),
            (None, Some(_)) => Some(Op::RemoveLocalhostPath),
            _ => None,
        });
    }

    /// All operations, sorted by phase.
    pub fn into_ops(mut self) -> Vec<Op> {
        self.ops.sort_by_key(Op::phase);
        self.ops
    }
}

fn virtual_server(
    key: VirtualServerKey,
    wanted: Option<&VirtualServer>,
    found: Option<&VirtualServer>,
    ops: &mut Vec<Op>,
) {
    let Some(wanted) = wanted else {
        // The kernel takes the destinations along.
        ops.extend(found.map(|_| Op::RemoveVirtualServer(key)));
        return;
    };
    match found {
        None => ops.push(Op::AddVirtualServer(key, wanted.spec)),
        Some(found) if found.spec != wanted.spec => ops.push(Op::UpdateVirtualServer(key, wanted.spec)),
        Some(_) => {}
    }
    let none = Destinations::default();
    let found = found.map_or(&none, |found| &found.destinations);
    pairs(&wanted.destinations, found, |destination, wanted, found| match (wanted, found) {
        (Some(spec), None) => ops.push(Op::AddDestination(key, *destination, *spec)),
        (Some(spec), Some(old)) if spec != old => ops.push(Op::UpdateDestination(key, *destination, *spec)),
        (None, Some(_)) => ops.push(Op::RemoveDestination(key, *destination)),
        _ => {}
    });
}

fn route(vip: IpAddr, wanted: Option<&RouteSpec>, found: Option<&RouteSpec>) -> Option<Op> {
    match (wanted, found) {
        (Some(spec), None) => Some(Op::AddRoute(vip, *spec)),
        (Some(spec), Some(old)) if spec != old => Some(Op::UpdateRoute(vip, *spec)),
        (None, Some(_)) => Some(Op::RemoveRoute(vip)),
        _ => None,
    }
}

/// Calls `visit` once for each key of either map, in order, with both values. Both iterate in the order of keys.
fn pairs<'a, K: Ord + 'a, V: 'a>(
    wanted: impl IntoIterator<Item = (&'a K, &'a V)>,
    found: impl IntoIterator<Item = (&'a K, &'a V)>,
    mut visit: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
) {
    let (mut wanted, mut found) = (wanted.into_iter().peekable(), found.into_iter().peekable());
    loop {
        let order = match (wanted.peek(), found.peek()) {
            (Some((w, _)), Some((f, _))) => w.cmp(f),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return,
        };
        let left = if order.is_le() { wanted.next() } else { None };
        let right = if order.is_ge() { found.next() } else { None };
        if let Some((key, _)) = left.or(right) {
            visit(key, left.map(|(_, value)| value), right.map(|(_, value)| value));
        }
    }
}
