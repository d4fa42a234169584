//! The chains that hold the virtual servers: three trees of a fixed shape, so that a packet passes few rules however
//! many Services there are, and a change rewrites one small chain.
//!
//! | tree | for | a level tells by |
//! |---|---|---|
//! | `IPVSD-MARK` | short circuits | three bits of the mark's number |
//! | `IPVSD-PORT` | TCP and UDP at the usual node ports, which are on few addresses | a range of ports |
//! | `IPVSD-ADDRESS` | all others | four of the last eight bits of the address |
//!
//! A chain's name is its tree's with a digit for each level: `IPVSD-ADDRESS`, `IPVSD-ADDRESS-3`, `IPVSD-ADDRESS-3F`. A leaf
//! has the rules of its virtual servers, what is above it leads to those below that are in use.

use crate::model::netfilter::Mark;
use crate::model::{Family, Protocol, VirtualServerKey};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What all our chains are called that only this mode has.
pub const PREFIX: &str = "IPVSD-";

/// The TCP and UDP ports of [`Tree::Port`]: those that Kubernetes gives to node ports by default, 30000 to 32767, and
/// some above, so that they make 64 ranges of one width.
pub const PORTS: (u16, u16) = (FIRST_PORT, FIRST_PORT + 64 * PORTS_OF_LEAF - 1);

const FIRST_PORT: u16 = 30_000;
const PORTS_OF_LEAF: u16 = 48;

/// Where the number of a mark begins (see [`crate::model::netfilter::mark`]).
const MARK_SHIFT: u32 = 20;

/// A tree of chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// By mark.
    Mark,
    /// By node port.
    Port,
    /// By address.
    Address,
}

/// A chain of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    tree: Tree,
    /// 0 is the root, 2 a leaf.
    level: u8,
    /// The digits of its name as a number.
    index: u16,
}

impl Tree {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mark, Self::Port, Self::Address];

    /// The name of its root, and what the others' names begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mark => "IPVSD-MARK",
            Self::Port => "IPVSD-PORT",
            Self::Address => "IPVSD-ADDRESS",
        }
    }

    /// How many chains are below one.
    fn width(self) -> u16 {
        match self {
            Self::Mark | Self::Port => 8,
            Self::Address => 16,
        }
    }
}

impl Chain {
    /// The root of a tree.
    pub fn root(tree: Tree) -> Self {
        Self { tree, level: 0, index: 0 }
    }

    /// The leaf that holds a virtual server.
    pub fn of(key: &VirtualServerKey) -> Self {
        let (tree, index) = match *key {
            VirtualServerKey::Mark { mark, .. } => {
                let number = Mark::from_bits(mark).map_or(0, Mark::number);
                (Tree::Mark, number % 64)
            }
            VirtualServerKey::Address { port, protocol: Protocol::Tcp | Protocol::Udp, .. }
                if (PORTS.0..=PORTS.1).contains(&port) =>
            {
                (Tree::Port, (port - FIRST_PORT) / PORTS_OF_LEAF)
            }
            VirtualServerKey::Address { address, .. } => (Tree::Address, last_byte(address).into()),
        };
        Self { tree, level: 2, index }
    }

    /// The chain of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let tree = Tree::ALL.into_iter().find(|tree| name.starts_with(tree.name()))?;
        let digits = match name.strip_prefix(tree.name())? {
            "" => return Some(Self::root(tree)),
            more => more.strip_prefix('-')?,
        };
        let level = u8::try_from(digits.len()).ok().filter(|level| (1..=2).contains(level))?;
        let index = u16::from_str_radix(digits, tree.width().into()).ok()?;
        // One name for each chain: no signs, no small letters.
        Some(Self { tree, level, index }).filter(|chain| chain.name() == name)
    }

    /// Its name.
    pub fn name(self) -> String {
        let Self { tree, level, index } = self;
        let name = tree.name();
        match (level, tree) {
            (0, _) => name.to_owned(),
            (level, Tree::Address) => format!("{name}-{index:0width$X}", width = level.into()),
            (level, _) => format!("{name}-{index:0width$o}", width = level.into()),
        }
    }

    /// Whether it holds virtual servers.
    pub fn is_leaf(self) -> bool {
        self.level == 2
    }

    /// The chain that leads to it; none leads to a root but rules that are the same for all Services.
    pub fn parent(self) -> Option<Self> {
        let level = self.level.checked_sub(1)?;
        Some(Self { level, index: self.index / self.tree.width(), ..self })
    }

    /// The rules that lead to it from its parent, without the `-A PARENT` that begins them.
    pub fn ways_in(self, family: Family) -> Vec<String> {
        let name = self.name();
        match self.tree {
            Tree::Mark => {
                let (value, mask) = self.bits(3);
                vec![format!("-m mark --mark {:#x}/{:#x} -j {name}", value << MARK_SHIFT, mask << MARK_SHIFT)]
            }
            Tree::Port => {
                let ports = self.ports();
                ["tcp", "udp"].map(|p| format!("-p {p} -m {p} --dport {}:{} -j {name}", ports.0, ports.1)).into()
            }
            Tree::Address => {
                let (value, mask) = self.bits(4);
                let address = |bits: u32| -> IpAddr {
                    match family {
                        Family::Ipv4 => Ipv4Addr::from_bits(bits).into(),
                        Family::Ipv6 => Ipv6Addr::from_bits(bits.into()).into(),
                    }
                };
                vec![format!("-d {}/{} -j {name}", address(value), address(mask))]
            }
        }
    }

    /// The bits that tell it from its siblings where a digit has so many, and where they stand.
    fn bits(self, of_digit: u32) -> (u32, u32) {
        let shift = if self.is_leaf() { 0 } else { of_digit };
        let mask = u32::from(self.tree.width() - 1) << shift;
        ((u32::from(self.index) << shift) & mask, mask)
    }

    /// The first and last port that it is for.
    fn ports(self) -> (u16, u16) {
        let width = if self.is_leaf() { PORTS_OF_LEAF } else { PORTS_OF_LEAF * self.tree.width() };
        let first = FIRST_PORT + self.index * width;
        (first, first + width - 1)
    }
}

fn last_byte(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.to_bits().to_be_bytes()[3],
        IpAddr::V6(address) => address.to_bits().to_be_bytes()[15],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn key(text: &str, port: u16, protocol: Protocol) -> VirtualServerKey {
        VirtualServerKey::new(text.parse().unwrap(), port, protocol)
    }

    fn mark(number: u16) -> VirtualServerKey {
        VirtualServerKey::Mark { mark: Mark::new(number, Protocol::Tcp).unwrap().bits(), family: Family::Ipv4 }
    }

    #[test]
    fn a_virtual_server_is_in_the_leaf_of_its_address_port_or_mark() {
        for (key, name) in [
            (key("10.96.0.63", 80, Protocol::Tcp), "IPVSD-ADDRESS-3F"),
            (key("fd00::a", 53, Protocol::Udp), "IPVSD-ADDRESS-0A"),
            (key("192.0.2.1", 30_000, Protocol::Tcp), "IPVSD-PORT-00"),
            (key("192.0.2.1", 33_071, Protocol::Udp), "IPVSD-PORT-77"),
            (key("192.0.2.1", 33_072, Protocol::Udp), "IPVSD-ADDRESS-01"),
            (key("192.0.2.1", 30_000, Protocol::Sctp), "IPVSD-ADDRESS-01"),
            (mark(1), "IPVSD-MARK-01"),
            (mark(0xfff), "IPVSD-MARK-77"),
        ] {
            assert_eq!(Chain::of(&key).name(), name);
        }
    }

    #[test]
    fn a_chain_is_known_by_its_name_and_no_other_name() {
        for name in ["IPVSD-MARK", "IPVSD-PORT-7", "IPVSD-PORT-07", "IPVSD-ADDRESS-F", "IPVSD-ADDRESS-00"] {
            assert_eq!(Chain::from_name(name).unwrap().name(), name);
        }
        for name in [
            "",
            "IPVSD-VIP",
            "IPVSD-ADDRESSES",
            "IPVSD-ADDRESS-",
            "IPVSD-ADDRESS-f",
            "IPVSD-PORT-8",
            "IPVSD-PORT-077",
            "IPVSD-MARK-+1",
        ] {
            assert_eq!(Chain::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn ways_lead_down_to_the_leaf() {
        let ways = |key: &VirtualServerKey, family| {
            let leaf = Chain::of(key);
            let branch = leaf.parent().unwrap();
            assert_eq!(branch.parent().and_then(Chain::parent), None);
            [branch.ways_in(family), leaf.ways_in(family)].concat()
        };
        assert_eq!(
            ways(&key("10.96.0.63", 80, Protocol::Tcp), Family::Ipv4),
            ["-d 0.0.0.48/0.0.0.240 -j IPVSD-ADDRESS-3", "-d 0.0.0.15/0.0.0.15 -j IPVSD-ADDRESS-3F"]
        );
        assert_eq!(
            ways(&key("fd00::a0", 80, Protocol::Tcp), Family::Ipv6),
            ["-d ::a0/::f0 -j IPVSD-ADDRESS-A", "-d ::/::f -j IPVSD-ADDRESS-A0"]
        );
        assert_eq!(
            ways(&mark(0o12), Family::Ipv4),
            ["-m mark --mark 0x800000/0x3800000 -j IPVSD-MARK-1", "-m mark --mark 0x200000/0x700000 -j IPVSD-MARK-12"]
        );
        assert_eq!(
            ways(&key("10.96.0.63", 30_400, Protocol::Tcp), Family::Ipv4),
            [
                "-p tcp -m tcp --dport 30384:30767 -j IPVSD-PORT-1",
                "-p udp -m udp --dport 30384:30767 -j IPVSD-PORT-1",
                "-p tcp -m tcp --dport 30384:30431 -j IPVSD-PORT-10",
                "-p udp -m udp --dport 30384:30431 -j IPVSD-PORT-10"
            ]
        );
    }

    #[test]
    fn ports_fall_into_the_ranges_of_their_leaves() {
        let mut leaves = BTreeSet::new();
        for port in PORTS.0..=PORTS.1 {
            let leaf = Chain::of(&key("192.0.2.1", port, Protocol::Tcp));
            let (first, last) = leaf.ports();
            let (outer_first, outer_last) = leaf.parent().unwrap().ports();
            assert!((first..=last).contains(&port) && (outer_first..=outer_last).contains(&port), "{port}");
            leaves.insert(leaf);
        }
        assert_eq!(leaves.len(), 64);
    }
}
