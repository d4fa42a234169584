//! Members of sets, added up over the Services that ask for them: a pod behind two Services is in its set once, and stays
//! there until nobody asks.

use crate::model::netfilter::{Mark, Member, SetKey};
use crate::state::ObjectName;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A member, and the set it should be in.
pub type Place = (SetKey, Member);

/// A member with the mark that it maps to.
pub type Placed = (Place, Option<Mark>);

/// What is asked for.
#[derive(Debug, Default)]
pub struct Claims {
    /// By set and member; no entry is empty.
    wanted: BTreeMap<SetKey, BTreeMap<Member, Claim>>,
    /// What each Service asks for, sorted; no entry is empty.
    of: HashMap<ObjectName, Box<[Placed]>>,
    /// Members that may be different from when they were last taken.
    touched: BTreeSet<Place>,
}

/// How many ask for a member, and the mark that it maps to, which the first one gave.
#[derive(Clone, Copy, Debug)]
struct Claim {
    count: usize,
    mark: Option<Mark>,
}

impl Claims {
    /// Replaces what a Service asks for.
    pub fn put(&mut self, service: &ObjectName, mut members: Vec<Placed>) {
        members.sort_unstable();
        members.dedup_by_key(|(place, _)| *place);
        let before = self.of.remove(service).unwrap_or_default();
        if *before != *members {
            // First what comes, so that what stays is never without.
            members.iter().for_each(|(place, mark)| self.add(*place, *mark));
            before.iter().for_each(|(place, _)| self.take_away(*place));
            for (place, mark) in &members {
                self.settle(*place, *mark);
            }
        }
        if !members.is_empty() {
            self.of.insert(service.clone(), members.into());
        }
    }

    /// What a set should hold; none if nothing.
    pub fn members(&self, key: SetKey) -> BTreeMap<Member, Option<Mark>> {
        let members = self.wanted.get(&key).into_iter().flatten();
        members.map(|(member, claim)| (*member, claim.mark)).collect()
    }

    /// How many members a set should hold.
    pub fn count(&self, key: SetKey) -> usize {
        self.wanted.get(&key).map_or(0, BTreeMap::len)
    }

    /// The mark a member should have, if it should be there.
    pub fn member(&self, (key, member): Place) -> Option<Option<Mark>> {
        self.wanted.get(&key)?.get(&member).map(|claim| claim.mark)
    }

    /// The members that may be different from when this was last asked.
    pub fn take_touched(&mut self) -> BTreeSet<Place> {
        std::mem::take(&mut self.touched)
    }

    fn add(&mut self, (key, member): Place, mark: Option<Mark>) {
        let claim = self.wanted.entry(key).or_default().entry(member).or_insert(Claim { count: 0, mark });
        claim.count += 1;
        if claim.count == 1 {
            self.touched.insert((key, member));
        }
    }

    fn take_away(&mut self, (key, member): Place) {
        let Some(set) = self.wanted.get_mut(&key) else { return };
        let Some(claim) = set.get_mut(&member) else { return };
        claim.count -= 1;
        if claim.count == 0 {
            set.remove(&member);
            self.touched.insert((key, member));
        }
        if set.is_empty() {
            self.wanted.remove(&key);
        }
    }

    /// A frontend belongs to one Service, so that who alone asks for a member says its mark.
    fn settle(&mut self, (key, member): Place, mark: Option<Mark>) {
        let claim = self.wanted.get_mut(&key).and_then(|set| set.get_mut(&member));
        if let Some(claim) = claim.filter(|claim| claim.count == 1 && claim.mark != mark) {
            claim.mark = mark;
            self.touched.insert((key, member));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::netfilter::SetKind;
    use crate::model::{Family, Protocol};

    const KEY: SetKey = SetKey { kind: SetKind::NodePortTcp, family: Family::Ipv4 };

    fn of(ports: &[u16], mark: Option<Mark>) -> Vec<(Place, Option<Mark>)> {
        ports.iter().map(|port| ((KEY, Member::Port(*port)), mark)).collect()
    }

    fn touched(claims: &mut Claims) -> Vec<u16> {
        let ports = claims.take_touched().into_iter();
        ports.map(|(_, member)| if let Member::Port(port) = member { port } else { 0 }).collect()
    }

    #[test]
    fn a_member_stays_until_the_last_one_asks_no_more() {
        let [a, b] = ["a", "b"].map(|name| ObjectName::new("default", name));
        let mut claims = Claims::default();
        claims.put(&a, of(&[1, 2, 2], None));
        claims.put(&b, of(&[2, 3], None));
        assert_eq!((touched(&mut claims), claims.count(KEY)), (vec![1, 2, 3], 3));
        claims.put(&a, vec![]);
        assert_eq!((touched(&mut claims), claims.count(KEY)), (vec![1], 2));
        claims.put(&b, of(&[3, 2], None));
        assert_eq!(touched(&mut claims), Vec::<u16>::new(), "the same in another order");
        claims.put(&b, vec![]);
        assert_eq!((touched(&mut claims), claims.members(KEY)), (vec![2, 3], BTreeMap::new()));
        assert!(claims.wanted.is_empty() && claims.of.is_empty());
    }

    #[test]
    fn another_mark_is_a_change_of_the_member() {
        let name = ObjectName::new("default", "a");
        let marks = [1, 2].map(|number| Mark::new(number, Protocol::Tcp));
        let mut claims = Claims::default();
        for mark in marks {
            claims.put(&name, of(&[1], mark));
            assert_eq!((touched(&mut claims), claims.member((KEY, Member::Port(1)))), (vec![1], Some(mark)));
        }
    }
}
