//! What is to be done: compares what is wanted with what was found, as far as a change or a reading may have made them
//! differ.

use super::localhost::Localhost;
use super::netfilter::Netfilter;
use super::reading::Reading;
use super::{Reconciler, takeover};
use crate::desired::Moment;
use crate::desired::drain::Occasion;
use crate::desired::routes::{self, Standing};
use crate::diff::Steps;
use crate::kernel::Kernel;
use crate::model::{LocalhostPath, Op, VirtualServerKey};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

impl<K: Kernel> Reconciler<K> {
    /// The operations that make what was found what is wanted, in a safe order.
    pub(super) fn decide(&mut self, reading: &Reading, now: Moment) -> Vec<Op> {
        self.update_plan();
        let touched = self.take_touched(reading);
        let mut steps = Steps::default();
        let served = self.decide_virtual_servers(&touched, (reading, now), &mut steps);
        let members = self.plan.netfilter_mut().claims.take_touched();
        let (netfilter, claims) = (self.netfilter(), &self.plan.netfilter().claims);
        if reading.is_whole() {
            netfilter.compare_all(|key| claims.members(key), &mut steps);
        } else {
            netfilter.compare_touched(&members, claims, &mut steps);
        }
        self.decide_routes(&touched, (&served, reading), &mut steps);
        if reading.is_whole() {
            self.decide_of_the_node(now, &mut steps);
        }
        steps.into_ops()
    }

    /// Takes changes of the input into the plan, and notes what they touch.
    pub(super) fn update_plan(&mut self) {
        let dirty = self.state.take_dirty();
        self.touched.append(&mut self.plan.update(&self.state, &self.settings, dirty));
        let moved = self.state.take_moved();
        self.touched.extend(moved.into_iter().flat_map(|address| self.plan.of_address(address)).map(|(key, _)| key));
    }

    /// The virtual servers that this is about; nobody else's.
    fn take_touched(&mut self, reading: &Reading) -> BTreeSet<VirtualServerKey> {
        let mut touched = std::mem::take(&mut self.touched);
        match reading {
            Reading::Nothing => {}
            Reading::Some(keys, _) => touched.extend(keys),
            Reading::All | Reading::Outline => {
                touched.extend(self.plan.keys());
                touched.extend(self.found.model.virtual_servers.keys());
            }
        }
        touched.retain(|key| !self.found.foreign.contains(key));
        touched
    }

    /// Compares these virtual servers. Returns the addresses of those that stay.
    fn decide_virtual_servers(
        &mut self,
        touched: &BTreeSet<VirtualServerKey>,
        (reading, now): (&Reading, Moment),
        steps: &mut Steps,
    ) -> BTreeSet<IpAddr> {
        let (mut served, mut departed) = (BTreeSet::new(), Vec::new());
        for key in touched {
            let timeout = self.drain_timeout(key);
            let counted = reading.counted(key, &self.found.connections);
            let occasion = Occasion { now, timeout, linger: self.options.linger, counted };
            let found = self.found.model.virtual_servers.get(key);
            let planned = self.plan.virtual_server(key);
            let wanted = match &mut self.inherited {
                Some(inherited) => inherited.complete(key, planned),
                None => planned.map(Cow::Borrowed),
            };
            let kept = self.drains.keep(*key, (wanted.as_deref(), found), occasion);
            steps.virtual_server(*key, kept.as_deref(), found);
            match kept {
                Some(_) => served.extend(key.address()),
                None => departed.push(*key),
            }
        }
        departed.iter().for_each(|key| self.plan.forget_drain_timeout(key));
        served
    }

    /// How long departing destinations of a virtual server may keep their connections.
    fn drain_timeout(&self, key: &VirtualServerKey) -> Duration {
        // Where rules balance nothing has to wait, whatever a Service says: connection tracking keeps connections.
        let own = self.plan.drain_timeout(key).filter(|_| !self.settings.balances_by_nat());
        own.unwrap_or(self.options.drain_timeout)
    }

    /// Compares the routes of the addresses touched. `served` has those on which a touched virtual server stays.
    fn decide_routes(
        &self,
        touched: &BTreeSet<VirtualServerKey>,
        (served, reading): (&BTreeSet<IpAddr>, &Reading),
        steps: &mut Steps,
    ) {
        let found = &self.found.model;
        let netfilter = self.netfilter();
        let mut addresses: BTreeSet<IpAddr> = touched.iter().filter_map(VirtualServerKey::address).collect();
        if reading.is_whole() {
            addresses.extend(found.routes.keys());
            addresses.extend(netfilter.found_vips());
        }
        for address in addresses {
            let of_address = VirtualServerKey::first_of(address)..=VirtualServerKey::last_of(address);
            let mut untouched = found.virtual_servers.range(of_address).filter(|(key, _)| !touched.contains(key));
            let route = found.routes.get(&address);
            let standing = Standing {
                is_served: served.contains(&address) || untouched.next().is_some(),
                is_vip: route.is_some()
                    || self.plan.serves(address..=address)
                    || found.is_on_kube_proxy_device(address),
                is_elsewhere: self.view().is_elsewhere(address),
            };
            let wanted = routes::route(address, standing, self.state.node());
            steps.route(address, wanted.as_ref(), route);
            netfilter.vip(address, wanted.is_some(), steps);
        }
    }

    /// Compares what a node has once: what kube-proxy left, and the way from 127.0.0.1.
    fn decide_of_the_node(&self, now: Moment, steps: &mut Steps) {
        let found = &self.found.model;
        // While some Service cannot be read, its node ports cannot be recognised.
        let is_in_doubt = self.state.is_in_doubt();
        if found.kube_proxy_device.is_some() && !is_in_doubt && !takeover::others_need_device(&self.found) {
            steps.remove_kube_proxy_device();
        }
        let netfilter = self.netfilter();
        self.clearing.decide(found, |family| !is_in_doubt && netfilter.replaces_kube_proxy(family), steps);
        let wanted = Localhost::is_wanted(&self.settings, &self.state).then_some(LocalhostPath::Whole);
        if wanted.is_none() || self.localhost.is_tried(now) {
            steps.localhost_path(wanted, found.localhost_path);
        }
    }

    fn netfilter(&self) -> Netfilter<'_> {
        Netfilter {
            rules: self.view().rules(),
            is_in_doubt: self.state.is_in_doubt(),
            // Whoever keeps off netfilter reads nothing of it; where some was read and nothing is wanted, all goes.
            cleans_up: self.settings.netfilter.is_none() && self.options.takeover.is_on(),
            found: &self.found.model,
        }
    }
}
