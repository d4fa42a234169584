//! Taking over from a kube-proxy that ran in ipvs mode on this node: which virtual servers were its own, and when its
//! device may go.
//!
//! kube-proxy marks nothing as its own, but keeps every VIP on a device. While that device is there, a virtual server
//! on one of its addresses was kube-proxy's; so was one that a Service asks for and that has another address, a node
//! port for instance. Read like one of ours that lost its tag, each of them is then repaired in place, or drains if
//! nobody asks for it. The device goes last, when routes of ours keep its addresses local.
//! What its other modes left is for `leftovers`.

use crate::kernel::{Cause, Observation};
use crate::model::netfilter::SetKey;
use crate::model::{Model, Op, VirtualServerKey};
use ipnet::IpNet;
use std::net::IpAddr;

/// What becomes of kube-proxy's virtual servers, of its device, and of what its other modes left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// They are somebody else's, like all that ipvsd did not make.
    #[default]
    Nothing,
    /// They become ours, except where the address is in one of these networks (kube-proxy's `ipvs.excludeCIDRs`).
    AllBut(Vec<IpNet>),
}

impl Takeover {
    /// Whether anything of kube-proxy's becomes ours.
    pub(super) fn is_on(&self) -> bool {
        *self != Self::Nothing
    }

    /// Takes out of a reading of everything what is not to be taken over, and so not ours: the device, what other modes
    /// left, and sets that a kube-proxy uses again.
    pub(super) fn limit(&self, seen: &mut Observation) {
        if !self.is_on() {
            seen.model.kube_proxy_device = None;
            seen.model.kube_proxy_leftovers.clear();
            seen.held.clear();
            let is_used = |key: &SetKey| key.kind.is_kube_proxys_too() && seen.kube_proxys_sets.contains(&key.family);
            seen.model.sets.retain(|key, _| !is_used(key));
        }
    }

    /// Whether a virtual server without our tag was kube-proxy's, given the reading it was found by, and whether a
    /// Service asks for it.
    pub(super) fn takes(&self, key: &VirtualServerKey, seen: &Model, is_wanted: bool) -> bool {
        let (Some(address), Some(device)) = (key.address(), &seen.kube_proxy_device) else { return false };
        self.includes(address) && (device.contains(&address) || is_wanted)
    }

    fn includes(&self, address: IpAddr) -> bool {
        match self {
            Self::Nothing => false,
            Self::AllBut(excluded) => !excluded.iter().any(|network| network.contains(&address)),
        }
    }
}

/// Whether a virtual server that stays somebody else's has its address from the device.
pub(super) fn others_need_device(found: &Observation) -> bool {
    found.foreign.iter().filter_map(VirtualServerKey::address).any(|vip| found.model.is_on_kube_proxy_device(vip))
}

/// Whether the device must stay because of what failed: one of its addresses may have no route yet, or a virtual
/// server that only the device shows to be kube-proxy's may lack our tag.
pub(super) fn failures_need_device(failed: &[(Op, Cause)], found: &Model) -> bool {
    let on_device = |op: &Op| op.address().is_some_and(|address| found.is_on_kube_proxy_device(address));
    let untagged = |op: &Op| matches!(op, Op::UpdateVirtualServer(..));
    failed.iter().any(|(op, _)| op.phase().is_of_what_comes() && (untagged(op) || on_device(op)))
}
