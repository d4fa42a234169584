//! Takes a packet through the rules of a hook, noting what they do with it.

use super::World;
use super::rule::{Condition, NotUnderstood, Rule, Side, Target, Test};
use crate::kernel::iptables::rules::tables;
use crate::kernel::iptables::table::Table;
use crate::model::netfilter::{AddressPort, Mark, Member, SetKey, SetType};
use crate::model::{Family, Protocol};
use std::net::IpAddr;

/// A packet, the first of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From whom.
    pub source: IpAddr,
    /// To whom; behind IPVS the endpoint.
    pub destination: IpAddr,
    /// The destination's port.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The device it came in on; none for the node's own.
    pub device: Option<String>,
    /// The device it goes out by, where that is known.
    pub out: Option<&'static str>,
    /// The mark that the rules gave it.
    pub mark: u32,
    /// Whether its source is to become the node's.
    pub is_masqueraded: bool,
}

/// Where a packet is when it meets a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are netfilter's")]
pub enum Hook {
    Prerouting,
    Input,
    Output,
    Postrouting,
}

impl Hook {
    /// The name of the kernel's chain.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }
}

/// A rule that a packet met and that did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where the packet was.
    pub hook: Hook,
    /// `mangle`, `nat` or `filter`.
    pub table: &'static str,
    /// The rule's chain.
    pub chain: String,
    /// Its text.
    pub rule: String,
    /// What it did.
    pub effect: String,
}

/// What becomes of a packet in a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Passed,
    /// It vanishes.
    Dropped,
    /// It is refused.
    Refused,
}

/// The rules of one family, and what has been met of them.
#[derive(Debug)]
pub struct Walk<'a> {
    world: &'a World<'a>,
    /// None where there are no rules of ours.
    tables: Option<[Table; 3]>,
    /// What did something, in order.
    pub steps: Vec<Step>,
}

/// What a chain decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Behind the rule that led into it.
    GoOn,
    Accept,
    Drop,
    Reject,
}

/// Where a rule stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    hook: Hook,
    table: &'a Table,
    chain: &'a str,
}

/// None of our chains leads deeper.
const DEEPEST: usize = 8;

impl<'a> Walk<'a> {
    /// Before the first rule.
    pub fn new(world: &'a World<'a>, family: Family) -> Self {
        let settings = world.model.rules.get(&family);
        Self { world, tables: settings.map(|settings| tables(settings, family)), steps: Vec::new() }
    }

    /// Takes the packet through some tables of a hook.
    ///
    /// # Errors
    /// A rule is not understood.
    pub fn pass(&mut self, hook: Hook, names: &[&str], packet: &mut Packet) -> Result<Fate, NotUnderstood> {
        let Some(tables) = self.tables.take() else { return Ok(Fate::Passed) };
        let mut fate = Ok(Fate::Passed);
        for table in tables.iter().filter(|table| names.contains(&table.name)) {
            let jumps = table.jumps.iter().filter(|jump| jump.from == hook.name()).map(|jump| &jump.rule);
            fate = match self.rules((Place { hook, table, chain: hook.name() }, 0), jumps, packet) {
                Ok(Verdict::GoOn | Verdict::Accept) => continue,
                Ok(Verdict::Drop) => Ok(Fate::Dropped),
                Ok(Verdict::Reject) => Ok(Fate::Refused),
                Err(error) => Err(error),
            };
            break;
        }
        self.tables = Some(tables);
        fate
    }

    fn rules<'r>(
        &mut self,
        (place, depth): (Place<'_>, usize),
        rules: impl Iterator<Item = &'r String>,
        packet: &mut Packet,
    ) -> Result<Verdict, NotUnderstood> {
        for text in rules {
            let Rule { conditions, target } = Rule::parse(text)?;
            if !conditions.iter().all(|condition| self.holds(condition, packet)) {
                continue;
            }
            let is_step = self.act(&target, packet);
            if let Some(effect) = is_step {
                let Place { hook, table, chain } = place;
                self.steps.push(Step { hook, table: table.name, chain: chain.into(), rule: text.clone(), effect });
            }
            match target {
                Target::Return => return Ok(Verdict::GoOn),
                Target::Accept | Target::Masquerade | Target::From(_) | Target::To(_) => return Ok(Verdict::Accept),
                Target::Drop => return Ok(Verdict::Drop),
                Target::Reject => return Ok(Verdict::Reject),
                Target::Chain(name) if place.table.roots.contains(&name.as_str()) => {
                    if self.world.is_held_in(&name, packet) {
                        return Ok(Verdict::Accept);
                    }
                }
                Target::Chain(name) => {
                    let chain = place.table.chains.iter().find(|chain| chain.name == name);
                    let chain = chain.filter(|_| depth < DEEPEST).ok_or_else(|| NotUnderstood(text.clone()))?;
                    let there = Place { chain: chain.name, ..place };
                    match self.rules((there, depth + 1), chain.rules.iter(), packet)? {
                        Verdict::GoOn => {}
                        decided => return Ok(decided),
                    }
                }
                Target::Nothing | Target::Mark(..) | Target::MapSet(..) => {}
            }
        }
        Ok(Verdict::GoOn)
    }

    /// Does to the packet what a target does, and says it; nothing is said of what only leads on.
    fn act(&self, target: &Target, packet: &mut Packet) -> Option<String> {
        match target {
            Target::Nothing | Target::Chain(_) => None,
            Target::Return => Some("nothing more is asked in this chain".into()),
            Target::Accept => Some("nothing more is asked in this table".into()),
            Target::Drop => Some("it is dropped".into()),
            Target::Reject => Some("it is refused".into()),
            Target::Masquerade => {
                packet.is_masqueraded = true;
                Some("its source becomes the node's".into())
            }
            Target::From(address) => {
                packet.source = *address;
                Some(format!("its source becomes {address}"))
            }
            Target::To(address) => {
                packet.destination = *address;
                Some(format!("its destination becomes {address}"))
            }
            Target::Mark(value, mask) => {
                packet.mark = packet.mark & !mask ^ value;
                Some(format!("its mark becomes {:#x}", packet.mark))
            }
            Target::MapSet(key, sides) => {
                let mark = self.find(*key, sides, packet)??;
                packet.mark = mark.bits();
                Some(format!("its mark becomes {:#x}", packet.mark))
            }
        }
    }

    fn holds(&self, condition: &Condition, packet: &Packet) -> bool {
        let holds = match &condition.test {
            Test::Source(network) => network.contains(&packet.source),
            Test::Destination(network) => network.contains(&packet.destination),
            Test::Device(name) => packet.device.as_deref().is_some_and(|device| is_named(device, name)),
            Test::Out(name) => packet.out == Some(name.as_str()),
            Test::Protocol(protocol) => *protocol == Some(packet.protocol),
            Test::BeginsTcp => packet.protocol == Protocol::Tcp,
            Test::Ports(first, last) => (*first..=*last).contains(&packet.port),
            Test::InSet(key, sides) => self.find(*key, sides, packet).is_some(),
            Test::Mark(value, mask) => packet.mark & mask == *value,
            // It is the first packet of its connection.
            Test::New(is_new) => *is_new,
            Test::Confirmed => false,
            Test::SourceIsLocal => self.world.is_local(packet.source),
            Test::DestinationIsLocal => self.world.is_local(packet.destination),
        };
        holds != condition.is_negated
    }

    /// The mark of the member that a packet is found by, if there is one.
    fn find(&self, key: SetKey, sides: &[Side], packet: &Packet) -> Option<Option<Mark>> {
        let members = &self.world.model.sets.get(&key)?.members;
        let address = |index: usize| match sides.get(index)? {
            Side::Source => Some(packet.source),
            Side::Destination => Some(packet.destination),
        };
        // Of the source's port nothing is known, and no rule of ours asks.
        let port = |index: usize| sides.get(index).filter(|side| **side == Side::Destination).map(|_| packet.port);
        let address_port = || Some(AddressPort { address: address(0)?, protocol: packet.protocol, port: port(1)? });
        match key.kind.set_type() {
            SetType::Address => members.get(&Member::Address(address(0)?)).copied(),
            // They match TCP and UDP, whatever the address.
            SetType::Port if packet.protocol == Protocol::Sctp => None,
            SetType::Port => members.get(&Member::Port(port(0)?)).copied(),
            SetType::AddressPort => members.get(&Member::AddressPort(address_port()?)).copied(),
            SetType::AddressPortAddress => {
                members.get(&Member::AddressPortAddress(address_port()?, address(2)?)).copied()
            }
            SetType::AddressPortNet => {
                let (at, client) = (address_port()?, address(2)?);
                let is_in = |member: &Member| matches!(member, Member::AddressPortNet(of, network) if *of == at && network.contains(&client));
                members.iter().find(|(member, _)| is_in(member)).map(|(_, mark)| *mark)
            }
        }
    }
}

fn is_named(device: &str, name: &str) -> bool {
    match name.strip_suffix('+') {
        Some(beginning) => device.starts_with(beginning),
        None => device == name,
    }
}
