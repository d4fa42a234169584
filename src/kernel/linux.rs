//! The kernel that this thread's network namespace belongs to: IPVS and routes over netlink.
//!
//! What the messages look like is in `ipvs` and `route`, how they travel in `netlink`; here is what is asked, in
//! which order, and what an errno means for which operation.

mod inspect;
mod look;

use super::conntrack::Conntrack;
use super::ipvs::encode::Encoder;
use super::ipvs::{self, DestinationEntry, Identity, Info, Timeouts, VirtualServerEntry};
use super::netfilter::Netfilter;
use super::netlink::family::{self, FamilyError};
use super::netlink::{Answer, Counters, Malformed, Socket, socket::RECEIVE_BUFFER};
use super::{
    Cause, Errno, Failure, Forgotten, Kernel, Observation, ObserveError, Scope, device, localhost, modules, route,
};
use crate::model::{Destinations, Family, Kept, Model, Op, Phase, SchedulerName, VirtualServer, VirtualServerKey};
use neli::consts::socket::NlFamily;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

pub use inspect::Table;

const VIRTUAL_SERVERS: &str = "virtual servers";
const DESTINATIONS: &str = "destinations";
const ROUTES: &str = "routes";
const DEVICE: &str = "kube-proxy's device";

/// Whoever keeps off netfilter asks for none of it.
const NO_NETFILTER: Cause = Cause::Refused(Errno::EOPNOTSUPP);

/// The kernel. Its sockets stay in the network namespace of the thread that opened it.
pub struct Linux {
    generic: Socket,
    route: Socket,
    conntrack: Conntrack,
    /// None where ipvsd is to keep off it.
    netfilter: Option<Netfilter>,
    ipvs: Encoder,
    info: Info,
    /// Schedulers that modprobe was run for: it is run once for each, whatever came of it.
    tried: BTreeSet<SchedulerName>,
}

/// Why the kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[from] io::Error),
    /// No IPVS.
    #[error(
        "the kernel has no IPVS: the module ip_vs is not loaded, and {loading}; load it on the host with \
         `modprobe ip_vs`, and at every boot by a line `ip_vs` in /etc/modules-load.d/ipvsd.conf"
    )]
    ModuleMissing {
        /// What came of loading it.
        loading: modules::Loading,
    },
    /// No permission.
    #[error("not permitted to program IPVS: CAP_NET_ADMIN is needed; run it as root")]
    NotPermitted,
    /// The family's number is not known.
    #[error("cannot find IPVS in generic netlink")]
    Family(#[source] FamilyError),
    /// IPVS does not answer.
    #[error("IPVS does not say which version it is")]
    Info(#[source] ObserveError),
}

impl Linux {
    /// Opens the kernel in the calling thread's network namespace, loading `ip_vs` if it is missing.
    ///
    /// # Errors
    /// IPVS or the permission to use it is missing.
    pub fn open() -> Result<Self, OpenError> {
        let mut generic = Socket::open(NlFamily::Generic, RECEIVE_BUFFER)?;
        let route = Socket::open(NlFamily::Route, RECEIVE_BUFFER)?;
        let ipvs = Encoder { family: ipvs_family(&mut generic)? };
        let info = match info(&mut generic, ipvs) {
            Err(ObserveError::Refused { errno: Errno::EPERM, .. }) => Err(OpenError::NotPermitted),
            info => info.map_err(OpenError::Info),
        }?;
        Ok(Self { generic, route, conntrack: Conntrack::open(), netfilter: None, ipvs, info, tried: BTreeSet::new() })
    }

    /// The same kernel, read and programmed with netfilter's sets and rules.
    ///
    /// # Errors
    /// No socket.
    pub fn with_netfilter(self) -> Result<Self, OpenError> {
        Ok(Self { netfilter: Some(Netfilter::open()?), ..self })
    }

    /// What talking to the kernel has cost since it was opened.
    pub fn counters(&self) -> Counters {
        let netfilter = self.netfilter.as_ref().map(Netfilter::counters).unwrap_or_default();
        self.generic.counters() + self.route.counters() + self.conntrack.counters() + netfilter
    }

    /// IPVS's timeouts in this network namespace.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn timeouts(&mut self) -> Result<Timeouts, ObserveError> {
        let (ipvs, what) = (self.ipvs, "timeouts");
        let mut found = Err(ObserveError::Malformed { what, detail: "no answer".into() });
        self.generic.exchange(
            [()],
            |batch, ()| ipvs.timeouts(batch),
            |(), answer| found = data(what, answer, ipvs::decode::timeouts),
        );
        found
    }

    /// Sets IPVS's timeouts in this network namespace.
    ///
    /// # Errors
    /// The kernel refuses, as it does with more seconds than it can count.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Errno> {
        let ipvs = self.ipvs;
        let mut outcome = Ok(());
        self.generic.exchange(
            [timeouts],
            |batch, timeouts| ipvs.set_timeouts(batch, timeouts),
            |_, answer| match answer {
                Answer::Data(_) => {}
                Answer::Refused(errno) | Answer::Lost(errno) => outcome = Err(errno),
            },
        );
        outcome
    }

    fn virtual_servers(&mut self) -> Result<Vec<VirtualServerEntry>, ObserveError> {
        let ipvs = self.ipvs;
        let decode = |payload: &[u8]| ipvs::decode::service(payload).map(Some);
        self.generic.dump(VIRTUAL_SERVERS, |batch, flags| ipvs.services(batch, flags), decode)
    }

    /// The destinations of a virtual server; none if it is gone, as the kernel does not tell the two apart.
    fn destinations(&mut self, of: Identity) -> Result<Vec<DestinationEntry>, ObserveError> {
        let ipvs = self.ipvs;
        let decode = |payload: &[u8]| ipvs::decode::destination(payload, of.family()).map(Some);
        self.generic.dump(DESTINATIONS, |batch, flags| ipvs.destinations(batch, flags, of), decode)
    }

    /// Those of these virtual servers that exist.
    fn virtual_servers_by_key(&mut self, keys: &[VirtualServerKey]) -> Result<Vec<VirtualServerEntry>, ObserveError> {
        let ipvs = self.ipvs;
        let mut found = Ok(Vec::with_capacity(keys.len()));
        let mut take = |answer: Result<VirtualServerEntry, ObserveError>| match (&mut found, answer) {
            (Ok(virtual_servers), Ok(server)) => virtual_servers.push(server),
            (Ok(_), Err(error)) => found = Err(error),
            (Err(_), _) => {}
        };
        self.generic.exchange(
            keys.iter().copied(),
            |batch, key| ipvs.service(batch, key),
            |_, answer| match answer {
                Answer::Refused(Errno::ESRCH) => {}
                answer => take(data(VIRTUAL_SERVERS, answer, ipvs::decode::service)),
            },
        );
        found
    }

    /// Reads the destinations of a virtual server of ours, and puts both into the observation.
    fn observe_ours(&mut self, server: &VirtualServerEntry, into: &mut Observation) -> Result<(), ObserveError> {
        let key = put(server, into)?;
        let mut destinations = Destinations::default();
        for destination in self.destinations(server.identity)? {
            let spec = destination.spec().map_err(malformed(DESTINATIONS))?;
            destinations.insert(destination.key, spec);
            if destination.connections() > 0 {
                into.connections.insert((key, destination.key), destination.connections());
            }
        }
        into.model.virtual_servers.entry(key).and_modify(|server| server.destinations = destinations);
        Ok(())
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

    /// Applies operations of one phase, which are all of one subsystem.
    fn submit<'o>(&mut self, phase: Phase, ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        if phase.is_of_netfilter() {
            return match &mut self.netfilter {
                Some(netfilter) => netfilter.apply(phase, ops),
                None => ops.into_iter().map(|(index, _)| Failure { index, cause: NO_NETFILTER }).collect(),
            };
        }
        let mut failures = Vec::new();
        let report = |(index, op): (usize, &Op), answer: Answer<'_>| match answer {
            Answer::Data(_) => {}
            Answer::Refused(errno) => failures.push(Failure { index, cause: cause(op, errno) }),
            Answer::Lost(errno) => failures.push(Failure { index, cause: Cause::Unknown(errno) }),
        };
        let ipvs = self.ipvs;
        match phase {
            Phase::Connect | Phase::Disconnect => localhost::apply(&mut self.route, ops, report),
            Phase::Expose | Phase::Hide => {
                self.route.exchange(ops, |batch, (_, op)| route::operation(batch, op), report)
            }
            Phase::Relieve => self.route.exchange(ops, |batch, _| device::removal(batch), report),
            _ => {
                self.generic.exchange(ops, |batch, (_, op)| ipvs.operation(batch, op), report);
            }
        }
        failures
    }

    /// Loads the schedulers that were missing, if that was not tried before, and repeats what needs them.
    fn load_and_repeat(&mut self, ops: &[Op], failures: Vec<Failure>) -> Vec<Failure> {
        let missing = failures.iter().filter_map(|failure| missing_scheduler(ops, failure));
        let new: BTreeSet<SchedulerName> = missing.filter(|name| !self.tried.contains(name)).collect();
        let loaded = |name: &SchedulerName| modules::load(&format!("ip_vs_{name}")).succeeded();
        let loaded: BTreeSet<SchedulerName> = new.iter().copied().filter(loaded).collect();
        self.tried.extend(new);
        let (repeat, mut failures): (Vec<_>, Vec<_>) = failures
            .into_iter()
            .partition(|failure| missing_scheduler(ops, failure).is_some_and(|name| loaded.contains(&name)));
        let repeat = repeat.iter().filter_map(|failure| Some((failure.index, ops.get(failure.index)?)));
        failures.extend(self.submit(Phase::VirtualServers, repeat));
        failures
    }
}

impl Kernel for Linux {
    fn observe(&mut self, scope: Scope<'_>) -> Result<Observation, ObserveError> {
        let mut observation = Observation::default();
        let virtual_servers = match scope {
            Scope::All | Scope::Outline => {
                self.observe_routes(&mut observation.model)?;
                self.observe_kube_proxy_device(&mut observation.model)?;
                if let Some(netfilter) = &mut self.netfilter {
                    netfilter.observe(&mut observation)?;
                    observation.model.localhost_path = localhost::observe(&mut self.route)?;
                }
                self.virtual_servers()?
            }
            Scope::VirtualServers(keys) => self.virtual_servers_by_key(keys)?,
        };
        for server in virtual_servers {
            match scope {
                Scope::All if server.is_ours() => self.observe_ours(&server, &mut observation)?,
                Scope::Outline if server.is_ours() => _ = put(&server, &mut observation)?,
                Scope::VirtualServers(_) => self.observe_ours(&server, &mut observation)?,
                Scope::All | Scope::Outline => observation.foreign.extend(server.identity.key()),
            }
        }
        Ok(observation)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut start = 0;
        for run in ops.chunk_by(|one, next| one.phase() == next.phase()) {
            let Some(phase) = run.first().map(Op::phase) else { continue };
            let mut failed = self.submit(phase, (start..).zip(run));
            if failed.iter().any(|failure| failure.cause == Cause::SchedulerMissing) {
                failed = self.load_and_repeat(ops, failed);
            }
            failures.extend(failed);
            start += run.len();
        }
        failures.sort_unstable_by_key(|failure| failure.index);
        failures
    }

    fn forget_flows(&mut self, family: Family, kept: &Kept) -> Forgotten {
        self.conntrack.forget(family, kept)
    }
}

/// Puts a virtual server of ours into the observation, without destinations.
fn put(server: &VirtualServerEntry, into: &mut Observation) -> Result<VirtualServerKey, ObserveError> {
    let key = server.identity.key().ok_or_else(|| Malformed::new("a virtual server of an unknown protocol"));
    let key = key.map_err(malformed(VIRTUAL_SERVERS))?;
    let spec = server.spec().map_err(malformed(VIRTUAL_SERVERS))?;
    into.model.virtual_servers.insert(key, VirtualServer { spec, destinations: Destinations::default() });
    Ok(key)
}

fn ipvs_family(generic: &mut Socket) -> Result<u16, OpenError> {
    match family::look_up(generic, ipvs::FAMILY_NAME) {
        Err(FamilyError::Unknown) => {}
        found => return found.map_err(OpenError::Family),
    }
    let loading = modules::load("ip_vs");
    family::look_up(generic, ipvs::FAMILY_NAME).map_err(|error| match error {
        FamilyError::Unknown => OpenError::ModuleMissing { loading },
        error => OpenError::Family(error),
    })
}

fn info(generic: &mut Socket, ipvs: Encoder) -> Result<Info, ObserveError> {
    let what = "version";
    let mut info = Err(ObserveError::Malformed { what, detail: "no answer".into() });
    generic.exchange([()], |batch, ()| ipvs.info(batch), |(), answer| info = data(what, answer, ipvs::decode::info));
    info
}

/// The value in an answer that should have one.
pub(super) fn data<T>(
    what: &'static str,
    answer: Answer<'_>,
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<T, ObserveError> {
    match answer {
        Answer::Data(payload) => decode(payload).map_err(malformed(what)),
        Answer::Refused(errno) => Err(ObserveError::Refused { what, errno }),
        Answer::Lost(errno) => Err(ObserveError::Io { what, source: errno.into() }),
    }
}

fn malformed(what: &'static str) -> impl FnOnce(Malformed) -> ObserveError {
    move |Malformed(detail)| ObserveError::Malformed { what, detail }
}

/// What the kernel's errno means for this operation (`ip_vs_genl_set_cmd`, `fib_table_insert`, `fib6_add` and their
/// likes in the kernel).
fn cause(op: &Op, errno: Errno) -> Cause {
    match (op, errno) {
        // Of these, a virtual server that is missing is ESRCH.
        (Op::AddVirtualServer(..) | Op::UpdateVirtualServer(..), Errno::ENOENT) => Cause::SchedulerMissing,
        (Op::AddVirtualServer(..) | Op::AddDestination(..) | Op::AddRoute(..), Errno::EEXIST) => {
            Cause::OutOfDate(errno)
        }
        // "IPv6 is disabled on nexthop device" (`ip6_route_info_create`).
        (Op::AddRoute(IpAddr::V6(_), _) | Op::UpdateRoute(IpAddr::V6(_), _), Errno::EACCES) => Cause::Ipv6Off,
        (Op::AddVirtualServer(..) | Op::AddRoute(..), _) => Cause::Refused(errno),
        (Op::RemoveKubeProxyDevice, Errno::ENODEV) => Cause::OutOfDate(errno),
        (_, Errno::ENOENT | Errno::ESRCH) => Cause::OutOfDate(errno),
        _ => Cause::Refused(errno),
    }
}

/// The scheduler whose absence made an operation fail.
fn missing_scheduler(ops: &[Op], failure: &Failure) -> Option<SchedulerName> {
    match (&failure.cause, ops.get(failure.index)?) {
        (Cause::SchedulerMissing, Op::AddVirtualServer(_, spec) | Op::UpdateVirtualServer(_, spec)) => {
            Some(spec.scheduler)
        }
        _ => None,
    }
}
