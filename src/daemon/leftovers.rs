//! IPVS's virtual servers of a time when it balanced, on a node where rules do now: they take nothing new, and keep the
//! connections that they have until these end or a deadline passes.
//!
//! That is what a reconciler does that wants nothing, of a kernel that shows it nothing but virtual servers. kube-proxy's device
//! stays as long, as its addresses are what leads to those that no Service asks for.

use crate::config::Config;
use crate::desired::Settings;
use crate::kernel::linux::{DeviceLoan, Linux};
use crate::kernel::{Failure, Forgotten, Kernel, Observation, ObserveError, Scope};
use crate::model::netfilter::AddressPort;
use crate::model::{Family, Kept, Model, Op, Protocol, VirtualServerKey};
use crate::reconcile::{Options, Reconciler, Takeover};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What wants none of them.
pub type Leftovers = Reconciler<Remains<Linux>>;

/// A kernel of which only virtual servers are shown, and the addresses that say which of them were kube-proxy's.
#[derive(Debug)]
pub struct Remains<K> {
    kernel: K,
    /// What was on kube-proxy's device in the beginning, as others remove it meanwhile.
    device: Option<BTreeSet<IpAddr>>,
    /// Those that Services ask for, which were kube-proxy's too, as those of node ports.
    asked_for: BTreeSet<VirtualServerKey>,
    /// Keeps the device in the meantime.
    loan: Option<Arc<DeviceLoan>>,
}

/// What is left of IPVS on this node, none if there is nothing. To be asked before anything else is changed. `balancing` is
/// what balances in its place.
pub fn find(config: &Config, balancing: &mut Linux) -> Option<Leftovers> {
    // What cannot be read now cannot be drained either, and does no harm: no new connection gets there.
    let mut remains = Remains::of(Linux::open_as_is().ok()?, &config.options.takeover).ok()??;
    remains.loan = remains.device.is_some().then(|| balancing.lend_device());
    // Their addresses stay the node's, which resets what is cut: no virtual server is needed for that.
    let options = Options { linger: Duration::ZERO, ..config.options.clone() };
    Some(Reconciler::new(remains, Settings::default(), options))
}

impl<K: Kernel> Remains<K> {
    fn of(mut kernel: K, takeover: &Takeover) -> Result<Option<Self>, ObserveError> {
        let seen = kernel.observe(Scope::All)?;
        let device = seen.model.kube_proxy_device.filter(|_| *takeover != Takeover::Nothing);
        let was_kube_proxys = device.is_some() && !seen.foreign.is_empty();
        let is_any = !seen.model.virtual_servers.is_empty() || was_kube_proxys;
        Ok(is_any.then_some(Self { kernel, device, asked_for: BTreeSet::new(), loan: None }))
    }

    /// Takes those that Services ask for as what kube-proxy had for them, if it was here.
    pub fn take_asked_for(&mut self, keys: impl Iterator<Item = VirtualServerKey>) {
        if self.device.is_some() {
            self.asked_for = keys.collect();
        }
    }

    /// What a reading shows, with those that only Services tell of.
    fn with_asked_for(&mut self, mut seen: Observation) -> Result<Observation, ObserveError> {
        let keys: Vec<_> = seen.foreign.intersection(&self.asked_for).copied().collect();
        if !keys.is_empty() {
            let mut more = self.kernel.observe(Scope::VirtualServers(&keys))?;
            seen.foreign.retain(|key| !more.model.virtual_servers.contains_key(key));
            seen.model.virtual_servers.append(&mut more.model.virtual_servers);
            seen.connections.append(&mut more.connections);
        }
        Ok(seen)
    }
}

impl<K: Kernel> Kernel for Remains<K> {
    fn observe(&mut self, scope: Scope<'_>) -> Result<Observation, ObserveError> {
        let seen = self.kernel.observe(scope)?;
        let seen = self.with_asked_for(seen)?;
        let model = Model {
            virtual_servers: seen.model.virtual_servers,
            kube_proxy_device: self.device.clone(),
            ..Model::default()
        };
        Ok(Observation { model, ..seen })
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        // Routes and the device are others' to see to. Once nothing is left that has no tag, the device is not needed.
        if ops.contains(&Op::RemoveKubeProxyDevice) {
            self.device = None;
        }
        let of_servers = ops.iter().enumerate().filter(|(_, op)| op.virtual_server().is_some());
        let (indices, ops): (Vec<usize>, Vec<Op>) = of_servers.unzip();
        let failures = self.kernel.apply(&ops).into_iter();
        let failures = failures.filter_map(|failure| Some(Failure { index: *indices.get(failure.index)?, ..failure }));
        let failures = failures.collect();
        self.forget_flows_of(&ops);
        failures
    }

    /// Which flows lead nowhere is for those to say who know where they lead now.
    fn forget_flows(&mut self, _: Family, _: &Kept) -> Forgotten {
        Forgotten::default()
    }
}

impl<K: Kernel> Remains<K> {
    /// UDP flows of virtual servers that went would go on to nobody: forgotten, their next packet is translated. One that
    /// is translated already is so once more.
    fn forget_flows_of(&mut self, ops: &[Op]) {
        let gone = ops.iter().filter_map(|op| match op {
            Op::RemoveVirtualServer(VirtualServerKey::Address { address, port, protocol: Protocol::Udp }) => {
                Some(AddressPort { address: *address, port: *port, protocol: Protocol::Udp })
            }
            _ => None,
        });
        let kept: Kept = gone.map(|frontend| (frontend, BTreeSet::new())).collect();
        for family in [Family::Ipv4, Family::Ipv6] {
            let of_family = |(frontend, _): &(&AddressPort, _)| Family::of(frontend.address) == family;
            let kept: Kept = kept.iter().filter(of_family).map(|(frontend, none)| (*frontend, none.clone())).collect();
            if !kept.is_empty() {
                // Those that are left end by themselves once their client is silent.
                self.kernel.forget_flows(family, &kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake::FakeKernel;
    use crate::model::{
        DestinationKey, DestinationSpec, RouteSpec, SchedulerFlags, SchedulerName, VirtualServer, VirtualServerSpec,
    };

    const DESTINATION: DestinationKey =
        DestinationKey { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 1)), port: 80 };

    fn key() -> VirtualServerKey {
        VirtualServerKey::new("10.96.0.1".parse().unwrap(), 80, Protocol::Tcp)
    }

    /// With a virtual server that has a connection, and a route.
    fn kernel() -> FakeKernel {
        let mut kernel = FakeKernel::default();
        let spec =
            VirtualServerSpec { scheduler: SchedulerName::RR, flags: SchedulerFlags::default(), persistence: None };
        let destinations = [(DESTINATION, DestinationSpec::masquerading(1))].into_iter().collect();
        kernel.model.virtual_servers.insert(key(), VirtualServer { spec, destinations });
        kernel.model.routes.insert("10.96.0.1".parse().unwrap(), RouteSpec::default());
        kernel.connections.insert((key(), DESTINATION), 1);
        kernel
    }

    fn everything() -> Takeover {
        Takeover::AllBut(Vec::new())
    }

    fn leftovers(kernel: FakeKernel) -> Reconciler<Remains<FakeKernel>> {
        let remains = Remains::of(kernel, &everything()).unwrap().unwrap();
        let options = Options { drain_timeout: Duration::from_secs(60), takeover: everything(), ..Options::default() };
        Reconciler::new(remains, Settings::default(), options)
    }

    #[test]
    fn they_drain_and_nothing_else_is_touched() {
        let mut leftovers = leftovers(kernel());
        let report = leftovers.pass(Duration::ZERO);
        assert_eq!((report.changes(), report.draining), (1, 1));
        let held = &leftovers.kernel().kernel.model;
        assert_eq!(held.virtual_servers[&key()].destinations[&DESTINATION].weight, 0);
        leftovers.kernel_mut().kernel.connections.clear();
        let report = leftovers.pass(Duration::from_secs(2));
        assert_eq!((report.draining, report.is_good()), (0, true));
        let held = &leftovers.kernel().kernel.model;
        assert!(held.virtual_servers.is_empty());
        assert_eq!(held.routes.len(), 1);
    }

    #[test]
    fn what_was_kube_proxys_is_known_by_its_device_also_when_that_is_gone() {
        let mut kernel = kernel();
        kernel.untagged.insert(key());
        kernel.model.kube_proxy_device = Some(["10.96.0.1".parse().unwrap()].into());
        let mut leftovers = leftovers(kernel);
        leftovers.kernel_mut().kernel.model.kube_proxy_device = None;
        let report = leftovers.pass(Duration::ZERO);
        assert_eq!((report.draining, report.failed), (1, vec![]));
        assert_eq!(leftovers.kernel().device, None);
    }

    #[test]
    fn what_services_ask_for_was_kube_proxys_where_it_has_been() {
        for (device, drains) in [(Some(BTreeSet::new()), 1), (None, 0)] {
            let mut kernel = kernel();
            let others = VirtualServerKey::new("10.96.0.2".parse().unwrap(), 80, Protocol::Tcp);
            kernel.model.virtual_servers.insert(others, kernel.model.virtual_servers[&key()].clone());
            kernel.untagged = [key(), others].into();
            kernel.model.kube_proxy_device = device.clone();
            let mut remains = Remains { kernel, device, asked_for: BTreeSet::new(), loan: None };
            remains.take_asked_for([key()].into_iter());
            let options = Options { drain_timeout: Duration::from_secs(60), ..Options::default() };
            let mut leftovers = Reconciler::new(remains, Settings::default(), options);
            assert_eq!(leftovers.pass(Duration::ZERO).draining, drains);
            assert_eq!(leftovers.kernel().kernel.model.virtual_servers[&others].destinations[&DESTINATION].weight, 1);
        }
    }

    #[test]
    fn where_nothing_is_ours_there_is_nothing_left() {
        let mut foreign = kernel();
        foreign.untagged.insert(key());
        assert!(Remains::of(foreign, &everything()).unwrap().is_none());
        assert!(Remains::of(FakeKernel::default(), &everything()).unwrap().is_none());
    }
}
