//! What the reconciler knows, for those who explain it.

use super::localhost::Localhost;
use super::{Options, Reconciler};
use crate::desired::{Drains, Inherited, Plan, Settings, netfilter};
use crate::kernel::Observation;
use crate::model::Family;
use crate::model::netfilter::RuleSettings;
use crate::state::State;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything that is decided by and from, as of the last pass.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the cluster says.
    pub state: &'a State,
    /// What the deciding depends on besides.
    pub settings: &'a Settings,
    /// What the operator decides about reconciling.
    pub options: &'a Options,
    /// What the Services make together.
    pub plan: &'a Plan,
    /// What departs.
    pub drains: &'a Drains,
    /// What an earlier process made and nobody can judge; none before the first reading.
    pub inherited: Option<&'a Inherited>,
    /// Whether node ports are to be on 127.0.0.1.
    pub is_localhost_wanted: bool,
    /// Whether the way from there can be had.
    pub is_localhost_usable: bool,
    /// The kernel, as it was last read or changed.
    pub found: &'a Observation,
}

impl<K> Reconciler<K> {
    /// What is known, to look at.
    pub fn view(&self) -> View<'_> {
        View {
            state: &self.state,
            settings: &self.settings,
            options: &self.options,
            plan: &self.plan,
            drains: &self.drains,
            inherited: self.inherited.as_ref(),
            is_localhost_wanted: Localhost::is_wanted(&self.settings, &self.state),
            is_localhost_usable: self.localhost.is_usable(),
            found: &self.found,
        }
    }
}

impl View<'_> {
    /// Whether an address is another node's own, and no Service's cluster IP.
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.state.is_elsewhere(address) && !self.is_cluster_ip(address)
    }

    /// The rules that each family should have. They lead from 127.0.0.1 where the way from there can be had.
    pub fn rules(&self) -> BTreeMap<Family, RuleSettings> {
        let localhost = self.is_localhost_wanted && self.is_localhost_usable;
        netfilter::rules(self.settings.netfilter.as_ref(), self.state, localhost)
    }

    fn is_cluster_ip(&self, address: IpAddr) -> bool {
        let mut services = self.plan.of_address(address).filter_map(|(_, owner)| self.state.service(owner));
        services.any(|service| service.cluster_ips.contains(&address))
    }
}
