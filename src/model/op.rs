//! Operations: the steps from one [`Model`] to another, their order, and what each does to a model.

use super::netfilter::{Capacity, Mark, Member, RuleSettings, Set, SetKey};
use super::{
    DestinationKey, DestinationSpec, Family, Leftover, LocalhostPath, Model, RouteSpec, VirtualServer,
    VirtualServerKey, VirtualServerSpec,
};
use std::net::IpAddr;

/// One change of the kernel, small enough to fail alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates a virtual server without destinations.
    AddVirtualServer(VirtualServerKey, VirtualServerSpec),
    /// Changes a virtual server's settings in place; connections go on.
    UpdateVirtualServer(VirtualServerKey, VirtualServerSpec),
    /// Removes a virtual server with its destinations.
    RemoveVirtualServer(VirtualServerKey),
    /// Adds a destination to a virtual server.
    AddDestination(VirtualServerKey, DestinationKey, DestinationSpec),
    /// Changes a destination's settings in place; connections go on.
    UpdateDestination(VirtualServerKey, DestinationKey, DestinationSpec),
    /// Removes a destination; its connections end.
    RemoveDestination(VirtualServerKey, DestinationKey),
    /// Makes a VIP a local address.
    AddRoute(IpAddr, RouteSpec),
    /// Changes the preferred source of a VIP's route.
    UpdateRoute(IpAddr, RouteSpec),
    /// Makes a VIP no longer a local address.
    RemoveRoute(IpAddr),
    /// Removes kube-proxy's device with all addresses on it.
    RemoveKubeProxyDevice,
    /// Creates a set without members.
    CreateSet(SetKey, Capacity),
    /// Puts a set of another capacity, with the same members, in a set's place.
    ResizeSet(SetKey, Capacity),
    /// Removes a set with its members.
    DestroySet(SetKey),
    /// Adds a member to a set, with its mark in sets that have marks.
    AddMember(SetKey, Member, Option<Mark>),
    /// Changes the mark of a member.
    UpdateMember(SetKey, Member, Option<Mark>),
    /// Removes a member from a set.
    RemoveMember(SetKey, Member),
    /// Makes the rules of a family what these settings say, whatever they are now.
    SetRules(Family, RuleSettings),
    /// Removes the rules of a family.
    RemoveRules(Family),
    /// Removes something that kube-proxy left.
    RemoveLeftover(Leftover),
    /// Makes the way from 127.0.0.1 to IPVS whole, whatever there is of it.
    MakeLocalhostPath,
    /// Removes the way from 127.0.0.1 to IPVS.
    RemoveLocalhostPath,
}

/// When an operation's turn comes. A packet that reaches a VIP must find its virtual server complete, so a VIP
/// is exposed after it and hidden before; what goes away goes after what replaces it has come, so does what kube-proxy's
/// other modes left, and what kube-proxy kept VIPs local with goes last. Sets and rules are ready before the first
/// virtual server, so that no connection is forwarded that should have been masqueraded or dropped; rules refer to
/// sets, and lead to the way from 127.0.0.1. Masquerading is given up only while every destination is on this node: after
/// those on others have gone, and no longer when they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The way from 127.0.0.1 comes.
    Connect,
    /// Sets and members that come or change, and those that go by which masquerading was given up.
    Sets,
    /// Rules that come or change.
    Rules,
    /// Virtual servers, before their destinations.
    VirtualServers,
    /// Destinations that come or change.
    Destinations,
    /// VIPs stop being local.
    Hide,
    /// Destinations and virtual servers that go.
    Remove,
    /// Members that come by which masquerading is given up.
    Unmasquerade,
    /// VIPs become local.
    Expose,
    /// What kube-proxy's other modes left goes.
    Clear,
    /// Rules that go.
    Unrule,
    /// Members and sets that go.
    Unset,
    /// The way from 127.0.0.1 goes.
    Disconnect,
    /// kube-proxy's device goes.
    Relieve,
}

impl Phase {
    /// Whether it is of sets and rules.
    pub fn is_of_netfilter(self) -> bool {
        matches!(self, Self::Sets | Self::Rules | Self::Unmasquerade | Self::Clear | Self::Unrule | Self::Unset)
    }

    /// Whether it is of what is to stand for new connections, and not of what goes.
    pub fn is_of_what_comes(self) -> bool {
        self <= Self::Destinations || matches!(self, Self::Unmasquerade | Self::Expose)
    }
}

impl Op {
    /// The phase this operation belongs to.
    pub fn phase(&self) -> Phase {
        match self {
            Self::AddVirtualServer(..) | Self::UpdateVirtualServer(..) => Phase::VirtualServers,
            Self::AddDestination(..) | Self::UpdateDestination(..) => Phase::Destinations,
            Self::AddRoute(..) | Self::UpdateRoute(..) => Phase::Expose,
            Self::RemoveRoute(..) => Phase::Hide,
            Self::RemoveDestination(..) | Self::RemoveVirtualServer(..) => Phase::Remove,
            Self::RemoveKubeProxyDevice => Phase::Relieve,
            Self::AddMember(key, ..) if key.kind.ends_masquerading() => Phase::Unmasquerade,
            Self::RemoveMember(key, _) if key.kind.ends_masquerading() => Phase::Sets,
            Self::CreateSet(..) | Self::ResizeSet(..) | Self::AddMember(..) | Self::UpdateMember(..) => Phase::Sets,
            Self::SetRules(..) => Phase::Rules,
            Self::RemoveLeftover(..) => Phase::Clear,
            Self::RemoveRules(..) => Phase::Unrule,
            Self::RemoveMember(..) | Self::DestroySet(..) => Phase::Unset,
            Self::MakeLocalhostPath => Phase::Connect,
            Self::RemoveLocalhostPath => Phase::Disconnect,
        }
    }

    /// The operation's kind, as it is named in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AddVirtualServer(..) => "add virtual server",
            Self::UpdateVirtualServer(..) => "update virtual server",
            Self::RemoveVirtualServer(..) => "remove virtual server",
            Self::AddDestination(..) => "add destination",
            Self::UpdateDestination(..) => "update destination",
            Self::RemoveDestination(..) => "remove destination",
            Self::AddRoute(..) => "add route",
            Self::UpdateRoute(..) => "update route",
            Self::RemoveRoute(..) => "remove route",
            Self::RemoveKubeProxyDevice => "remove kube-proxy's device",
            Self::CreateSet(..) => "create set",
            Self::ResizeSet(..) => "resize set",
            Self::DestroySet(..) => "destroy set",
            Self::AddMember(..) => "add member",
            Self::UpdateMember(..) => "update member",
            Self::RemoveMember(..) => "remove member",
            Self::SetRules(..) => "set rules",
            Self::RemoveRules(..) => "remove rules",
            Self::RemoveLeftover(Leftover::Rules(_) | Leftover::OtherRules(_)) => "remove kube-proxy's rules",
            Self::RemoveLeftover(Leftover::Table(_)) => "remove kube-proxy's table",
            Self::MakeLocalhostPath => "make localhost path",
            Self::RemoveLocalhostPath => "remove localhost path",
        }
    }

    /// The virtual server this operation is about, if it is about one.
    pub fn virtual_server(&self) -> Option<VirtualServerKey> {
        match self {
            Self::AddVirtualServer(key, _)
            | Self::UpdateVirtualServer(key, _)
            | Self::RemoveVirtualServer(key)
            | Self::AddDestination(key, ..)
            | Self::UpdateDestination(key, ..)
            | Self::RemoveDestination(key, _) => Some(*key),
            _ => None,
        }
    }

    /// The set this operation is about, if it is about one.
    pub fn set(&self) -> Option<SetKey> {
        match self {
            Self::CreateSet(key, _)
            | Self::ResizeSet(key, _)
            | Self::DestroySet(key)
            | Self::AddMember(key, ..)
            | Self::UpdateMember(key, ..)
            | Self::RemoveMember(key, _) => Some(*key),
            _ => None,
        }
    }

    /// The family this operation is about; none if it is about both.
    pub fn family(&self) -> Option<Family> {
        match self {
            Self::RemoveKubeProxyDevice => None,
            Self::SetRules(family, _) | Self::RemoveRules(family) => Some(*family),
            Self::RemoveLeftover(leftover) => Some(leftover.family()),
            _ => {
                let of_server = self.virtual_server().map(|key| key.family());
                of_server.or(self.set().map(|key| key.family)).or_else(|| self.address().map(Family::of))
            }
        }
    }

    /// The address this operation is about, if it is about one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::AddRoute(vip, _) | Self::UpdateRoute(vip, _) | Self::RemoveRoute(vip) => Some(*vip),
            _ => self.virtual_server().and_then(|key| key.address()),
        }
    }
}

/// Why an operation cannot be applied to a model: the same refusals the kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What should be added is there already (`EEXIST`).
    #[error("it exists already")]
    Exists,
    /// What should be changed or removed is not there (`ENOENT`, `ESRCH`).
    #[error("it does not exist")]
    Missing,
    /// The set has as many members as it may have.
    #[error("the set is full")]
    Full,
}

impl Model {
    /// Does to this model what the kernel does on `op`.
    ///
    /// # Errors
    /// The kernel's refusal, the model being unchanged then.
    pub fn apply(&mut self, op: &Op) -> Result<(), Refusal> {
        match *op {
            Op::AddRoute(vip, _) if self.routes.contains_key(&vip) => Err(Refusal::Exists),
            Op::AddRoute(vip, spec) => {
                self.routes.insert(vip, spec);
                Ok(())
            }
            Op::UpdateRoute(vip, spec) => self.routes.get_mut(&vip).map(|found| *found = spec).ok_or(Refusal::Missing),
            Op::RemoveRoute(vip) => self.routes.remove(&vip).map(|_| ()).ok_or(Refusal::Missing),
            Op::RemoveKubeProxyDevice => self.kube_proxy_device.take().map(|_| ()).ok_or(Refusal::Missing),
            Op::SetRules(family, settings) => {
                self.rules.insert(family, settings);
                Ok(())
            }
            // Also where they are not whole, and so not known.
            Op::RemoveRules(family) => {
                self.rules.remove(&family);
                Ok(())
            }
            // What is not there is as good as removed: the reading may be of some time ago.
            Op::RemoveLeftover(leftover) => {
                self.kube_proxy_leftovers.remove(&leftover);
                Ok(())
            }
            Op::MakeLocalhostPath => {
                self.localhost_path = Some(LocalhostPath::Whole);
                Ok(())
            }
            Op::RemoveLocalhostPath => self.localhost_path.take().map(|_| ()).ok_or(Refusal::Missing),
            Op::CreateSet(..)
            | Op::ResizeSet(..)
            | Op::DestroySet(_)
            | Op::AddMember(..)
            | Op::UpdateMember(..)
            | Op::RemoveMember(..) => self.apply_to_set(op),
            _ => self.apply_to_virtual_server(op),
        }
    }

    fn apply_to_virtual_server(&mut self, op: &Op) -> Result<(), Refusal> {
        match *op {
            Op::AddVirtualServer(key, spec) => {
                if self.virtual_servers.contains_key(&key) {
                    return Err(Refusal::Exists);
                }
                self.virtual_servers.insert(key, VirtualServer { spec, destinations: Default::default() });
                Ok(())
            }
            Op::UpdateVirtualServer(key, spec) => {
                self.virtual_server_mut(key)?.spec = spec;
                Ok(())
            }
            Op::RemoveVirtualServer(key) => self.virtual_servers.remove(&key).map(|_| ()).ok_or(Refusal::Missing),
            Op::AddDestination(key, destination, spec) => {
                let destinations = &mut self.virtual_server_mut(key)?.destinations;
                if destinations.contains_key(&destination) {
                    return Err(Refusal::Exists);
                }
                destinations.insert(destination, spec);
                Ok(())
            }
            Op::UpdateDestination(key, destination, spec) => {
                let destinations = &mut self.virtual_server_mut(key)?.destinations;
                destinations.get_mut(&destination).map(|found| *found = spec).ok_or(Refusal::Missing)
            }
            Op::RemoveDestination(key, destination) => {
                self.virtual_server_mut(key)?.destinations.remove(&destination).map(|_| ()).ok_or(Refusal::Missing)
            }
            _ => Ok(()),
        }
    }

    fn apply_to_set(&mut self, op: &Op) -> Result<(), Refusal> {
        match *op {
            Op::CreateSet(key, _) if self.sets.contains_key(&key) => return Err(Refusal::Exists),
            Op::CreateSet(key, capacity) => drop(self.sets.insert(key, Set { capacity, ..Set::default() })),
            Op::ResizeSet(key, capacity) => self.set_mut(key)?.capacity = capacity,
            Op::DestroySet(key) => drop(self.sets.remove(&key).ok_or(Refusal::Missing)?),
            Op::AddMember(key, member, mark) => {
                let set = self.set_mut(key)?;
                if set.members.contains_key(&member) {
                    return Err(Refusal::Exists);
                }
                if set.is_full(key.kind) {
                    return Err(Refusal::Full);
                }
                set.members.insert(member, mark);
            }
            // The kernel adds what is not there.
            Op::UpdateMember(key, member, mark) => {
                self.set_mut(key)?.members.insert(member, mark);
            }
            Op::RemoveMember(key, member) => {
                return self.set_mut(key)?.members.remove(&member).map(|_| ()).ok_or(Refusal::Missing);
            }
            _ => {}
        }
        Ok(())
    }

    fn set_mut(&mut self, key: SetKey) -> Result<&mut Set, Refusal> {
        self.sets.get_mut(&key).ok_or(Refusal::Missing)
    }

    fn virtual_server_mut(&mut self, key: VirtualServerKey) -> Result<&mut VirtualServer, Refusal> {
        self.virtual_servers.get_mut(&key).ok_or(Refusal::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::model::netfilter::{AddressPort, SetKind};
    use std::net::Ipv4Addr;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

    /// What is masqueraded though its destination is on another node has its answers come back by this one; what is not
    /// never hears of them, and connection tracking keeps it so for as long as it tries.
    #[test]
    fn masquerading_is_given_up_only_while_no_destination_is_on_another_node() {
        let key = VirtualServerKey::new(VIP, 80, Protocol::Tcp);
        let elsewhere = DestinationKey { address: Ipv4Addr::new(10, 1, 1, 1).into(), port: 8080 };
        let member = Member::AddressPort(AddressPort { address: VIP, protocol: Protocol::Tcp, port: 80 });
        for kind in SetKind::ALL.into_iter().filter(|kind| kind.ends_masquerading()) {
            let set = SetKey { kind, family: Family::Ipv4 };
            let to_local = [
                Op::RemoveDestination(key, elsewhere),
                Op::AddMember(set, member, None),
                Op::AddRoute(VIP, RouteSpec::default()),
            ];
            let to_cluster =
                [Op::RemoveMember(set, member), Op::AddDestination(key, elsewhere, DestinationSpec::masquerading(1))];
            for in_order in [&to_local[..], &to_cluster] {
                assert!(in_order.is_sorted_by(|one, next| one.phase() < next.phase()), "{in_order:?}");
            }
        }
    }
}
