//! A virtual server as rules, and rules as a virtual server. Pure.
//!
//! One rule for each destination, each with the chance that is left to it; with persistence one before them for each that
//! finds the clients it had. Where nobody is to be had one that refuses.

use super::rule::{Action, CERTAIN, Condition, Note, Recent, Rule, protocols};
use crate::model::netfilter::Mark;
use crate::model::{
    DestinationKey, DestinationSpec, Destinations, Persistence, Protocol, SchedulerFlags, SchedulerName, VirtualServer,
    VirtualServerKey, VirtualServerSpec,
};

/// The settings that a virtual server has here: only its persistence can differ.
pub fn spec(persistence: Option<Persistence>) -> VirtualServerSpec {
    VirtualServerSpec { scheduler: SchedulerName::RANDOM, flags: SchedulerFlags::default(), persistence }
}

/// The rules of a virtual server, in order.
pub fn rules(key: &VirtualServerKey, server: &VirtualServer) -> Vec<Rule> {
    let persistence = server.spec.persistence;
    let (active, idle): (Vec<_>, Vec<_>) = server.destinations.iter().partition(|(_, spec)| spec.weight > 0);
    let mut rules = Vec::new();
    for protocol in protocols(key) {
        let writer = Writer { key, protocol: *protocol };
        if let Some(persistence) = persistence {
            rules.extend(active.iter().map(|(destination, _)| writer.known_client(destination, persistence)));
        }
        rules.extend(writer.choice(&active, persistence));
    }
    let protocol = key.address().and(key.protocol());
    let rule = |note, action| Rule { server: *key, protocol, condition: Condition::default(), note, action };
    rules.extend(idle.iter().map(|(destination, _)| rule(Some(Note::Idle(**destination)), Action::Nothing)));
    if active.is_empty() {
        rules.push(rule(persistence.map(Note::Persistent), Action::Refuse));
    }
    rules
}

/// The virtual server that these rules are the whole of; none if there is no such.
pub fn from_rules(rules: &[Rule]) -> Option<(VirtualServerKey, VirtualServer)> {
    let key = rules.first()?.server;
    let mut destinations = Destinations::new();
    let mut persistence = None;
    for rule in rules {
        match (rule.action, rule.note, rule.condition.recent.as_ref()) {
            (Action::Translate(_), None, Some(Recent { prefix, seconds: Some(timeout), .. })) => {
                persistence = Some(Persistence { timeout: *timeout, prefix: *prefix });
            }
            (Action::Translate(destination), None, _) => add(&mut destinations, destination, 1),
            (Action::Translate(destination), Some(Note::Weight(weight)), _) => {
                add(&mut destinations, destination, weight);
            }
            (Action::Nothing, Some(Note::Idle(destination)), _) => add(&mut destinations, destination, 0),
            (Action::Refuse, Some(Note::Persistent(noted)), _) => persistence = Some(noted),
            (Action::Refuse, None, _) => {}
            _ => return None,
        }
    }
    let server = VirtualServer { spec: spec(persistence), destinations };
    (self::rules(&key, &server) == rules).then_some((key, server))
}

fn add(destinations: &mut Destinations, key: DestinationKey, weight: u32) {
    destinations.insert(key, DestinationSpec::masquerading(weight));
}

struct Writer<'a> {
    key: &'a VirtualServerKey,
    protocol: Protocol,
}

impl Writer<'_> {
    /// Leads a client to the destination that it had, and notes that it was here.
    fn known_client(&self, destination: &DestinationKey, persistence: Persistence) -> Rule {
        let recent = self.recent(destination, persistence, Some(persistence.timeout));
        self.translation(destination, Condition { chance: None, recent: Some(recent) }, None)
    }

    /// Each destination by its share of what those before it leave.
    fn choice(&self, active: &[(&DestinationKey, &DestinationSpec)], persistence: Option<Persistence>) -> Vec<Rule> {
        let has_usual_weights = active.iter().all(|(_, spec)| spec.weight == 1);
        let mut left: u64 = active.iter().map(|(_, spec)| u64::from(spec.weight)).sum();
        let rule = |(destination, spec): &(&DestinationKey, &DestinationSpec)| {
            let chance = chance(spec.weight, left);
            left -= u64::from(spec.weight);
            let recent = persistence.map(|persistence| self.recent(destination, persistence, None));
            let note = (!has_usual_weights).then_some(Note::Weight(spec.weight));
            self.translation(destination, Condition { chance, recent }, note)
        };
        active.iter().map(rule).collect()
    }

    fn translation(&self, destination: &DestinationKey, condition: Condition, note: Option<Note>) -> Rule {
        let action = Action::Translate(*destination);
        Rule { server: *self.key, protocol: Some(self.protocol), condition, note, action }
    }

    fn recent(&self, destination: &DestinationKey, persistence: Persistence, seconds: Option<u32>) -> Recent {
        Recent { name: list_name(self.key, destination), prefix: persistence.prefix, seconds }
    }
}

/// The name of the list of a destination's clients, the same whatever else changes: of at most 200 characters
/// (`XT_RECENT_NAME_LEN`), and as it is also a file's, without slashes.
fn list_name(key: &VirtualServerKey, destination: &DestinationKey) -> String {
    let DestinationKey { address: to, port: to_port } = destination;
    match key {
        VirtualServerKey::Address { address, port, protocol } => {
            format!("ipvsd-{protocol}-{address}-{port}-{to}-{to_port}")
        }
        VirtualServerKey::Mark { mark, .. } => {
            let number = Mark::from_bits(*mark).map_or(0, Mark::number);
            format!("ipvsd-mark-{number}-{to}-{to_port}")
        }
    }
}

/// The chance of one with this weight where `left` is that of all that are left; none if it is the last.
fn chance(weight: u32, left: u64) -> Option<u32> {
    let weight = u64::from(weight);
    if weight >= left {
        return None;
    }
    let certain = u64::from(CERTAIN);
    let chance = (weight * certain + left / 2) / left;
    // What is not certain is never written as if it were.
    u32::try_from(chance.min(certain - 1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use proptest::prelude::*;

    fn server(persistence: Option<Persistence>, weights: &[u32]) -> VirtualServer {
        let destination = |(i, weight): (usize, &u32)| {
            let key = DestinationKey { address: format!("10.244.0.{i}").parse().unwrap(), port: 80 };
            (key, DestinationSpec::masquerading(*weight))
        };
        VirtualServer { spec: spec(persistence), destinations: weights.iter().enumerate().map(destination).collect() }
    }

    fn key() -> VirtualServerKey {
        VirtualServerKey::new("10.96.0.1".parse().unwrap(), 80, Protocol::Tcp)
    }

    fn texts(key: &VirtualServerKey, server: &VirtualServer) -> Vec<String> {
        let texts = rules(key, server).into_iter().map(|rule| rule.to_string());
        texts.map(|text| text.replace("-d 10.96.0.1/32 -p tcp -m tcp --dport 80 ", "")).collect()
    }

    const EVERY_CLIENT: Persistence = Persistence { timeout: 30, prefix: 32 };

    #[test]
    fn each_destination_gets_its_share() {
        assert_eq!(
            texts(&key(), &server(None, &[1, 1, 1])),
            [
                "-m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 10.244.0.0:80",
                "-m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.0.1:80",
                "-j DNAT --to-destination 10.244.0.2:80",
            ]
        );
        assert_eq!(
            texts(&key(), &server(None, &[3, 0, 1])),
            [
                "-m statistic --mode random --probability 0.75000000000 -m comment --comment \"weight 3\" -j DNAT --to-destination 10.244.0.0:80",
                "-m comment --comment \"weight 1\" -j DNAT --to-destination 10.244.0.2:80",
                "-m comment --comment \"idle 10.244.0.1:80\"",
            ]
        );
    }

    #[test]
    fn a_client_is_known_before_one_is_chosen_for_it() {
        assert_eq!(
            texts(&key(), &server(Some(EVERY_CLIENT), &[1])),
            [
                "-m recent --update --seconds 30 --reap --name ipvsd-tcp-10.96.0.1-80-10.244.0.0-80 --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.244.0.0:80",
                "-m recent --set --name ipvsd-tcp-10.96.0.1-80-10.244.0.0-80 --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.244.0.0:80",
            ]
        );
    }

    #[test]
    fn without_anybody_to_be_had_it_refuses() {
        assert_eq!(texts(&key(), &server(None, &[])), ["-j IPVSD-REFUSE"]);
        let with_persistence = texts(&key(), &server(Some(EVERY_CLIENT), &[0]));
        assert_eq!(
            with_persistence,
            [
                "-m comment --comment \"idle 10.244.0.0:80\"",
                "-m comment --comment \"persistent 30 prefix 32\" -j IPVSD-REFUSE",
            ]
        );
        let mark = VirtualServerKey::Mark { mark: 0x0010_1040, family: Family::Ipv4 };
        assert_eq!(texts(&mark, &server(None, &[])), ["-m mark --mark 0x101040 -j IPVSD-REFUSE"]);
    }

    #[test]
    fn a_mark_that_does_not_tell_is_taken_with_either_protocol() {
        let of_mark = |mark| texts(&VirtualServerKey::Mark { mark, family: Family::Ipv4 }, &server(None, &[1]));
        let to = "-j DNAT --to-destination 10.244.0.0:80";
        let either = ["tcp", "sctp"].map(|protocol| format!("-p {protocol} -m mark --mark 0x101040 {to}"));
        assert_eq!(of_mark(0x0010_1040), either);
        assert_eq!(of_mark(0x0010_1060), [format!("-p udp -m mark --mark 0x101060 {to}")]);
    }

    #[test]
    fn rules_that_miss_something_or_have_too_much_are_not_the_same_virtual_server() {
        let whole = rules(&key(), &server(Some(EVERY_CLIENT), &[1, 2, 0]));
        for at in 0..whole.len() {
            let mut missing = whole.clone();
            missing.remove(at);
            let mut doubled = whole.clone();
            doubled.push(whole[at].clone());
            assert_ne!(from_rules(&missing), from_rules(&whole), "{at}");
            assert_eq!(from_rules(&doubled), None, "{at}");
        }
        assert_eq!(from_rules(&[]), None);
    }

    proptest! {
        #[test]
        fn every_virtual_server_is_read_back(
            weights in prop::collection::vec(0_u32..=70_000, 0..6), ones in any::<bool>(), persistence in prop::option::of((1_u32..99_999, 0_u8..=32)),
            is_marked in any::<bool>(),
        ) {
            let weights: Vec<_> = weights.into_iter().map(|weight| if ones { 1 } else { weight }).collect();
            let persistence = persistence.map(|(timeout, prefix)| Persistence { timeout, prefix });
            let mark = VirtualServerKey::Mark { mark: 0x0020_1040, family: Family::Ipv4 };
            let key = if is_marked { mark } else { key() };
            let server = server(persistence, &weights);
            let written: Vec<_> = rules(&key, &server).iter().map(ToString::to_string).collect();
            let read: Option<Vec<_>> = written.iter().map(|text| Rule::parse(text, Family::Ipv4)).collect();
            prop_assert_eq!(from_rules(&read.unwrap()), Some((key, server)));
        }
    }
}
