//! Gives marks to Service ports that have two sets of endpoints: one for clients outside, by address, and one for those on
//! this node, by mark.
//!
//! A port keeps its mark as long as it needs one. After a restart it gets the one that the kernel has for its frontends,
//! so that nothing changes.

use crate::model::netfilter::{AddressPort, Mark, Member, SetKey, SetKind};
use crate::model::{Family, Model, Protocol};
use crate::state::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A port of a Service in one family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkedPort {
    /// The Service.
    pub service: ObjectName,
    /// The port's name, unique within the Service.
    pub port: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Of the packets: each family has numbers of its own.
    pub family: Family,
}

/// Who has which mark.
#[derive(Debug, Default)]
pub struct Marks {
    given: BTreeMap<MarkedPort, Mark>,
    /// Numbers in `given`.
    taken: BTreeSet<(Family, u16)>,
    /// What the kernel had for frontends when it was last read.
    found: BTreeMap<AddressPort, Mark>,
}

impl Marks {
    /// Notes which marks the kernel has for frontends.
    pub fn note(&mut self, found: &Model) {
        self.found.clear();
        for family in [Family::Ipv4, Family::Ipv6] {
            let set = found.sets.get(&SetKey { kind: SetKind::ShortCircuit, family });
            for (member, mark) in set.into_iter().flat_map(|set| &set.members) {
                if let (Member::AddressPort(frontend), Some(mark)) = (member, mark) {
                    self.found.insert(*frontend, *mark);
                }
            }
        }
    }

    /// The mark of a port with these frontends, with a number up to `last`; none if all are taken.
    pub fn give(&mut self, port: &MarkedPort, last: u16, frontends: impl Iterator<Item = AddressPort>) -> Option<Mark> {
        if let Some(mark) = self.given.get(port) {
            return Some(*mark);
        }
        let is_free = |number: &u16| !self.taken.contains(&(port.family, *number));
        let is_udp = port.protocol == Protocol::Udp;
        let had = frontends.filter_map(|frontend| self.found.get(&frontend)).filter(|mark| mark.is_udp() == is_udp);
        let had = had.map(|mark| mark.number()).find(is_free);
        // One that the kernel has belongs to somebody who may still ask for it.
        let in_kernel: BTreeSet<_> = self
            .found
            .iter()
            .filter(|(of, _)| Family::of(of.address) == port.family)
            .map(|(_, m)| m.number())
            .collect();
        let unused = || (1..=last).filter(is_free).find(|number| !in_kernel.contains(number));
        let number = had.or_else(unused).or_else(|| (1..=last).find(is_free))?;
        let mark = Mark::new(number, port.protocol)?;
        self.taken.insert((port.family, number));
        self.given.insert(port.clone(), mark);
        Some(mark)
    }

    /// Takes back the marks of a Service's ports but those that it still needs.
    pub fn keep_only(&mut self, service: &ObjectName, needed: &BTreeSet<MarkedPort>) {
        let first =
            MarkedPort { service: service.clone(), port: "".into(), protocol: Protocol::Tcp, family: Family::Ipv4 };
        let of_service = self.given.range(first..).take_while(|(port, _)| port.service == *service);
        let given_up: Vec<_> =
            of_service.map(|(port, _)| port).filter(|port| !needed.contains(port)).cloned().collect();
        for port in given_up {
            if let Some(mark) = self.given.remove(&port) {
                self.taken.remove(&(port.family, mark.number()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::netfilter::Set;
    use crate::model::netfilter::mark::LAST;

    fn port(name: &str, protocol: Protocol) -> MarkedPort {
        let service = ObjectName::new("default", name);
        MarkedPort { service, port: "http".into(), protocol, family: Family::Ipv4 }
    }

    fn frontend(last: u8) -> AddressPort {
        AddressPort { address: [10, 0, 0, last].into(), protocol: Protocol::Tcp, port: 80 }
    }

    fn number(marks: &mut Marks, name: &str, last: u8) -> Option<u16> {
        marks.give(&port(name, Protocol::Tcp), LAST, [frontend(last)].into_iter()).map(Mark::number)
    }

    fn noted(of: &[(u8, u16)]) -> Marks {
        let member =
            |(last, number): &(u8, u16)| (Member::AddressPort(frontend(*last)), Mark::new(*number, Protocol::Tcp));
        let set = Set { members: of.iter().map(member).collect(), ..Set::default() };
        let mut model = Model::default();
        model.sets.insert(SetKey { kind: SetKind::ShortCircuit, family: Family::Ipv4 }, set);
        let mut marks = Marks::default();
        marks.note(&model);
        marks
    }

    #[test]
    fn a_port_keeps_its_mark_and_gives_it_back() {
        let mut marks = Marks::default();
        let given = ["a", "b", "a"].map(|name| number(&mut marks, name, 1));
        assert_eq!(given, [Some(1), Some(2), Some(1)]);
        marks.keep_only(&ObjectName::new("default", "a"), &BTreeSet::new());
        assert_eq!([number(&mut marks, "c", 3), number(&mut marks, "b", 2)], [Some(1), Some(2)]);
    }

    #[test]
    fn after_a_restart_a_port_gets_the_mark_of_its_frontends_in_whatever_order_they_come() {
        for order in [[1_u8, 2, 3], [3, 2, 1]] {
            let mut marks = noted(&[(1, 2), (2, 1)]);
            let given: BTreeMap<u8, _> =
                order.iter().map(|last| (*last, number(&mut marks, &last.to_string(), *last))).collect();
            assert_eq!(given, BTreeMap::from([(1, Some(2)), (2, Some(1)), (3, Some(3))]));
        }
        let mut marks = noted(&[(1, 7)]);
        let udp = marks.give(&port("a", Protocol::Udp), LAST, [frontend(1)].into_iter()).unwrap();
        assert!(udp.is_udp() && udp.number() != 7, "a mark of another protocol is another Service's");
    }

    #[test]
    fn when_all_are_taken_there_is_none() {
        let mut marks = noted(&[(1, 5)]);
        let given: BTreeSet<_> = (0..LAST).filter_map(|index| number(&mut marks, &index.to_string(), 9)).collect();
        assert_eq!(given.len(), usize::from(LAST));
        assert_eq!(number(&mut marks, "one more", 9), None);
        let six = MarkedPort { family: Family::Ipv6, ..port("one more", Protocol::Tcp) };
        assert_eq!(marks.give(&six, 0, [].into_iter()), None, "only so many are for it");
        assert!(marks.give(&six, LAST, [].into_iter()).is_some());
    }
}
