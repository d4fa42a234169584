//! Netfilter's part of a pass: rules as the settings say, sets as the Services say, each compared as a whole when
//! everything was read, and member by member in between.

use crate::desired::NetfilterSettings;
use crate::desired::netfilter::claims::Place;
use crate::desired::netfilter::{Claims, rules};
use crate::diff::Steps;
use crate::model::netfilter::{Capacity, Mark, Member, Set, SetKey, SetKind};
use crate::model::{Family, Model};
use crate::state::State;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What is wanted, and what was found.
pub struct Netfilter<'a> {
    /// None where ipvsd keeps off netfilter.
    pub settings: Option<&'a NetfilterSettings>,
    /// For what the cluster says of this node, and whether something in the input may be missing.
    pub state: &'a State,
    /// What is there of ours.
    pub found: &'a Model,
    /// Whether what kube-proxy left is ours to take.
    pub takes_over: bool,
    /// Whether rules are to lead from 127.0.0.1 to node ports.
    pub leads_from_localhost: bool,
}

impl Netfilter<'_> {
    /// Compares the rules, and of the sets the members that were touched; none is everything.
    pub fn decide(&self, claims: &Claims, touched: Option<BTreeSet<Place>>, steps: &mut Steps) {
        let wanted = rules(self.settings, self.state, self.leads_from_localhost);
        match touched {
            Some(touched) => {
                self.make_room(&touched, claims, steps);
                for place in touched {
                    steps.member(place, claims.member(place), self.found_member(place));
                }
            }
            None => {
                let claims = |key: &SetKey| wanted.contains_key(&key.family).then_some(claims);
                SetKey::all().for_each(|key| self.compare_set(key, claims(&key), steps));
            }
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            steps.rules_in(family, wanted.get(&family), self.found);
        }
    }

    /// Compares whether an address is in the set of VIPs.
    pub fn vip(&self, address: IpAddr, is_routed: bool, steps: &mut Steps) {
        let key = SetKey { kind: SetKind::Vips, family: Family::of(address) };
        let place = (key, Member::Address(address));
        // A set that goes takes its members along.
        if self.settings.is_some_and(|settings| settings.families.contains(key.family)) {
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
        self.settings.map_or(self.takes_over, |settings| settings.families.contains(family))
    }

    /// Whoever keeps off netfilter reads nothing of it; where something was read and nothing is wanted, all is to go.
    fn cleans_up_after_kube_proxy(&self) -> bool {
        self.settings.is_none() && self.takes_over
    }

    /// Compares a set with what is asked of it; without claims it should not be there.
    fn compare_set(&self, key: SetKey, claims: Option<&Claims>, steps: &mut Steps) {
        let found = self.found.sets.get(&key);
        let Some(claims) = claims else {
            // Where ours are not, they are kube-proxy's.
            let goes = self.found.has_sets_of_ours(key.family) || self.cleans_up_after_kube_proxy();
            return steps.set(key, None, found.filter(|_| goes));
        };
        let mut members = claims.members(key);
        if key.kind == SetKind::Vips || self.state.is_in_doubt() {
            // These are decided with the routes; and what cannot be judged stays.
            for (member, mark) in found.into_iter().flat_map(|set| &set.members) {
                members.entry(*member).or_insert(*mark);
            }
        }
        steps.set(key, Some(&Set::with(key.kind, members).no_smaller_than(found)), found);
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
