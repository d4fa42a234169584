//! External addresses that are an endpoint's: a host's own, or a pod's, on this node too; and those of the API servers.
//!
//! Only addresses that Services ask for are kept, which are few; a slice costs a look-up for each of its endpoints. Where
//! an address is asked for that nobody asked for before, all slices are looked through once, for all such addresses
//! together.

use super::{EndpointSlice, ObjectName, Service};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::net::{IpAddr, SocketAddr};

/// Who asks for external addresses, and whose they are.
#[derive(Debug, Default)]
pub struct ExternalAddresses {
    /// By address; no entry is without a Service.
    claims: HashMap<IpAddr, Claim>,
    /// Those for which the slices are still to be looked through.
    new: HashSet<IpAddr>,
    /// Those that became an endpoint's or ceased to be since [`ExternalAddresses::take_moved`].
    moved: BTreeSet<IpAddr>,
    /// Where the API servers are, whoever asks for their addresses.
    api_servers: BTreeSet<SocketAddr>,
}

/// What is known of an address.
#[derive(Debug, Default)]
struct Claim {
    /// The Services that ask for it as an external or load-balancer IP, each once.
    services: Vec<ObjectName>,
    /// How many endpoints have it, counted by slice.
    endpoints: usize,
}

/// What happens to a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is put in.
    Comes,
    /// It is taken out.
    Goes,
}

impl ExternalAddresses {
    /// Takes in that a Service is asked for in another way than before, or no more.
    pub fn replace(&mut self, before: Option<&Service>, after: Option<&Service>) {
        for (service, address) in before.into_iter().flat_map(asked) {
            let Some(claim) = self.claims.get_mut(&address) else { continue };
            claim.services.retain(|name| *name != service.name);
        }
        for (service, address) in after.into_iter().flat_map(asked) {
            let claim = self.claims.entry(address).or_insert_with(|| {
                self.new.insert(address);
                Claim { services: Vec::with_capacity(1), endpoints: 0 }
            });
            if !claim.services.contains(&service.name) {
                claim.services.push(service.name.clone());
            }
        }
        for (_, address) in before.into_iter().flat_map(asked) {
            if self.claims.get(&address).is_some_and(|claim| claim.services.is_empty()) {
                self.claims.remove(&address);
                self.new.remove(&address);
            }
        }
    }

    /// Takes in a slice that comes or goes. Returns the Services that it makes a difference to.
    pub fn count(&mut self, slice: &EndpointSlice, turn: Turn) -> BTreeSet<ObjectName> {
        let mut concerned = BTreeSet::new();
        if self.claims.is_empty() {
            return concerned;
        }
        for address in owners(slice) {
            let Some(claim) = self.claims.get_mut(&address).filter(|_| !self.new.contains(&address)) else { continue };
            let was_owned = claim.endpoints > 0;
            claim.endpoints = match turn {
                Turn::Comes => claim.endpoints.saturating_add(1),
                Turn::Goes => claim.endpoints.saturating_sub(1),
            };
            if was_owned != (claim.endpoints > 0) {
                self.moved.insert(address);
                concerned.extend(claim.services.iter().cloned());
            }
        }
        concerned
    }

    /// Looks through all slices for addresses that are new. Returns the Services that it makes a difference to.
    pub fn look_through<'s>(&mut self, slices: impl Iterator<Item = &'s EndpointSlice>) -> BTreeSet<ObjectName> {
        let mut concerned = BTreeSet::new();
        if self.new.is_empty() {
            return concerned;
        }
        let new = mem::take(&mut self.new);
        for address in slices.flat_map(owners).filter(|address| new.contains(address)) {
            let Some(claim) = self.claims.get_mut(&address) else { continue };
            claim.endpoints += 1;
            self.moved.insert(address);
            concerned.extend(claim.services.iter().cloned());
        }
        concerned
    }

    /// Takes in where the API servers are. Returns the Services that it makes a difference to.
    pub fn set_api_servers(&mut self, servers: BTreeSet<SocketAddr>) -> BTreeSet<ObjectName> {
        let before = mem::replace(&mut self.api_servers, servers);
        let moved: BTreeSet<_> = (&before ^ &self.api_servers).iter().map(SocketAddr::ip).collect();
        let claims = moved.iter().filter_map(|address| self.claims.get(address));
        let concerned = claims.flat_map(|claim| claim.services.iter().cloned()).collect();
        self.moved.extend(moved);
        concerned
    }

    /// Whether an address is that of an API server.
    pub fn is_api_servers(&self, address: IpAddr) -> bool {
        self.api_servers.iter().any(|server| server.ip() == address)
    }

    /// Whether an API server is at an address and TCP port.
    pub fn has_api_server(&self, at: SocketAddr) -> bool {
        self.api_servers.contains(&at)
    }

    /// Whether an address that a Service asks for is an endpoint's, or an API server's.
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.claims.get(&address).is_some_and(|claim| claim.endpoints > 0 || self.is_api_servers(address))
    }

    /// The addresses that became an endpoint's or ceased to be since the last call.
    pub fn take_moved(&mut self) -> BTreeSet<IpAddr> {
        mem::take(&mut self.moved)
    }
}

/// The external addresses that a Service asks for.
fn asked(service: &Service) -> impl Iterator<Item = (&Service, IpAddr)> {
    service.external_ips.iter().chain(&service.load_balancer_ips).map(move |address| (service, *address))
}

/// The addresses that a slice says are somebody's. Those of this node itself need no route anyway.
fn owners(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let endpoints = if slice.is_of_nodes { slice.endpoints.as_slice() } else { &[] };
    endpoints.iter().map(|endpoint| endpoint.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Family;
    use crate::state::Whereabouts::{self, Elsewhere, Here};
    use crate::state::{Change, Endpoint, State};

    const HOST: [u8; 4] = [192, 0, 2, 7];

    fn service(name: &str, external_ips: &[[u8; 4]]) -> Change {
        let external_ips = external_ips.iter().map(|address| IpAddr::from(*address)).collect();
        let service = Service { external_ips, ..Service::new(ObjectName::new("default", name)) };
        Change::Service(service.into())
    }

    fn slice(name: &str, endpoints: &[([u8; 4], Whereabouts)]) -> Change {
        let endpoint = |&(address, node): &([u8; 4], Whereabouts)| Endpoint { node, ..Endpoint::new(address.into()) };
        let [name, agents] = [name, "agents"].map(|name| ObjectName::new("default", name));
        let endpoints = endpoints.iter().map(endpoint).collect();
        let slice = EndpointSlice { endpoints, ..EndpointSlice::new(name, agents, Family::Ipv4) };
        Change::EndpointSlice(slice.into())
    }

    /// Whether the host's address is elsewhere, and who is dirty.
    fn after(state: &mut State, change: Change) -> (bool, Vec<String>) {
        state.apply(change);
        let dirty = state.take_dirty().iter().map(|name| name.name.to_string()).collect();
        (state.is_elsewhere(HOST.into()), dirty)
    }

    #[test]
    fn an_address_is_elsewhere_while_any_endpoint_has_it() {
        let mut state = State::default();
        let gone = |name: &str| Change::EndpointSliceGone(ObjectName::new("default", name));
        for (change, is_elsewhere, dirty) in [
            (service("other", &[[192, 0, 2, 8]]), false, &["other"][..]),
            (service("web", &[HOST]), false, &["web"]),
            (slice("here", &[(HOST, Here)]), true, &["agents", "web"]),
            (gone("here"), false, &["agents", "web"]),
            (slice("there", &[(HOST, Elsewhere), ([10, 1, 0, 1], Elsewhere)]), true, &["agents", "web"]),
            (slice("there-too", &[(HOST, Elsewhere)]), true, &["agents"]),
            (gone("there"), true, &["agents"]),
            (gone("there-too"), false, &["agents", "web"]),
        ] {
            let text = format!("{change:?}");
            let dirty = dirty.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(after(&mut state, change), (is_elsewhere, dirty), "{text}");
        }
    }

    #[test]
    fn the_order_of_services_and_slices_makes_no_difference() {
        let changes = || [slice("there", &[(HOST, Elsewhere)]), service("web", &[HOST]), service("too", &[HOST])];
        for rotation in 0..3 {
            let mut state = State::default();
            let mut changes = changes();
            changes.rotate_left(rotation);
            changes.into_iter().for_each(|change| state.apply(change));
            state.take_dirty();
            assert!(state.is_elsewhere(HOST.into()));
            assert_eq!(state.take_moved(), BTreeSet::from([HOST.into()]));
            assert_eq!(state.take_moved(), BTreeSet::new());
        }
    }

    #[test]
    fn an_api_servers_address_is_elsewhere_for_those_who_ask_for_it() {
        let mut state = State::default();
        let servers =
            |addresses: &[[u8; 4]]| Change::ApiServers(addresses.iter().map(|at| (*at, 6443).into()).collect());
        let dirty = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(after(&mut state, servers(&[HOST])), (false, dirty(&[])), "nobody asks for it");
        assert_eq!(after(&mut state, service("web", &[HOST])), (true, dirty(&["web"])));
        assert_eq!(after(&mut state, servers(&[[192, 0, 2, 8]])), (false, dirty(&["web"])));
        assert_eq!(after(&mut state, servers(&[HOST])), (true, dirty(&["web"])));
        assert!(state.is_api_servers(HOST.into()));
        assert_eq!([443, 6443].map(|port| state.has_api_server((HOST, port).into())), [false, true]);
        assert_eq!(state.take_moved(), BTreeSet::from([HOST.into(), [192, 0, 2, 8].into()]));
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten() {
        let mut state = State::default();
        state.apply(service("web", &[HOST]));
        state.apply(slice("there", &[(HOST, Elsewhere)]));
        assert_eq!(after(&mut state, service("web", &[])), (false, vec!["agents".to_owned(), "web".to_owned()]));
        assert!(after(&mut state, service("web", &[HOST])).0, "it is looked for again");
        assert!(!after(&mut state, Change::OnlyServices(HashSet::new())).0);
    }
}
