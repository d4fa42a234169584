//! The kernel that this thread's network namespace belongs to: routes over netlink, and what balances, IPVS or netfilter.
//!
//! What the messages look like is in `route`, how they travel in `netlink`; here is what is asked of whom, in which order,
//! and what an errno means for which operation on routes.

mod look;

use super::answer::data;
use super::conntrack::Conntrack;
use super::iptables::counts::Counts;
use super::ipvs::Timeouts;
use super::ipvs::handle::Ipvs;
use super::ipvs::sync::SyncDaemon;
use super::nat::entry;
use super::netfilter::Netfilter;
use super::netlink::{Answer, Counters, Socket, socket::RECEIVE_BUFFER};
use super::{Cause, Errno, Failure, Forgotten, Kernel, Observation, ObserveError, Scope, device, localhost, route};
use crate::model::{Family, Kept, Model, Op, Phase, VirtualServerKey};
use neli::consts::socket::NlFamily;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

pub use super::ipvs::handle::{OpenError, Table};

const ROUTES: &str = "routes";
const DEVICE: &str = "kube-proxy's device";

/// Whoever asks for it of a kernel where netfilter balances.
const NO_IPVS: ObserveError = ObserveError::Refused { what: "IPVS", errno: Errno::EOPNOTSUPP };

/// Whoever keeps off netfilter asks for none of it.
const NO_NETFILTER: Cause = Cause::Refused(Errno::EOPNOTSUPP);

/// The kernel. Its sockets stay in the network namespace of the thread that opened it.
pub struct Linux {
    /// None where netfilter balances in its place.
    ipvs: Option<Ipvs>,
    route: Socket,
    conntrack: Conntrack,
    /// None where ipvsd is to keep off it.
    netfilter: Option<Netfilter>,
    /// As long as somebody has it kube-proxy's device is not shown, and so nobody removes it.
    device_loan: Weak<DeviceLoan>,
}

/// That kube-proxy's device is somebody else's to see to.
#[derive(Debug)]
pub struct DeviceLoan;

impl Linux {
    /// Opens the kernel in the calling thread's network namespace, loading `ip_vs` if it is missing.
    ///
    /// # Errors
    /// IPVS or the permission to use it is missing.
    pub fn open() -> Result<Self, OpenError> {
        Self::with_ipvs(Ipvs::open()?)
    }

    /// The same without loading anything: where the module is missing, it is missing.
    ///
    /// # Errors
    /// IPVS or the permission to use it is missing.
    pub fn open_as_is() -> Result<Self, OpenError> {
        Self::with_ipvs(Ipvs::open_as_is()?)
    }

    /// Opens the kernel with netfilter's rules as what balances.
    ///
    /// # Errors
    /// No socket.
    pub fn open_nat() -> Result<Self, OpenError> {
        let route = Socket::open(NlFamily::Route, RECEIVE_BUFFER)?;
        let netfilter = Some(Netfilter::open()?.with_nat());
        Ok(Self { ipvs: None, route, conntrack: Conntrack::open(), netfilter, device_loan: Weak::new() })
    }

    /// Opens what balances on this node now: netfilter's rules, where there are virtual servers in them or IPVS is missing.
    ///
    /// # Errors
    /// There is neither.
    pub fn open_as_found() -> Result<Self, OpenError> {
        let mut nat = Self::open_nat()?;
        // Who may not read rules may still read IPVS, and is told what is missing for that.
        if nat.observe(Scope::All).is_ok_and(|seen| !seen.model.virtual_servers.is_empty()) {
            return Ok(nat);
        }
        match Self::open() {
            Err(OpenError::ModuleMissing { .. }) => Ok(nat),
            opened => opened,
        }
    }

    fn with_ipvs(ipvs: Ipvs) -> Result<Self, OpenError> {
        let route = Socket::open(NlFamily::Route, RECEIVE_BUFFER)?;
        Ok(Self { ipvs: Some(ipvs), route, conntrack: Conntrack::open(), netfilter: None, device_loan: Weak::new() })
    }

    /// The same kernel, read and programmed with netfilter's sets and rules.
    ///
    /// # Errors
    /// No socket.
    pub fn with_netfilter(self) -> Result<Self, OpenError> {
        match self.ipvs {
            Some(_) => Ok(Self { netfilter: Some(Netfilter::open()?), ..self }),
            None => Ok(self),
        }
    }

    /// Does not show kube-proxy's device any more until what is returned is dropped.
    pub fn lend_device(&mut self) -> Arc<DeviceLoan> {
        let loan = Arc::new(DeviceLoan);
        self.device_loan = Arc::downgrade(&loan);
        loan
    }

    /// Whether IPVS balances, and not netfilter.
    pub fn has_ipvs(&self) -> bool {
        self.ipvs.is_some()
    }

    /// Whether rules can count packets by name here. Changes nothing.
    pub fn can_count(&self) -> bool {
        self.netfilter.as_ref().is_some_and(Netfilter::can_count)
    }

    /// How many rules of ours there are, as of what was last read and written; none where ipvsd keeps off netfilter.
    pub fn rule_counts(&self) -> Option<&Arc<Counts>> {
        self.netfilter.as_ref().map(Netfilter::rule_counts)
    }

    /// What talking to the kernel has cost since it was opened.
    pub fn counters(&self) -> Counters {
        let netfilter = self.netfilter.as_ref().map(Netfilter::counters).unwrap_or_default();
        let ipvs = self.ipvs.as_ref().map(Ipvs::counters).unwrap_or_default();
        ipvs + self.route.counters() + self.conntrack.counters() + netfilter
    }

    /// Reads everything that IPVS holds, ours or not, or what netfilter's rules hold in its place.
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn table(&mut self) -> Result<Table, ObserveError> {
        match &mut self.ipvs {
            Some(ipvs) => ipvs.table(),
            None => Ok(entry::table(self.observe(Scope::All)?.model.virtual_servers.iter())),
        }
    }

    /// Reads one virtual server; the table is empty if there is none.
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn table_of(&mut self, key: VirtualServerKey) -> Result<Table, ObserveError> {
        match &mut self.ipvs {
            Some(ipvs) => ipvs.table_of(key),
            None => {
                let seen = self.observe(Scope::All)?.model.virtual_servers;
                Ok(entry::table(seen.get_key_value(&key).into_iter()))
            }
        }
    }

    /// The sync daemons that run in this network namespace, the master first.
    ///
    /// # Errors
    /// Any failure to read all of it, or that there is no IPVS.
    pub fn sync_daemons(&mut self) -> Result<Vec<SyncDaemon>, ObserveError> {
        self.ipvs.as_mut().ok_or(NO_IPVS)?.sync_daemons()
    }

    /// IPVS's timeouts in this network namespace.
    ///
    /// # Errors
    /// The kernel does not answer, or there is no IPVS.
    pub fn timeouts(&mut self) -> Result<Timeouts, ObserveError> {
        self.ipvs.as_mut().ok_or(NO_IPVS)?.timeouts()
    }

    /// Sets IPVS's timeouts in this network namespace.
    ///
    /// # Errors
    /// The kernel refuses, as it does with more seconds than it can count.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Errno> {
        self.ipvs.as_mut().ok_or(Errno::EOPNOTSUPP)?.set_timeouts(timeouts)
    }

    fn observe_routes(&mut self, into: &mut Model) -> Result<(), ObserveError> {
        for family in [Family::Ipv4, Family::Ipv6] {
            let found = self.route.dump(
                ROUTES,
                |batch, flags| route::routes(batch, flags, family),
                |payload| route::decode(payload, family),
            );
            match found {
                // The table comes with its first route, so that where `lo` was never up there is none.
                Err(ObserveError::Refused { errno: Errno::ENOENT, .. }) => {}
                found => into.routes.extend(found?),
            }
        }
        Ok(())
    }

    fn observe_kube_proxy_device(&mut self, into: &mut Model) -> Result<(), ObserveError> {
        let mut found = Ok(None);
        self.route.exchange(
            [()],
            |batch, ()| device::link(batch),
            |(), answer| {
                found = match answer {
                    Answer::Refused(Errno::ENODEV) => Ok(None),
                    answer => data(DEVICE, answer, device::decode_link),
                };
            },
        );
        let Some(index) = found? else { return Ok(()) };
        let mut addresses = BTreeSet::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            addresses.extend(self.route.dump(
                DEVICE,
                |batch, flags| device::addresses(batch, flags, (family, index)),
                |payload| device::decode_address(payload, (family, index)),
            )?);
        }
        into.kube_proxy_device = Some(addresses);
        Ok(())
    }

    /// Applies operations of one phase, or of some that are of the same subsystem, each with its index in `all`.
    fn submit<'o>(&mut self, phase: Phase, all: &[Op], ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        match (phase, &mut self.ipvs, &mut self.netfilter) {
            (Phase::Connect | Phase::Expose | Phase::Hide | Phase::Disconnect | Phase::Relieve, ..) => {
                self.submit_routes(phase, ops)
            }
            (phase, _, Some(netfilter)) if phase.is_of_netfilter() => netfilter.apply(phase, ops),
            (phase, _, None) if phase.is_of_netfilter() => {
                ops.into_iter().map(|(index, _)| Failure { index, cause: NO_NETFILTER }).collect()
            }
            (_, Some(ipvs), _) => ipvs.apply(all, ops),
            (_, None, Some(netfilter)) => netfilter.apply_to_virtual_servers(ops),
            (_, None, None) => Vec::new(),
        }
    }

    /// What an operation is done together with, and when. That is by phase, with two exceptions: netfilter's virtual
    /// servers come and go in one step; and where it balances or did, what rules lead to is complete before they do:
    /// until then packets follow others, of netfilter or IPVS.
    fn turn(&self, op: &Op) -> (Phase, bool) {
        match op.phase() {
            Phase::Rules if self.netfilter.as_ref().is_some_and(Netfilter::balances) => (Phase::Destinations, true),
            Phase::VirtualServers | Phase::Destinations | Phase::Remove if self.ipvs.is_none() => {
                (Phase::VirtualServers, false)
            }
            phase => (phase, false),
        }
    }

    fn submit_routes<'o>(&mut self, phase: Phase, ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        let mut failures = Vec::new();
        let report = |(index, op): (usize, &Op), answer: Answer<'_>| match answer {
            Answer::Data(_) => {}
            Answer::Refused(errno) => failures.push(Failure { index, cause: cause(op, errno) }),
            Answer::Lost(errno) => failures.push(Failure { index, cause: Cause::Unknown(errno) }),
        };
        match phase {
            Phase::Connect | Phase::Disconnect => localhost::apply(&mut self.route, ops, report),
            Phase::Relieve => self.route.exchange(ops, |batch, _| device::removal(batch), report),
            _ => self.route.exchange(ops, |batch, (_, op)| route::operation(batch, op), report),
        }
        failures
    }
}

impl Kernel for Linux {
    fn observe(&mut self, scope: Scope<'_>) -> Result<Observation, ObserveError> {
        let mut observation = Observation::default();
        if matches!(scope, Scope::All | Scope::Outline) {
            self.observe_routes(&mut observation.model)?;
            if self.device_loan.strong_count() == 0 {
                self.observe_kube_proxy_device(&mut observation.model)?;
            }
            if let Some(netfilter) = &mut self.netfilter {
                netfilter.observe(&mut observation)?;
                observation.model.localhost_path = localhost::observe(&mut self.route)?;
            }
        }
        match (&mut self.ipvs, &self.netfilter) {
            (Some(ipvs), _) => ipvs.observe(scope, &mut observation)?,
            (None, Some(netfilter)) => netfilter.virtual_servers(scope, &mut observation.model),
            (None, None) => {}
        }
        Ok(observation)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        let mut in_turn: Vec<_> = ops.iter().enumerate().map(|(index, op)| (self.turn(op), (index, op))).collect();
        in_turn.sort_by_key(|(turn, _)| *turn);
        let mut failures = Vec::new();
        for together in in_turn.chunk_by(|(one, _), (next, _)| one == next) {
            let Some((_, (_, first))) = together.first() else { continue };
            failures.extend(self.submit(first.phase(), ops, together.iter().map(|(_, op)| *op)));
        }
        failures.sort_unstable_by_key(|failure| failure.index);
        failures
    }

    fn forget_flows(&mut self, family: Family, kept: &Kept) -> Forgotten {
        self.conntrack.forget(family, kept)
    }
}

impl fmt::Debug for Linux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linux").field("has_ipvs", &self.has_ipvs()).finish_non_exhaustive()
    }
}

/// What the kernel's errno means for this operation (`fib_table_insert`, `fib6_add` and their likes in the
/// kernel).
fn cause(op: &Op, errno: Errno) -> Cause {
    match (op, errno) {
        (Op::AddRoute(..), Errno::EEXIST) => Cause::OutOfDate(errno),
        // "IPv6 is disabled on nexthop device" (`ip6_route_info_create`).
        (Op::AddRoute(IpAddr::V6(_), _) | Op::UpdateRoute(IpAddr::V6(_), _), Errno::EACCES) => Cause::Ipv6Off,
        (Op::AddRoute(..), _) => Cause::Refused(errno),
        (Op::RemoveKubeProxyDevice, Errno::ENODEV) => Cause::OutOfDate(errno),
        (_, Errno::ENOENT | Errno::ESRCH) => Cause::OutOfDate(errno),
        _ => Cause::Refused(errno),
    }
}
