//! Which frontends may have flows that lead to where nothing is any more, and where their flows may lead.
//!
//! Flows are no part of a model: clients make them, and nobody wants any. But a change of a virtual server can leave some
//! behind. UDP and SCTP only: a TCP connection that leads nowhere is reset.

use super::{Steps, pairs};
use crate::model::localhost::FAR_ADDRESS;
use crate::model::netfilter::{AddressPort, Member, SetKey, SetKind};
use crate::model::{
    DestinationKey, DestinationSpec, Family, Forwarding, Kept, Model, Op, Protocol, SchedulerFlags, VirtualServer,
    VirtualServerKey,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Virtual servers by identity.
type VirtualServers = BTreeMap<VirtualServerKey, VirtualServer>;

/// Frontends of which a change may have left flows behind, until those were looked for.
#[derive(Debug)]
pub struct Suspects {
    /// Families of which all frontends are suspect, because nothing is known of what happened to them before.
    whole: BTreeSet<Family>,
    /// Virtual servers that came, lost a destination, got their first, or went.
    virtual_servers: BTreeSet<VirtualServerKey>,
    /// Frontends that got another virtual server for clients on this node, or lost it.
    frontends: BTreeSet<AddressPort>,
}

impl Suspects {
    /// All frontends, as when a process starts.
    pub fn all() -> Self {
        let whole = BTreeSet::from([Family::Ipv4, Family::Ipv6]);
        Self { whole, virtual_servers: BTreeSet::new(), frontends: BTreeSet::new() }
    }

    /// Notes an operation that is about to be folded into `found`.
    pub fn note(&mut self, op: &Op, found: &Model) {
        match op {
            Op::AddVirtualServer(key, _) | Op::RemoveVirtualServer(key) | Op::RemoveDestination(key, _) => {
                self.suspect(*key);
            }
            Op::AddDestination(key, ..) if !has_destinations(found, key) => self.suspect(*key),
            Op::AddMember(set, member, _) | Op::UpdateMember(set, member, _) | Op::RemoveMember(set, member) => {
                self.note_member(*set, member);
            }
            Op::DestroySet(set) => {
                let members = found.sets.get(set).into_iter().flat_map(|set| set.members.keys());
                members.for_each(|member| self.note_member(*set, member));
            }
            _ => {}
        }
    }

    /// Notes what changed between two readings without an operation that is known to be done, by others or by one whose
    /// answer was lost: which virtual servers there are, and which frontends have two.
    pub fn note_outline(&mut self, before: &Model, now: &Model) {
        pairs(&now.virtual_servers, &before.virtual_servers, |key, now, before| {
            if now.is_some() != before.is_some() {
                self.suspect(*key);
            }
        });
        let mut steps = Steps::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            let set = SetKey { kind: SetKind::ShortCircuit, family };
            steps.set(set, now.sets.get(&set), before.sets.get(&set));
        }
        steps.into_ops().iter().for_each(|op| self.note(op, before));
    }

    /// Notes the same of virtual servers and their destinations.
    pub fn note_virtual_servers(&mut self, before: &VirtualServers, now: &VirtualServers) {
        pairs(now, before, |key, now, before| {
            let keeps_all = now.zip(before).is_some_and(|(now, before)| {
                let (now, before) = (&now.destinations, &before.destinations);
                before.keys().all(|destination| now.contains_key(destination)) && (now.is_empty() || !before.is_empty())
            });
            if !keeps_all {
                self.suspect(*key);
            }
        });
    }

    /// The suspect frontends of a family, and where their flows may lead by what the kernel has. Virtual servers that
    /// somebody else made (`foreign`) are not ours to judge.
    pub fn kept(&self, family: Family, found: &Model, foreign: &BTreeSet<VirtualServerKey>) -> Kept {
        let view = View { found, family };
        let ours = |frontend: &AddressPort| !foreign.contains(&by_address(*frontend));
        let suspects: BTreeSet<AddressPort> = self.of(&view).into_iter().filter(ours).collect();
        let by_localhost = suspects.iter().filter_map(|frontend| view.localhost(*frontend));
        let kept = suspects.iter().filter_map(|frontend| Some((*frontend, view.destinations(*frontend)?)));
        kept.chain(by_localhost).collect()
    }

    /// Nothing is left behind in this family.
    pub fn settle(&mut self, family: Family) {
        self.whole.remove(&family);
        self.virtual_servers.retain(|key| key.family() != family);
        self.frontends.retain(|frontend| Family::of(frontend.address) != family);
    }

    fn suspect(&mut self, key: VirtualServerKey) {
        self.virtual_servers.extend(Some(key).filter(is_tracked));
    }

    fn note_member(&mut self, set: SetKey, member: &Member) {
        if let (SetKind::ShortCircuit, Member::AddressPort(frontend)) = (set.kind, member)
            && frontend.protocol != Protocol::Tcp
        {
            self.frontends.insert(*frontend);
        }
    }

    /// The suspect frontends of the view's family.
    fn of(&self, view: &View<'_>) -> BTreeSet<AddressPort> {
        let is_whole = self.whole.contains(&view.family);
        let is_suspect = |key: &VirtualServerKey| is_whole || self.virtual_servers.contains(key);
        let with_marks = view.short_circuits().filter(|(_, key)| is_suspect(key)).map(|(frontend, _)| frontend);
        // Of what went, only what was noted tells.
        let all = is_whole.then(|| view.found.virtual_servers.keys()).into_iter().flatten();
        let by_address = all.chain(&self.virtual_servers).filter_map(frontend);
        let mut suspects: BTreeSet<AddressPort> =
            by_address.chain(with_marks).chain(self.frontends.iter().copied()).collect();
        suspects.retain(|frontend| Family::of(frontend.address) == view.family && frontend.protocol != Protocol::Tcp);
        suspects
    }
}

/// One family's part of what was found.
struct View<'a> {
    found: &'a Model,
    family: Family,
}

impl View<'_> {
    /// The destinations of a frontend's virtual servers, by address and by mark, departing ones too. None if flows do not
    /// show where they lead: IPVS leaves their entries as they are where it does not translate, and with one-packet
    /// scheduling.
    fn destinations(&self, frontend: AddressPort) -> Option<BTreeSet<DestinationKey>> {
        let mut destinations = BTreeSet::new();
        for key in [Some(by_address(frontend)), self.short_circuit(frontend)].into_iter().flatten() {
            let Some(VirtualServer { spec, destinations: found }) = self.found.virtual_servers.get(&key) else {
                continue;
            };
            let is_translated = |spec: &DestinationSpec| spec.forwarding == Forwarding::Masquerade;
            if spec.flags.contains(SchedulerFlags::ONE_PACKET) || !found.values().all(is_translated) {
                return None;
            }
            destinations.extend(found.keys());
        }
        Some(destinations)
    }

    /// For the far end of the way from loopback addresses, its near end: 127.0.0.1, and where flows to there lead. Who began
    /// before there was a way is with the node itself, and stays there as long as it goes on.
    fn localhost(&self, far: AddressPort) -> Option<(AddressPort, BTreeSet<DestinationKey>)> {
        let near = AddressPort { address: Ipv4Addr::LOCALHOST.into(), ..far };
        let end = if self.short_circuit(far).is_some() { far } else { near };
        let leads_to = BTreeSet::from([DestinationKey { address: end.address, port: end.port }]);
        (far.address == FAR_ADDRESS).then_some((near, leads_to))
    }

    /// The virtual server by mark that clients on this node reach by this frontend.
    fn short_circuit(&self, frontend: AddressPort) -> Option<VirtualServerKey> {
        let set = self.found.sets.get(&self.set())?;
        let mark = (*set.members.get(&Member::AddressPort(frontend))?)?;
        Some(VirtualServerKey::Mark { mark: mark.bits(), family: self.family })
    }

    /// All frontends that have one.
    fn short_circuits(&self) -> impl Iterator<Item = (AddressPort, VirtualServerKey)> {
        let members = self.found.sets.get(&self.set()).into_iter().flat_map(|set| &set.members);
        members.filter_map(|(member, mark)| match (member, mark) {
            (Member::AddressPort(frontend), Some(mark)) => {
                Some((*frontend, VirtualServerKey::Mark { mark: mark.bits(), family: self.family }))
            }
            _ => None,
        })
    }

    fn set(&self) -> SetKey {
        SetKey { kind: SetKind::ShortCircuit, family: self.family }
    }
}

/// Whether connection tracking may remember flows that nobody answers any more. Of a mark only UDP is certain.
fn is_tracked(key: &VirtualServerKey) -> bool {
    !matches!(key, VirtualServerKey::Address { protocol: Protocol::Tcp, .. })
}

fn has_destinations(found: &Model, key: &VirtualServerKey) -> bool {
    found.virtual_servers.get(key).is_some_and(|server| !server.destinations.is_empty())
}

fn frontend(key: &VirtualServerKey) -> Option<AddressPort> {
    match *key {
        VirtualServerKey::Address { address, port, protocol } => Some(AddressPort { address, protocol, port }),
        VirtualServerKey::Mark { .. } => None,
    }
}

fn by_address(AddressPort { address, protocol, port }: AddressPort) -> VirtualServerKey {
    VirtualServerKey::new(address, port, protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::netfilter::{Capacity, Mark, Set};
    use crate::model::{SchedulerName, VirtualServerSpec};

    const SPEC: VirtualServerSpec =
        VirtualServerSpec { scheduler: SchedulerName::RR, flags: SchedulerFlags(0), persistence: None };
    const SET: SetKey = SetKey { kind: SetKind::ShortCircuit, family: Family::Ipv4 };

    fn at(last: u8, protocol: Protocol) -> AddressPort {
        AddressPort { address: [10, 96, 0, last].into(), protocol, port: 53 }
    }

    fn udp(last: u8) -> AddressPort {
        at(last, Protocol::Udp)
    }

    fn to(last: u8) -> DestinationKey {
        DestinationKey { address: [10, 1, 0, last].into(), port: 53 }
    }

    fn mark(number: u16) -> Mark {
        Mark::new(number, Protocol::Udp).unwrap()
    }

    fn by_mark(number: u16) -> VirtualServerKey {
        VirtualServerKey::Mark { mark: mark(number).bits(), family: Family::Ipv4 }
    }

    fn add(model: &mut Model, key: VirtualServerKey, destinations: &[u8]) {
        let spec = DestinationSpec::masquerading(1);
        let destinations = destinations.iter().map(|last| (to(*last), spec)).collect();
        model.virtual_servers.insert(key, VirtualServer { spec: SPEC, destinations });
    }

    /// UDP frontends 1, with destination 1 for clients outside and 1 and 2 for those on this node, 2 with destination 2,
    /// and 3 without; and the same of TCP and SCTP without the marks.
    fn model() -> Model {
        let mut model = Model::default();
        for protocol in [Protocol::Udp, Protocol::Sctp, Protocol::Tcp] {
            add(&mut model, by_address(at(1, protocol)), &[1]);
            add(&mut model, by_address(at(2, protocol)), &[2]);
            add(&mut model, by_address(at(3, protocol)), &[]);
        }
        add(&mut model, by_mark(1), &[1, 2]);
        let members = [(Member::AddressPort(udp(1)), Some(mark(1)))].into();
        model.sets.insert(SET, Set { capacity: Capacity::LEAST, members });
        model
    }

    /// Suspects of whom all is known.
    fn settled() -> Suspects {
        let mut suspects = Suspects::all();
        [Family::Ipv4, Family::Ipv6].into_iter().for_each(|family| suspects.settle(family));
        suspects
    }

    /// What is kept where after one operation.
    fn after(op: Op) -> Kept {
        let (mut found, mut suspects) = (model(), settled());
        suspects.note(&op, &found);
        found.apply(&op).unwrap();
        assert_eq!(suspects.kept(Family::Ipv6, &found, &BTreeSet::new()), Kept::new());
        let kept = suspects.kept(Family::Ipv4, &found, &BTreeSet::new());
        suspects.settle(Family::Ipv4);
        assert_eq!(suspects.kept(Family::Ipv4, &found, &BTreeSet::new()), Kept::new());
        kept
    }

    #[test]
    fn a_frontend_is_looked_at_when_a_destination_went_or_the_first_came() {
        use Op::*;
        let masquerading = DestinationSpec::masquerading(1);
        let none = |frontend| Some((frontend, vec![]));
        let sctp = by_address(at(2, Protocol::Sctp));
        let tcp = by_address(at(2, Protocol::Tcp));
        for (op, looked_at) in [
            (AddVirtualServer(by_address(udp(4)), SPEC), none(udp(4))),
            (UpdateVirtualServer(by_address(udp(1)), SPEC), None),
            (RemoveVirtualServer(by_address(udp(2))), none(udp(2))),
            (RemoveVirtualServer(sctp), none(at(2, Protocol::Sctp))),
            (RemoveVirtualServer(tcp), None),
            (AddDestination(by_address(udp(3)), to(7), masquerading), Some((udp(3), vec![7]))),
            (AddDestination(by_address(udp(2)), to(7), masquerading), None),
            (AddDestination(by_address(at(3, Protocol::Tcp)), to(7), masquerading), None),
            (UpdateDestination(by_address(udp(2)), to(2), masquerading.drained()), None),
            (RemoveDestination(by_address(udp(2)), to(2)), none(udp(2))),
            (RemoveDestination(tcp, to(2)), None),
            (RemoveRoute([10, 96, 0, 1].into()), None),
        ] {
            let wanted: Kept =
                looked_at.into_iter().map(|(of, to)| (of, to.into_iter().map(self::to).collect())).collect();
            let mut found = model();
            found.routes.insert([10, 96, 0, 1].into(), Default::default());
            let (mut suspects, before) = (settled(), found.clone());
            suspects.note(&op, &found);
            found.apply(&op).unwrap();
            assert_eq!(suspects.kept(Family::Ipv4, &found, &BTreeSet::new()), wanted, "{op}");
            // As if somebody else had done it.
            let mut suspects = settled();
            suspects.note_outline(&before, &found);
            suspects.note_virtual_servers(&before.virtual_servers, &found.virtual_servers);
            assert_eq!(suspects.kept(Family::Ipv4, &found, &BTreeSet::new()), wanted, "{op}");
        }
    }

    #[test]
    fn destinations_by_address_and_by_mark_are_both_kept() {
        let kept = |to: &[u8]| Kept::from([(udp(1), to.iter().map(|last| self::to(*last)).collect())]);
        let member = Member::AddressPort(udp(1));
        for (op, wanted) in [
            (Op::RemoveDestination(by_address(udp(1)), to(1)), kept(&[1, 2])),
            (Op::RemoveDestination(by_mark(1), to(2)), kept(&[1])),
            (Op::RemoveDestination(by_mark(1), to(1)), kept(&[1, 2])),
            (Op::RemoveVirtualServer(by_mark(1)), kept(&[1])),
            (Op::RemoveMember(SET, member), kept(&[1])),
            (Op::UpdateMember(SET, member, Some(mark(2))), kept(&[1])),
            (Op::DestroySet(SET), kept(&[1])),
        ] {
            assert_eq!(after(op), wanted, "{op}");
        }
        let other = Member::AddressPort(udp(2));
        let wanted = Kept::from([(udp(2), BTreeSet::from([to(1), to(2)]))]);
        assert_eq!(after(Op::AddMember(SET, other, Some(mark(1)))), wanted);
        let elsewhere = SetKey { kind: SetKind::NoLocal, ..SET };
        let mut suspects = settled();
        suspects.note(&Op::AddMember(elsewhere, other, None), &model());
        assert_eq!(suspects.kept(Family::Ipv4, &model(), &BTreeSet::new()), Kept::new());
    }

    #[test]
    fn flows_to_loopback_addresses_are_on_the_way_to_the_far_end_while_there_is_one() {
        let at = |address: Ipv4Addr| AddressPort { address: address.into(), protocol: Protocol::Udp, port: 30_053 };
        let member = Member::AddressPort(at(FAR_ADDRESS));
        let mut found = model();
        for (op, leads_to) in [
            (Op::AddMember(SET, member, Some(mark(1))), FAR_ADDRESS),
            (Op::RemoveMember(SET, member), Ipv4Addr::LOCALHOST),
        ] {
            let mut suspects = settled();
            suspects.note(&op, &found);
            found.apply(&op).unwrap();
            let kept = suspects.kept(Family::Ipv4, &found, &BTreeSet::new()).remove(&at(Ipv4Addr::LOCALHOST));
            assert_eq!(kept, Some([DestinationKey { address: leads_to.into(), port: 30_053 }].into()), "{op}");
        }
    }

    #[test]
    fn at_first_those_that_go_are_looked_at_too() {
        let (mut suspects, mut found, op) = (Suspects::all(), model(), Op::RemoveVirtualServer(by_address(udp(2))));
        suspects.note(&op, &found);
        found.apply(&op).unwrap();
        assert_eq!(suspects.kept(Family::Ipv4, &found, &BTreeSet::new()).get(&udp(2)), Some(&BTreeSet::new()));
    }

    #[test]
    fn at_first_all_frontends_are_looked_at_but_for_tcp_and_others() {
        let (mut suspects, mut found) = (Suspects::all(), model());
        let six = VirtualServerKey::new("fd00:96::1".parse().unwrap(), 53, Protocol::Udp);
        add(&mut found, six, &[]);
        // As a node port is for loopback addresses: only a mark leads there.
        let by_mark_alone = Member::AddressPort(udp(9));
        found.sets.get_mut(&SET).unwrap().members.insert(by_mark_alone, Some(mark(1)));
        let foreign = BTreeSet::from([by_address(udp(3))]);
        let frontends = |suspects: &Suspects, family| -> Vec<_> {
            suspects.kept(family, &found, &foreign).into_keys().map(|of| (of.address, of.protocol)).collect()
        };
        let [u, s] = [Protocol::Udp, Protocol::Sctp];
        let ours = [(1, u), (1, s), (2, u), (2, s), (3, s), (9, u)];
        assert_eq!(
            frontends(&suspects, Family::Ipv4),
            ours.map(|(last, protocol)| ([10, 96, 0, last].into(), protocol))
        );
        suspects.settle(Family::Ipv4);
        assert_eq!(frontends(&suspects, Family::Ipv4), []);
        assert_eq!(frontends(&suspects, Family::Ipv6), [(six.address().unwrap(), Protocol::Udp)]);
    }

    #[test]
    fn flows_that_do_not_show_where_they_lead_are_not_judged() {
        let key = by_address(udp(1));
        let one_packet = |found: &mut VirtualServer| found.spec.flags = SchedulerFlags::ONE_PACKET;
        let direct = |found: &mut VirtualServer| {
            let spec = DestinationSpec { forwarding: Forwarding::DirectRouting, ..DestinationSpec::masquerading(1) };
            found.destinations.insert(to(1), spec);
        };
        for change in [one_packet as fn(&mut VirtualServer), direct] {
            let mut found = model();
            change(found.virtual_servers.get_mut(&key).unwrap());
            let kept = Suspects::all().kept(Family::Ipv4, &found, &BTreeSet::new());
            assert!(!kept.contains_key(&udp(1)) && kept.contains_key(&udp(2)));
        }
    }
}
