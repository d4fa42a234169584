//! On which of the node's addresses node ports are.

use super::{NetfilterSettings, Settings};
use crate::model::Family;
use crate::model::localhost::{FAR_ADDRESS, NEAR_ADDRESS};
use crate::state::State;
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The operator's choice among the node's addresses, kube-proxy's `nodePortAddresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All of them.
    #[default]
    Any,
    /// Those within one of these ranges. A family that has no range here has node ports on all its addresses.
    Within(Vec<IpNet>),
    /// The node's primary address of each family, and none where that is not known.
    Primary,
}

impl NodePortAddresses {
    /// Whether every address of a family is chosen, whichever addresses there are.
    fn is_all_of(&self, family: Family) -> bool {
        match self {
            Self::Any => true,
            Self::Within(ranges) => {
                let mut of_family = ranges.iter().filter(|range| Family::of(range.addr()) == family).peekable();
                of_family.peek().is_none() || of_family.any(|range| range.prefix_len() == 0)
            }
            Self::Primary => false,
        }
    }

    /// Whether any loopback address of IPv4 is chosen.
    fn include_loopback(&self) -> bool {
        let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let meets = |range: &IpNet| matches!(range, IpNet::V4(range) if range.contains(&loopback.addr()) || loopback.contains(&range.addr()));
        match self {
            Self::Within(ranges) => self.is_all_of(Family::Ipv4) || ranges.iter().any(meets),
            other => other.is_all_of(Family::Ipv4),
        }
    }
}

/// Whether node ports are to be on loopback addresses of IPv4 too, by way of netfilter.
pub fn are_on_localhost(settings: &Settings) -> bool {
    let is_wanted =
        |netfilter: &NetfilterSettings| netfilter.localhost_node_ports && netfilter.families.contains(Family::Ipv4);
    settings.netfilter.as_ref().is_some_and(is_wanted) && settings.node_ports.include_loopback()
}

/// The address of the node that is in the way of node ports on loopback addresses, if there is one: our own way has the
/// same.
pub fn taken_on_the_way(state: &State) -> Option<Ipv4Addr> {
    [NEAR_ADDRESS, FAR_ADDRESS].into_iter().find(|address| state.node().addresses.contains(&(*address).into()))
}

/// The node's addresses with node ports, of both families.
pub fn addresses<'a>(settings: &'a Settings, state: &'a State) -> impl Iterator<Item = IpAddr> + 'a {
    state.node().addresses.iter().copied().filter(move |address| is_chosen(*address, settings, state))
}

/// Where to listen that is asked for on node ports: the same addresses, with the unspecified one of a family for all of
/// it.
pub fn listening<'a>(settings: &'a Settings, state: &'a State) -> impl Iterator<Item = IpAddr> + 'a {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let is_all = |address: &IpAddr| settings.node_ports.is_all_of(Family::of(*address));
    let some = addresses(settings, state).filter(move |address| !is_all(address));
    everywhere.into_iter().filter(move |address| is_all(address)).chain(some)
}

fn is_chosen(address: IpAddr, settings: &Settings, state: &State) -> bool {
    let family = Family::of(address);
    match &settings.node_ports {
        NodePortAddresses::Primary => primary(family, settings, state) == Some(address),
        NodePortAddresses::Within(ranges) if !settings.node_ports.is_all_of(family) => {
            ranges.iter().any(|range| range.contains(&address))
        }
        NodePortAddresses::Any | NodePortAddresses::Within(_) => true,
    }
}

/// The node's primary address of a family: what the operator says, else what the cluster says of the node or, without a
/// cluster, the one that its own traffic carries.
pub fn primary(family: Family, settings: &Settings, state: &State) -> Option<IpAddr> {
    let of_family = |address: &IpAddr| Family::of(*address) == family;
    let chosen = settings.bind_address.filter(of_family);
    let told = || state.node_object().addresses.iter().copied().find(of_family);
    let carried = || if settings.has_cluster { None } else { state.node().primary(family) };
    chosen.or_else(told).or_else(carried)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Change, Node, NodeObject};

    fn list<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Vec<T> {
        text.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    /// A node with addresses of both families, of which its own traffic carries .1 and ::1.
    fn state(told: &str) -> State {
        let mut state = State::default();
        state.apply(Change::Node(Node {
            addresses: list("192.0.2.1 192.0.2.2 198.51.100.1 2001:db8::1 2001:db8::2").into_iter().collect(),
            primary_ipv4: Some([192, 0, 2, 1].into()),
            primary_ipv6: Some("2001:db8::1".parse().unwrap()),
        }));
        state.apply(Change::NodeObject(NodeObject { addresses: list(told), ..NodeObject::default() }));
        state
    }

    #[test]
    fn ranges_choose_within_their_own_family() {
        let all = "192.0.2.1 192.0.2.2 198.51.100.1 2001:db8::1 2001:db8::2";
        for (ranges, wanted) in [
            ("", all),
            ("192.0.2.0/24", "192.0.2.1 192.0.2.2 2001:db8::1 2001:db8::2"),
            ("192.0.2.2/32 198.51.100.0/24", "192.0.2.2 198.51.100.1 2001:db8::1 2001:db8::2"),
            ("192.0.2.2/32 0.0.0.0/0 2001:db8::2/128", "192.0.2.1 192.0.2.2 198.51.100.1 2001:db8::2"),
            ("10.0.0.0/8 fd00::/8", ""),
            ("::/0", all),
        ] {
            let node_ports = NodePortAddresses::Within(list(ranges));
            let settings = Settings { node_ports, ..Settings::default() };
            assert_eq!(addresses(&settings, &state("")).collect::<Vec<_>>(), list::<IpAddr>(wanted), "{ranges}");
        }
    }

    #[test]
    fn the_primary_address_is_the_operators_then_the_clusters_then_the_networks() {
        for (bind_address, told, wanted) in [
            (None, "", "192.0.2.1 2001:db8::1"),
            (None, "198.51.100.1", "198.51.100.1 2001:db8::1"),
            (None, "2001:db8::2 198.51.100.1 192.0.2.2", "198.51.100.1 2001:db8::2"),
            (Some("192.0.2.2"), "2001:db8::2 198.51.100.1", "192.0.2.2 2001:db8::2"),
            // An address that the node does not have, as behind NAT: nothing rather than everything.
            (None, "203.0.113.9", "2001:db8::1"),
            (Some("203.0.113.9"), "198.51.100.1", "2001:db8::1"),
        ] {
            let bind_address = bind_address.map(|address| address.parse().unwrap());
            let settings = Settings { node_ports: NodePortAddresses::Primary, bind_address, ..Settings::default() };
            let found: Vec<IpAddr> = addresses(&settings, &state(told)).collect();
            assert_eq!(found, list::<IpAddr>(wanted), "{bind_address:?} {told}");
        }
    }

    #[test]
    fn with_a_cluster_a_primary_address_that_it_does_not_say_is_not_known() {
        for (told, wanted) in [("", ""), ("2001:db8::2", "2001:db8::2"), ("192.0.2.2", "192.0.2.2")] {
            let node_ports = NodePortAddresses::Primary;
            let settings = Settings { node_ports, has_cluster: true, ..Settings::default() };
            assert_eq!(addresses(&settings, &state(told)).collect::<Vec<_>>(), list::<IpAddr>(wanted), "{told}");
        }
    }

    #[test]
    fn a_node_of_which_nothing_is_known_has_no_node_ports() {
        for node_ports in [NodePortAddresses::Any, NodePortAddresses::Primary] {
            let settings = Settings { node_ports, ..Settings::default() };
            assert_eq!(addresses(&settings, &State::default()).next(), None);
        }
    }

    #[test]
    fn loopback_addresses_are_chosen_by_all_or_by_name_where_netfilter_can_lead_there() {
        let settings = |node_ports, netfilter| Settings { node_ports, netfilter, ..Settings::default() };
        let on = || Some(NetfilterSettings::default());
        for (ranges, wanted) in [
            ("", true),
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("127.0.0.0/8", true),
            ("192.0.2.0/24 127.0.0.1/32", true),
            ("126.0.0.0/7", true),
            ("192.0.2.0/24", false),
            ("::1/128 192.0.2.0/24", false),
        ] {
            let within = NodePortAddresses::Within(list(ranges));
            assert_eq!(are_on_localhost(&settings(within, on())), wanted, "{ranges}");
        }
        assert!(are_on_localhost(&settings(NodePortAddresses::Any, on())));
        assert!(!are_on_localhost(&settings(NodePortAddresses::Primary, on())));
        assert!(!are_on_localhost(&settings(NodePortAddresses::Any, None)));
        for netfilter in [
            NetfilterSettings { localhost_node_ports: false, ..NetfilterSettings::default() },
            NetfilterSettings { families: [Family::Ipv6].into_iter().collect(), ..NetfilterSettings::default() },
        ] {
            assert!(!are_on_localhost(&settings(NodePortAddresses::Any, Some(netfilter))));
        }
    }

    #[test]
    fn an_address_of_the_node_may_be_in_the_way() {
        let mut state = state("");
        assert_eq!(taken_on_the_way(&state), None);
        state.apply(Change::Node(Node { addresses: [FAR_ADDRESS.into()].into(), ..Node::default() }));
        assert_eq!(taken_on_the_way(&state), Some(FAR_ADDRESS));
    }

    #[test]
    fn whether_all_addresses_of_a_family_are_chosen_is_plain() {
        for (node_ports, wanted) in [
            (NodePortAddresses::Any, [true, true]),
            (NodePortAddresses::Primary, [false, false]),
            (NodePortAddresses::Within(list("192.0.2.0/24")), [false, true]),
            (NodePortAddresses::Within(list("192.0.2.0/24 0.0.0.0/0 ::1/128")), [true, false]),
        ] {
            assert_eq!([Family::Ipv4, Family::Ipv6].map(|family| node_ports.is_all_of(family)), wanted);
        }
    }
}
