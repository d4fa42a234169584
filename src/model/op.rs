//! Operations: the steps from one [`Model`] to another, their order, and what each does to a model.

use super::{DestinationKey, DestinationSpec, Model, RouteSpec, VirtualServer, VirtualServerKey, VirtualServerSpec};
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
}

/// When an operation's turn comes. A packet that reaches a VIP must find its virtual server complete, so a VIP
/// is exposed last and hidden first; what goes away goes after what replaces it has come, and what kube-proxy kept
/// VIPs local with goes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Virtual servers, before their destinations.
    VirtualServers,
    /// Destinations that come or change.
    Destinations,
    /// VIPs become local.
    Expose,
    /// VIPs stop being local.
    Hide,
    /// Destinations and virtual servers that go.
    Remove,
    /// kube-proxy's device goes.
    Relieve,
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
            Self::AddRoute(..) | Self::UpdateRoute(..) | Self::RemoveRoute(_) | Self::RemoveKubeProxyDevice => None,
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
            Op::AddRoute(..) | Op::UpdateRoute(..) | Op::RemoveRoute(_) | Op::RemoveKubeProxyDevice => Ok(()),
        }
    }

    fn virtual_server_mut(&mut self, key: VirtualServerKey) -> Result<&mut VirtualServer, Refusal> {
        self.virtual_servers.get_mut(&key).ok_or(Refusal::Missing)
    }
}
