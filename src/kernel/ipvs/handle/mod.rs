//! IPVS over its netlink socket: what is asked, in which order, and what an errno means for which operation.

mod inspect;

use super::encode::Encoder;
use super::{DestinationEntry, FAMILY_NAME, Identity, Info, Timeouts, VirtualServerEntry, decode};
use crate::kernel::answer::{data, malformed};
use crate::kernel::netlink::family::{self, FamilyError};
use crate::kernel::netlink::socket::RECEIVE_BUFFER;
use crate::kernel::netlink::{Answer, Counters, Malformed, Socket};
use crate::kernel::{Cause, Errno, Failure, Observation, ObserveError, Scope, modules};
use crate::model::{Destinations, Op, SchedulerName, VirtualServer, VirtualServerKey};
use neli::consts::socket::NlFamily;
use std::collections::BTreeSet;
use std::io;

pub use inspect::Table;

const VIRTUAL_SERVERS: &str = "virtual servers";
const DESTINATIONS: &str = "destinations";

/// IPVS of the network namespace of the thread that opened it.
pub struct Ipvs {
    socket: Socket,
    encoder: Encoder,
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

impl Ipvs {
    /// Opens it, and has the module loaded if that is missing.
    ///
    /// # Errors
    /// IPVS or the permission to use it is missing.
    pub fn open() -> Result<Self, OpenError> {
        Self::open_after(|| modules::load("ip_vs"))
    }

    /// The same without loading anything: where the module is missing, it is missing.
    ///
    /// # Errors
    /// IPVS or the permission to use it is missing.
    pub fn open_as_is() -> Result<Self, OpenError> {
        Self::open_after(|| modules::Loading::NotTried)
    }

    fn open_after(load: impl FnOnce() -> modules::Loading) -> Result<Self, OpenError> {
        let mut socket = Socket::open(NlFamily::Generic, RECEIVE_BUFFER)?;
        let encoder = Encoder { family: family_number(&mut socket, load)? };
        let info = match info(&mut socket, encoder) {
            Err(ObserveError::Refused { errno: Errno::EPERM, .. }) => Err(OpenError::NotPermitted),
            info => info.map_err(OpenError::Info),
        }?;
        Ok(Self { socket, encoder, info, tried: BTreeSet::new() })
    }

    /// What talking to it has cost since it was opened.
    pub fn counters(&self) -> Counters {
        self.socket.counters()
    }

    /// IPVS's timeouts in this network namespace.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn timeouts(&mut self) -> Result<Timeouts, ObserveError> {
        let (encoder, what) = (self.encoder, "timeouts");
        let mut found = Err(ObserveError::Malformed { what, detail: "no answer".into() });
        self.socket.exchange(
            [()],
            |batch, ()| encoder.timeouts(batch),
            |(), answer| found = data(what, answer, decode::timeouts),
        );
        found
    }

    /// Sets IPVS's timeouts in this network namespace.
    ///
    /// # Errors
    /// The kernel refuses, as it does with more seconds than it can count.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), Errno> {
        let encoder = self.encoder;
        let mut outcome = Ok(());
        self.socket.exchange(
            [timeouts],
            |batch, timeouts| encoder.set_timeouts(batch, timeouts),
            |_, answer| match answer {
                Answer::Data(_) => {}
                Answer::Refused(errno) | Answer::Lost(errno) => outcome = Err(errno),
            },
        );
        outcome
    }

    /// Reads what a scope asks for into an observation.
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn observe(&mut self, scope: Scope<'_>, into: &mut Observation) -> Result<(), ObserveError> {
        let virtual_servers = match scope {
            Scope::All | Scope::Outline => self.virtual_servers()?,
            Scope::VirtualServers(keys) => self.virtual_servers_by_key(keys)?,
        };
        for server in virtual_servers {
            match scope {
                Scope::All if server.is_ours() => self.observe_ours(&server, into)?,
                Scope::Outline if server.is_ours() => _ = put(&server, into)?,
                Scope::VirtualServers(_) => self.observe_ours(&server, into)?,
                Scope::All | Scope::Outline => into.foreign.extend(server.identity.key()),
            }
        }
        Ok(())
    }

    /// Applies operations of one phase, each with its index in `all`, and returns what failed.
    pub fn apply<'o>(&mut self, all: &[Op], ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        let failed = self.submit(ops);
        if failed.iter().any(|failure| failure.cause == Cause::SchedulerMissing) {
            return self.load_and_repeat(all, failed);
        }
        failed
    }

    fn virtual_servers(&mut self) -> Result<Vec<VirtualServerEntry>, ObserveError> {
        let encoder = self.encoder;
        let decode = |payload: &[u8]| decode::service(payload).map(Some);
        self.socket.dump(VIRTUAL_SERVERS, |batch, flags| encoder.services(batch, flags), decode)
    }

    /// The destinations of a virtual server; none if it is gone, as the kernel does not tell the two apart.
    fn destinations(&mut self, of: Identity) -> Result<Vec<DestinationEntry>, ObserveError> {
        let encoder = self.encoder;
        let decode = |payload: &[u8]| decode::destination(payload, of.family()).map(Some);
        self.socket.dump(DESTINATIONS, |batch, flags| encoder.destinations(batch, flags, of), decode)
    }

    /// Those of these virtual servers that exist.
    fn virtual_servers_by_key(&mut self, keys: &[VirtualServerKey]) -> Result<Vec<VirtualServerEntry>, ObserveError> {
        let encoder = self.encoder;
        let mut found = Ok(Vec::with_capacity(keys.len()));
        let mut take = |answer: Result<VirtualServerEntry, ObserveError>| match (&mut found, answer) {
            (Ok(virtual_servers), Ok(server)) => virtual_servers.push(server),
            (Ok(_), Err(error)) => found = Err(error),
            (Err(_), _) => {}
        };
        self.socket.exchange(
            keys.iter().copied(),
            |batch, key| encoder.service(batch, key),
            |_, answer| match answer {
                Answer::Refused(Errno::ESRCH) => {}
                answer => take(data(VIRTUAL_SERVERS, answer, decode::service)),
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

    fn submit<'o>(&mut self, ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        let mut failures = Vec::new();
        let encoder = self.encoder;
        self.socket.exchange(
            ops,
            |batch, (_, op)| encoder.operation(batch, op),
            |(index, op), answer| match answer {
                Answer::Data(_) => {}
                Answer::Refused(errno) => failures.push(Failure { index, cause: cause(op, errno) }),
                Answer::Lost(errno) => failures.push(Failure { index, cause: Cause::Unknown(errno) }),
            },
        );
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
        failures.extend(self.submit(repeat));
        failures
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

/// The number of IPVS, for which the module is loaded where it is not known yet.
fn family_number(socket: &mut Socket, load: impl FnOnce() -> modules::Loading) -> Result<u16, OpenError> {
    match family::look_up(socket, FAMILY_NAME) {
        Err(FamilyError::Unknown) => {}
        found => return found.map_err(OpenError::Family),
    }
    let loading = load();
    family::look_up(socket, FAMILY_NAME).map_err(|error| match error {
        FamilyError::Unknown => OpenError::ModuleMissing { loading },
        error => OpenError::Family(error),
    })
}

fn info(socket: &mut Socket, encoder: Encoder) -> Result<Info, ObserveError> {
    let what = "version";
    let mut info = Err(ObserveError::Malformed { what, detail: "no answer".into() });
    socket.exchange([()], |batch, ()| encoder.info(batch), |(), answer| info = data(what, answer, decode::info));
    info
}

/// What the kernel's errno means for this operation (`ip_vs_genl_set_cmd` in the kernel).
fn cause(op: &Op, errno: Errno) -> Cause {
    match (op, errno) {
        // Of these, a virtual server that is missing is ESRCH.
        (Op::AddVirtualServer(..) | Op::UpdateVirtualServer(..), Errno::ENOENT) => Cause::SchedulerMissing,
        (Op::AddVirtualServer(..) | Op::AddDestination(..), Errno::EEXIST) => Cause::OutOfDate(errno),
        (Op::AddVirtualServer(..), _) => Cause::Refused(errno),
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
