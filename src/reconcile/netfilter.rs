//! Netfilter's part of a pass: rules as the settings say, sets as the Services say, each compared as a whole when
//! everything was read, and member by member in between.

use crate::desired::netfilter::Claims;
use crate::desired::netfilter::claims::Place;
use crate::diff::Steps;
use crate::model::netfilter::{Capacity, Mark, Member, RuleSettings, Set, SetKey, SetKind};
use crate::model::{Family, Model};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is wanted of netfilter besides the members of sets, and what was found.
#[derive(Debug)]
pub struct Netfilter<'a> {
    /// The rules that each family should have; none where ipvsd keeps off netfilter.
    pub rules: BTreeMap<Family, RuleSettings>,
    /// Whether something in the input may be missing.
    pub is_in_doubt: bool,
    /// Whether what kube-proxy left is ours to take though nothing of ours stands in for it.
    pub cleans_up: bool,
    /// What is there of ours.
    pub found: &'a Model,
}

impl Netfilter<'_> {
    /// Compares the rules, and the sets with the members that are asked for. Of the sets of VIPs what is found stays:
    /// [`Netfilter::vip`] compares it.
    pub fn compare_all(&self, members: impl Fn(SetKey) -> BTreeMap<Member, Option<Mark>>, steps: &mut Steps) {
        for key in SetKey::all() {
            let found = self.found.sets.get(&key);
            if self.rules.contains_key(&key.family) {
                steps.set(key, Some(&self.wanted_set(key, members(key))), found);
            } else {
                // Where ours are not, they are kube-proxy's.
                let goes = self.found.has_sets_of_ours(key.family) || self.cleans_up;
                steps.set(key, None, found.filter(|_| goes));
            }
        }
        self.compare_rules(steps);
    }

    /// Compares the rules, and these members of sets.
    pub fn compare_touched(&self, touched: &BTreeSet<Place>, claims: &Claims, steps: &mut Steps) {
        self.make_room(touched, claims, steps);
        for place in touched {
            steps.member(*place, claims.member(*place), self.found_member(*place));
        }
        self.compare_rules(steps);
    }

    /// Compares whether an address is in the set of VIPs.
    pub fn vip(&self, address: IpAddr, is_routed: bool, steps: &mut Steps) {
        let key = SetKey { kind: SetKind::Vips, family: Family::of(address) };
        let place = (key, Member::Address(address));
        // A set that goes takes its members along.
        if self.rules.contains_key(&key.family) {
            steps.member(place, is_routed.then_some(None), self.found_member(place));
        }
    }

    /// The addresses in the sets of VIPs.
    pub fn found_vips(&self) -> impl Iterator<Item = IpAddr> {
        let sets = [Family::Ipv4, Family::Ipv6].map(|family| SetKey { kind: SetKind::Vips, family });
        let members = sets.into_iter().filter_map(|key| self.found.sets.get(&key)).flat_map(|set| set.members.keys());
        members.filter_map(|member| if let Member::Address(address) = member { Some(*address) } else { None })
    }

    /// Whether what kube-proxy left for a family may go: where we keep off netfilter, nobody stands in.
    pub fn replaces_kube_proxy(&self, family: Family) -> bool {
        self.cleans_up || self.rules.contains_key(&family)
    }

    fn compare_rules(&self, steps: &mut Steps) {
        for family in [Family::Ipv4, Family::Ipv6] {
            steps.rules_in(family, self.rules.get(&family), self.found);
        }
    }

    /// A set of which these members are asked for.
    fn wanted_set(&self, key: SetKey, mut members: BTreeMap<Member, Option<Mark>>) -> Set {
        let found = self.found.sets.get(&key);
        if key.kind == SetKind::Vips {
            // These are decided with the routes.
            members = found.map(|set| set.members.clone()).unwrap_or_default();
        } else if self.is_in_doubt {
            // What cannot be judged stays.
            for (member, mark) in found.into_iter().flat_map(|set| &set.members) {
                members.entry(*member).or_insert(*mark);
            }
        }
        Set::with(key.kind, members).no_smaller_than(found)
    }

    /// Resizes sets that are about to be full.
    fn make_room(&self, touched: &BTreeSet<Place>, claims: &Claims, steps: &mut Steps) {
        let keys: BTreeSet<_> = touched.iter().map(|(key, _)| *key).collect();
        for key in keys {
            let needed = Capacity::for_members(key.kind, claims.count(key));
            if self.found.sets.get(&key).is_some_and(|found| found.capacity < needed) {
                steps.resize(key, needed);
            }
        }
    }

    fn found_member(&self, (key, member): Place) -> Option<Option<Mark>> {
        self.found.sets.get(&key)?.members.get(&member).copied()
    }
}
