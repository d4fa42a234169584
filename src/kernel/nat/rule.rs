//! One rule of a virtual server: its text, as iptables-save prints it and iptables-restore takes it, and back.
//!
//! ```text
//! -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.1.5:6443
//! ```
//! What stands in a text in another order means the same here, as versions of iptables differ; what is not understood
//! makes the rule somebody else's.

use crate::model::netfilter::{Mark, mark};
use crate::model::{DestinationKey, Family, Persistence, Protocol, VirtualServerKey};
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The chain that refuses what leads to it.
pub const REFUSE: &str = "IPVSD-REFUSE";

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The virtual server that it is of.
    pub server: VirtualServerKey,
    /// The protocol of the packets, which a mark does not tell.
    pub protocol: Option<Protocol>,
    /// What else must hold, or is noted.
    pub condition: Condition,
    /// What cannot be told from the rules otherwise.
    pub note: Option<Note>,
    /// Where the packet goes.
    pub action: Action,
}

/// What must hold for a rule to count besides that the packet is for the virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Chance, of [`CERTAIN`]; none is always.
    pub chance: Option<u32>,
    /// About the clients of a destination.
    pub recent: Option<Recent>,
}

/// What comes to pass in all cases: the unit that the kernel counts chance in (`xt_statistic`).
pub const CERTAIN: u32 = 1 << 31;

/// A look into the list of a destination's clients, or an entry in it (`xt_recent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// The list's name.
    pub name: String,
    /// Clients whose addresses agree in so many bits count as one.
    pub prefix: u8,
    /// For how many seconds an entry counts; none writes one.
    pub seconds: Option<u32>,
}

/// The comment of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The destination's weight, where not all have 1.
    Weight(u32),
    /// A destination without weight, which gets nothing.
    Idle(DestinationKey),
    /// The persistence of a virtual server that has nobody to send clients to.
    Persistent(Persistence),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gives the packet its destination's address and port.
    Translate(DestinationKey),
    /// Has the packet refused.
    Refuse,
    /// Only notes something.
    Nothing,
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.map(name);
        match (self.server, protocol) {
            (VirtualServerKey::Address { address, port, .. }, Some(name)) => {
                write!(f, "-d {address}/{} -p {name} -m {name} --dport {port}", Family::of(address).bits())?;
            }
            (VirtualServerKey::Mark { mark, .. }, Some(name)) => write!(f, "-p {name} -m mark --mark {mark:#x}")?,
            (VirtualServerKey::Mark { mark, .. }, None) => write!(f, "-m mark --mark {mark:#x}")?,
            (VirtualServerKey::Address { address, .. }, None) => {
                write!(f, "-d {address}/{}", Family::of(address).bits())?;
            }
        }
        if let Some(chance) = self.condition.chance {
            let probability = f64::from(chance) / f64::from(CERTAIN);
            write!(f, " -m statistic --mode random --probability {probability:.11}")?;
        }
        if let Some(recent) = &self.condition.recent {
            recent.write(self.server.family(), f)?;
        }
        if let Some(note) = self.note {
            write!(f, " -m comment --comment \"{note}\"")?;
        }
        match self.action {
            Action::Translate(DestinationKey { address, port }) => {
                write!(f, " -j DNAT --to-destination {}", SocketAddr::new(address, port))
            }
            Action::Refuse => write!(f, " -j {REFUSE}"),
            Action::Nothing => Ok(()),
        }
    }
}

impl Recent {
    fn write(&self, family: Family, f: &mut Formatter<'_>) -> fmt::Result {
        match self.seconds {
            Some(seconds) => write!(f, " -m recent --update --seconds {seconds} --reap")?,
            None => f.write_str(" -m recent --set")?,
        }
        write!(f, " --name {} --mask {} --rsource", self.name, mask(self.prefix, family))
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weight(weight) => write!(f, "weight {weight}"),
            Self::Idle(DestinationKey { address, port }) => write!(f, "idle {}", SocketAddr::new(*address, *port)),
            Self::Persistent(Persistence { timeout, prefix }) => write!(f, "persistent {timeout} prefix {prefix}"),
        }
    }
}

impl Rule {
    /// Reads a rule without the `-A CHAIN` that begins it; none if it is none of ours.
    pub fn parse(text: &str, family: Family) -> Option<Self> {
        let mut found = Found::default();
        let mut words = text.split(' ');
        while let Some(word) = words.next() {
            found.take(word, &mut words, family)?;
        }
        found.rule(family)
    }
}

/// What the words of a rule say.
#[derive(Default)]
struct Found {
    address: Option<IpAddr>,
    protocol: Option<Protocol>,
    port: Option<u16>,
    mark: Option<u32>,
    chance: Option<u32>,
    is_recent_set: bool,
    is_recent_update: bool,
    seconds: Option<u32>,
    name: Option<String>,
    prefix: Option<u8>,
    note: Option<Note>,
    action: Option<Action>,
}

impl Found {
    /// Takes an option with its values; none if there is no such option in a rule of ours.
    fn take<'t>(&mut self, option: &str, words: &mut impl Iterator<Item = &'t str>, family: Family) -> Option<()> {
        match option {
            // What they say is said by their options.
            "-m" => drop(words.next()?),
            "--rsource" | "--reap" => {}
            "-d" => self.address = Some(whole_address(words.next()?, family)?),
            "-p" => self.protocol = Some(protocol(words.next()?)?),
            "--dport" => self.port = Some(words.next()?.parse().ok()?),
            "--mark" => self.mark = Some(whole_mark(words.next()?)?),
            "--mode" => drop(words.next().filter(|mode| *mode == "random")?),
            "--probability" => self.chance = Some(chance(words.next()?)?),
            "--set" => self.is_recent_set = true,
            "--update" => self.is_recent_update = true,
            "--seconds" => self.seconds = Some(words.next()?.parse().ok()?),
            "--name" => self.name = Some(words.next()?.to_owned()),
            "--mask" => self.prefix = Some(prefix(words.next()?, family)?),
            "--comment" => self.note = Some(note(words)?),
            "-j" => self.action = Some(action(words)?),
            _ => return None,
        }
        Some(())
    }

    fn rule(self, family: Family) -> Option<Rule> {
        let server = match (self.address, self.mark, self.protocol, self.port) {
            (Some(address), None, Some(protocol), Some(port)) => VirtualServerKey::new(address, port, protocol),
            (None, Some(mark), _, None) => VirtualServerKey::Mark { mark: Mark::from_bits(mark)?.bits(), family },
            _ => return None,
        };
        let recent = match (self.name, self.is_recent_set, self.is_recent_update) {
            (None, false, false) => None,
            (Some(name), true, false) => Some(Recent { name, prefix: self.prefix?, seconds: None }),
            (Some(name), false, true) => Some(Recent { name, prefix: self.prefix?, seconds: Some(self.seconds?) }),
            _ => return None,
        };
        Some(Rule {
            server,
            protocol: self.protocol,
            condition: Condition { chance: self.chance, recent },
            note: self.note,
            action: self.action.unwrap_or(Action::Nothing),
        })
    }
}

/// The name of a protocol, and of the match for it.
fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn protocol(text: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|protocol| name(*protocol) == text)
}

/// An address with or without the prefix that means all of it.
fn whole_address(text: &str, family: Family) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let is_whole = prefix.is_empty() || prefix.parse() == Ok(family.bits());
    (is_whole && Family::of(address) == family).then_some(address)
}

/// A mark that is compared with all bits.
fn whole_mark(text: &str) -> Option<u32> {
    let (value, compared) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let number = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    (number(compared)? == u32::MAX).then(|| number(value))?
}

fn chance(text: &str) -> Option<u32> {
    let probability: f64 = text.parse().ok().filter(|probability| (0.0..1.0).contains(probability))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^31")]
    let chance = (probability * f64::from(CERTAIN)).round() as u32;
    Some(chance)
}

fn mask(prefix: u8, family: Family) -> IpAddr {
    let host_bits = u32::from(family.bits().saturating_sub(prefix));
    match family {
        Family::Ipv4 => Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0)).into(),
        Family::Ipv6 => Ipv6Addr::from_bits(u128::MAX.checked_shl(host_bits).unwrap_or(0)).into(),
    }
}

fn prefix(text: &str, family: Family) -> Option<u8> {
    let found: IpAddr = text.parse().ok()?;
    (0..=family.bits()).find(|prefix| mask(*prefix, family) == found)
}

/// A comment, which is in quotes if it has spaces, as all of ours have.
fn note<'t>(words: &mut impl Iterator<Item = &'t str>) -> Option<Note> {
    let kind = words.next()?.strip_prefix('"')?;
    let mut rest = Vec::new();
    loop {
        let word = words.next()?;
        match word.strip_suffix('"') {
            Some(last) => {
                rest.push(last);
                break;
            }
            None => rest.push(word),
        }
    }
    match (kind, &rest[..]) {
        ("weight", [weight]) => weight.parse().ok().map(Note::Weight),
        ("idle", [destination]) => destination_key(destination).map(Note::Idle),
        ("persistent", [timeout, "prefix", prefix]) => {
            Some(Note::Persistent(Persistence { timeout: timeout.parse().ok()?, prefix: prefix.parse().ok()? }))
        }
        _ => None,
    }
}

fn action<'t>(words: &mut impl Iterator<Item = &'t str>) -> Option<Action> {
    match words.next()? {
        REFUSE => Some(Action::Refuse),
        "DNAT" => {
            words.next().filter(|option| *option == "--to-destination")?;
            destination_key(words.next()?).map(Action::Translate)
        }
        _ => None,
    }
}

fn destination_key(text: &str) -> Option<DestinationKey> {
    let address: SocketAddr = text.parse().ok()?;
    Some(DestinationKey { address: address.ip(), port: address.port() })
}

/// The protocols that the packets of a virtual server may be of: DNAT to a port must know it, and of marks only those of
/// UDP tell.
pub fn protocols(key: &VirtualServerKey) -> &'static [Protocol] {
    match key.protocol() {
        Some(Protocol::Tcp) => &[Protocol::Tcp],
        Some(Protocol::Udp) => &[Protocol::Udp],
        Some(Protocol::Sctp) => &[Protocol::Sctp],
        None => &[Protocol::Tcp, Protocol::Sctp],
    }
}

/// A match for the packets that have a mark of ours.
pub fn has_mark() -> String {
    format!("-m mark --mark {:#x}/{:#x}", mark::TAG, mark::MASK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXTS: [(Family, &str); 8] = [
        (Family::Ipv4, "-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.244.1.5:6443"),
        (
            Family::Ipv6,
            "-d fd00:96::1/128 -p udp -m udp --dport 53 -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination [fd00:244::5]:53",
        ),
        (
            Family::Ipv4,
            "-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -m recent --update --seconds 10800 --reap --name a --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.244.1.5:80",
        ),
        (
            Family::Ipv6,
            "-d fd00:96::1/128 -p tcp -m tcp --dport 80 -m statistic --mode random --probability 0.50000000000 -m recent --set --name b --mask ffff:ffff:: --rsource -m comment --comment \"weight 3\" -j DNAT --to-destination [fd00:244::5]:80",
        ),
        (Family::Ipv4, "-p sctp -m mark --mark 0x101040 -j DNAT --to-destination 10.244.1.5:80"),
        (
            Family::Ipv4,
            "-d 10.96.0.1/32 -p sctp -m sctp --dport 80 -m comment --comment \"persistent 30 prefix 32\" -j IPVSD-REFUSE",
        ),
        (Family::Ipv4, "-d 10.96.0.1/32 -p tcp -m tcp --dport 80 -m comment --comment \"idle 10.244.1.5:80\""),
        (Family::Ipv4, "-m mark --mark 0x101040 -j IPVSD-REFUSE"),
    ];

    #[test]
    fn a_rule_is_read_back() {
        for (family, text) in TEXTS {
            assert_eq!(Rule::parse(text, family).unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_order_of_options_means_nothing() {
        let (family, usual) = TEXTS[4];
        let other = "-m mark --mark 0x101040/0xffffffff -p sctp -j DNAT --to-destination 10.244.1.5:80";
        assert_eq!(Rule::parse(other, family), Rule::parse(usual, family));
    }

    #[test]
    fn what_is_not_ours_is_none() {
        for text in [
            "",
            "-j ACCEPT",
            "-d 10.96.0.0/16 -p tcp -m tcp --dport 443 -j IPVSD-REFUSE",
            "-d 10.96.0.1/32 -j IPVSD-REFUSE",
            "! -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j IPVSD-REFUSE",
            "-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.244.1.5",
            "-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.244.1.5:1 --random",
            "-d fd00::1/128 -p tcp -m tcp --dport 443 -j IPVSD-REFUSE",
            "-m mark --mark 0x1 -j IPVSD-REFUSE",
            "-m mark --mark 0x101040/0xffff -j IPVSD-REFUSE",
            "-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -m comment --comment \"what else",
        ] {
            assert_eq!(Rule::parse(text, Family::Ipv4), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_chance_is_read_back(chance in 0..CERTAIN) {
            let (family, text) = TEXTS[1];
            let rule = Rule { condition: Condition { chance: Some(chance), recent: None }, ..Rule::parse(text, family).unwrap() };
            prop_assert_eq!(Rule::parse(&rule.to_string(), family), Some(rule));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-!a-z0-9 ./:\"]{0,60}", at in 0_usize..8) {
            let (family, good) = TEXTS[at];
            _ = Rule::parse(&text, family);
            _ = Rule::parse(&format!("{good} {text}"), family);
        }
    }
}
