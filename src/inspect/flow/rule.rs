//! A rule of netfilter as a value: what it asks of a packet, and what it does. Read from the text that is written into
//! the kernel, so that there is one place that says what the rules are.

use crate::model::Protocol;
use crate::model::netfilter::SetKey;
use ipnet::IpNet;
use std::net::IpAddr;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub target: Target,
}

/// Something that is asked of a packet, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What is asked.
    pub test: Test,
    /// Whether the opposite is asked.
    pub is_negated: bool,
}

/// What can be asked of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// `-s`
    Source(IpNet),
    /// `-d`
    Destination(IpNet),
    /// `-i`; with a plus sign at its end it is how the name begins.
    Device(String),
    /// `-o`
    Out(String),
    /// `-p`; none for one that IPVS does not balance.
    Protocol(Option<Protocol>),
    /// `--tcp-flags FIN,SYN,RST,ACK SYN`: it begins a TCP connection.
    BeginsTcp,
    /// `--dport FIRST:LAST`, or one of both.
    Ports(u16, u16),
    /// `-m set --match-set`
    InSet(SetKey, Sides),
    /// `-m mark --mark VALUE/MASK`
    Mark(u32, u32),
    /// `-m conntrack --ctstate` with `NEW` among the states.
    New(bool),
    /// `-m conntrack --ctstatus CONFIRMED`: a packet of this connection was here before.
    Confirmed,
    /// `-m addrtype --src-type LOCAL`
    SourceIsLocal,
    /// `-m addrtype --dst-type LOCAL`
    DestinationIsLocal,
}

/// Which side of a packet each part of a set's member is compared with.
pub type Sides = Vec<Side>;

/// A side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `src`
    Source,
    /// `dst`
    Destination,
}

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing.
    Nothing,
    /// Goes on in another chain, and then behind this rule.
    Chain(String),
    /// Goes on behind the rule that led into this chain.
    Return,
    /// The table has nothing more to say.
    Accept,
    /// The packet vanishes.
    Drop,
    /// The packet is refused.
    Reject,
    /// The source of its connection becomes the node's.
    Masquerade,
    /// `SNAT`: the source becomes this.
    From(IpAddr),
    /// `DNAT`: the destination becomes this.
    To(IpAddr),
    /// `MARK --set-xmark VALUE/MASK`
    Mark(u32, u32),
    /// `SET --map-set`: the mark becomes the one that the set has for the packet.
    MapSet(SetKey, Sides),
}

/// A rule that is none of those that ipvsd writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not understood")]
pub struct NotUnderstood(pub String);

impl Rule {
    /// Reads a rule as `iptables-save` prints it, without the `-A CHAIN` that begins it.
    ///
    /// # Errors
    /// It asks or does something that ipvsd's rules do not.
    pub fn parse(text: &str) -> Result<Self, NotUnderstood> {
        let not_understood = || NotUnderstood(text.to_owned());
        let mut words = words(text).into_iter();
        let mut rule = Self { conditions: Vec::new(), target: Target::Nothing };
        let mut is_negated = false;
        while let Some(word) = words.next() {
            match word {
                "!" => {
                    is_negated = true;
                    continue;
                }
                "-j" => rule.target = target(&mut words).ok_or_else(not_understood)?,
                _ => {
                    let test = test(word, &mut words).ok_or_else(not_understood)?;
                    rule.conditions.extend(test.map(|test| Condition { test, is_negated }));
                }
            }
            is_negated = false;
        }
        Ok(rule)
    }
}

/// Text in quotes is one word.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (index, part) in text.split('"').enumerate() {
        match index % 2 {
            1 => words.push(part),
            _ => words.extend(part.split_whitespace()),
        }
    }
    words
}

/// What an option asks: nothing, where it only says what comes or is a remark.
fn test<'a>(option: &str, words: &mut impl Iterator<Item = &'a str>) -> Option<Option<Test>> {
    let value = words.next()?;
    Some(match option {
        // An ICMP type is asked behind `-p icmp`; a counter counts and lets everything pass.
        "-m" | "--comment" | "--icmp-type" | "--icmpv6-type" | "--nfacct-name" => None,
        "-s" => Some(Test::Source(network(value)?)),
        "-d" => Some(Test::Destination(network(value)?)),
        "-i" => Some(Test::Device(value.to_owned())),
        "-o" => Some(Test::Out(value.to_owned())),
        "-p" => Some(Test::Protocol(super::super::form::protocol_of(value))),
        "--tcp-flags" => {
            words.next().filter(|set| *set == "SYN" && value == "FIN,SYN,RST,ACK").map(|_| Test::BeginsTcp)
        }
        "--dport" => {
            let (first, last) = value.split_once(':').unwrap_or((value, value));
            Some(Test::Ports(first.parse().ok()?, last.parse().ok()?))
        }
        "--match-set" => Some(Test::InSet(set(value)?, sides(words.next()?)?)),
        "--mark" => {
            let (value, mask) = mark(value)?;
            Some(Test::Mark(value, mask))
        }
        "--ctstate" => Some(Test::New(value.split(',').any(|state| state == "NEW"))),
        "--ctstatus" if value == "CONFIRMED" => Some(Test::Confirmed),
        "--src-type" if value == "LOCAL" => Some(Test::SourceIsLocal),
        "--dst-type" if value == "LOCAL" => Some(Test::DestinationIsLocal),
        _ => return None,
    })
}

fn target<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Target> {
    let name = words.next()?;
    let arguments: Vec<_> = words.collect();
    match (name, &arguments[..]) {
        ("RETURN", []) => Some(Target::Return),
        ("ACCEPT", []) => Some(Target::Accept),
        ("DROP", []) => Some(Target::Drop),
        ("REJECT", ["--reject-with", _]) => Some(Target::Reject),
        ("MASQUERADE", [] | ["--random-fully"]) => Some(Target::Masquerade),
        ("SNAT", ["--to-source", address]) => address.parse().ok().map(Target::From),
        ("DNAT", ["--to-destination", address]) => address.parse().ok().map(Target::To),
        ("MARK", ["--set-xmark", marked]) => mark(marked).map(|(value, mask)| Target::Mark(value, mask)),
        ("SET", ["--map-set", name, directions, "--map-mark"]) => Some(Target::MapSet(set(name)?, sides(directions)?)),
        // The kernel's own targets are in capitals alone, our chains have a dash.
        (chain, []) if chain.contains('-') => Some(Target::Chain(chain.to_owned())),
        _ => None,
    }
}

/// iptables prints a single address without its length.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

fn set(name: &str) -> Option<SetKey> {
    SetKey::all().find(|key| key.name() == name)
}

fn sides(text: &str) -> Option<Sides> {
    let side = |word| match word {
        "src" => Some(Side::Source),
        "dst" => Some(Side::Destination),
        _ => None,
    };
    text.split(',').map(side).collect()
}

fn mark(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::iptables::rules::tables;
    use crate::model::Family;
    use crate::model::netfilter::SetKind;

    #[test]
    fn every_rule_that_is_written_is_understood() {
        for settings in [
            "masquerade 0x4000",
            "masquerade 0x80000000, all",
            "masquerade 0x4000, pods from 10.244.0.0/16",
            "masquerade 0x4000, pods from fd00:244::/56",
            "masquerade 0x4000, all, pods on cni0",
            "masquerade 0x4000, pods on veth+",
            "masquerade 0x4000, localhost",
            "masquerade 0x4000, nat, pods on cni0",
            "masquerade 0x4000, localhost, liberal nat",
            "masquerade 0x4000, localhost, nat, counted",
        ] {
            for family in [Family::Ipv4, Family::Ipv6] {
                for table in tables(&settings.parse().unwrap(), family) {
                    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
                    for text in rules.chain(table.jumps.iter().map(|jump| &jump.rule)) {
                        Rule::parse(text).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn a_rule_is_its_conditions_and_its_target() {
        let firewall = SetKey { kind: SetKind::LoadBalancerFirewall, family: Family::Ipv4 };
        let parsed = Rule::parse(
            "! -i cni+ -p tcp -m mark ! --mark 0x1040/0xfffdf -m comment --comment \"a ! -j b\" \
             -m set --match-set KUBE-LOAD-BALANCER-FW dst,dst -j KUBE-X",
        );
        let condition = |test, is_negated| Condition { test, is_negated };
        assert_eq!(
            parsed.unwrap(),
            Rule {
                conditions: vec![
                    condition(Test::Device("cni+".into()), true),
                    condition(Test::Protocol(Some(Protocol::Tcp)), false),
                    condition(Test::Mark(0x1040, 0xf_ffdf), true),
                    condition(Test::InSet(firewall, vec![Side::Destination; 2]), false),
                ],
                target: Target::Chain("KUBE-X".into()),
            }
        );
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for text in [
            "-m set --match-set NOBODY dst -j DROP",
            "-m set --match-set KUBE-CLUSTER-IP both -j DROP",
            "-m mark --mark 16385 -j DROP",
            "-j DNAT --to-destination 10.0.0.1:80",
            "-j MARK --set-xmark x",
            "-j",
            "-s 10.0.0",
            "-p",
        ] {
            assert_eq!(Rule::parse(text), Err(NotUnderstood(text.to_owned())));
        }
    }
}
