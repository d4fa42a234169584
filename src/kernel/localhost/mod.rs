//! The way from 127.0.0.1 to IPVS: reads it, makes it and removes it. What it is good for is in `model::localhost`.
//!
//! Nothing of it is on other devices, and no address of it is the node's own:
//!
//! ```text
//! rule 117: iif ipvsd-lo1              lookup 18768:   local FAR dev ipvsd-lo1
//! rule 118: to NEAR/31 (FAR too)       lookup 18769:   FAR dev ipvsd-lo0, NEAR dev ipvsd-lo1
//! ```
//! So [`FAR_ADDRESS`] leads out by the near end and is local at the far one, and answers to [`NEAR_ADDRESS`] lead out by
//! the far end, whatever other routing tables say (some lead all that comes from a pod by another device). The ends have
//! no neighbours to ask for (`IFF_NOARP`) and one hardware address, which is how each takes what the other sends.
//!
//! All is said in netlink messages, `route_localnet` too: in most containers /proc/sys is read-only.
//!
//! [`FAR_ADDRESS`]: crate::model::localhost::FAR_ADDRESS
//! [`NEAR_ADDRESS`]: crate::model::localhost::NEAR_ADDRESS

mod link;
mod routing;

use super::answer::data;
use super::netlink::{Answer, Batch, Socket};
use super::{Errno, ObserveError};
use crate::model::{LocalhostPath, Op};
use link::Link;
use routing::{Route, Rule};
use std::collections::BTreeSet;

const WHAT: &str = "the way from 127.0.0.1";

/// An end of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Near,
    Far,
}

const ENDS: [End; 2] = [End::Near, End::Far];

/// One request.
#[derive(Clone, Copy, Debug)]
enum Step {
    Delete(End),
    Create,
    WithoutIpv6(End),
    BringUp(End),
    AddRule(Rule),
    DeleteRule(Rule),
    /// With the number of its device.
    AddRoute(Route, u32),
}

/// Reads how much of the way there is; none if nothing.
///
/// # Errors
/// Any failure to read all of it.
pub fn observe(socket: &mut Socket) -> Result<Option<LocalhostPath>, ObserveError> {
    let [near, far] = links(socket)?;
    let rules: BTreeSet<Rule> = socket.dump(WHAT, routing::rules, routing::decode_rule)?.into_iter().collect();
    let is_nothing = near.is_none() && far.is_none() && rules.is_empty();
    let is_whole = match (near, far) {
        (Some(near), Some(far)) if Link::are_whole(&near, &far) && rules.len() == Rule::ALL.len() => {
            has_routes(socket, [near.index, far.index])?
        }
        _ => false,
    };
    Ok((!is_nothing).then_some(if is_whole { LocalhostPath::Whole } else { LocalhostPath::Broken }))
}

/// Does what operations say, and reports those that failed, with the answer to the first request that was refused; others
/// than those on the way it passes over.
pub fn apply<'o>(
    socket: &mut Socket,
    ops: impl IntoIterator<Item = (usize, &'o Op)>,
    mut report: impl FnMut((usize, &'o Op), Answer<'_>),
) {
    for (index, op) in ops {
        let outcome = match op {
            Op::MakeLocalhostPath => make(socket),
            Op::RemoveLocalhostPath => remove(socket),
            _ => Ok(()),
        };
        outcome.unwrap_or_else(|errno| report((index, op), Answer::Refused(errno)));
    }
}

/// Makes all of it anew: no connection depends on which devices they are.
fn make(socket: &mut Socket) -> Result<(), Errno> {
    let mut steps = removal(socket)?;
    steps.push(Step::Create);
    steps.extend(ENDS.map(Step::WithoutIpv6));
    steps.extend(ENDS.map(Step::BringUp));
    steps.extend(Rule::ALL.map(Step::AddRule));
    take(socket, steps)?;
    let [near, far] = links(socket).map_err(|_| Errno::EIO)?;
    let (near, far) = (near.ok_or(Errno::ENODEV)?, far.ok_or(Errno::ENODEV)?);
    let index = |route: &Route| if route.end() == End::Near { near.index } else { far.index };
    take(socket, Route::ALL.map(|route| Step::AddRoute(route, index(&route))))
}

fn remove(socket: &mut Socket) -> Result<(), Errno> {
    if observe(socket).map_err(|_| Errno::EIO)?.is_none() {
        return Err(Errno::ENOENT);
    }
    let steps = removal(socket)?;
    take(socket, steps)
}

/// Routes go with the devices.
fn removal(socket: &mut Socket) -> Result<Vec<Step>, Errno> {
    let links = links(socket).map_err(|_| Errno::EIO)?;
    // Somebody else's device of that name is left alone.
    let ours = ENDS.into_iter().zip(links).filter(|(_, link)| link.is_some_and(|link| link.is_veth));
    let deletions = ours.map(|(end, _)| Step::Delete(end));
    Ok(deletions.chain(Rule::ALL.map(Step::DeleteRule)).collect())
}

fn take(socket: &mut Socket, steps: impl IntoIterator<Item = Step>) -> Result<(), Errno> {
    let mut outcome = Ok(());
    socket.exchange(steps, Step::encode, |step, answer| match answer {
        Answer::Refused(errno) if step.is_done_by(errno) => {}
        Answer::Refused(errno) | Answer::Lost(errno) => outcome = outcome.and(Err(errno)),
        Answer::Data(_) => {}
    });
    outcome
}

fn links(socket: &mut Socket) -> Result<[Option<Link>; 2], ObserveError> {
    let mut found = [Ok(None), Ok(None)];
    socket.exchange(ENDS, link::question, |end, answer| {
        let [near, far] = &mut found;
        *(if end == End::Near { near } else { far }) = match answer {
            Answer::Refused(Errno::ENODEV) => Ok(None),
            answer => data(WHAT, answer, link::decode).map(Some),
        };
    });
    let [near, far] = found;
    Ok([near?, far?])
}

fn has_routes(socket: &mut Socket, indices: [u32; 2]) -> Result<bool, ObserveError> {
    let mut found = BTreeSet::new();
    for table in routing::TABLES {
        let decode = |payload: &[u8]| routing::decode_route(payload, indices);
        match socket.dump(WHAT, |batch, flags| routing::routes(batch, flags, table), decode) {
            // A table comes with its first route.
            Err(ObserveError::Refused { errno: Errno::ENOENT, .. }) => {}
            routes => found.extend(routes?),
        }
    }
    Ok(found.len() == Route::ALL.len())
}

impl Step {
    fn encode(batch: &mut Batch, step: Self) {
        match step {
            Self::Delete(end) => link::deletion(batch, end),
            Self::Create => link::creation(batch),
            Self::WithoutIpv6(end) => link::without_ipv6(batch, end),
            Self::BringUp(end) => link::bring_up(batch, end),
            Self::AddRule(rule) => routing::add_rule(batch, rule),
            Self::DeleteRule(rule) => routing::delete_rule(batch, rule),
            Self::AddRoute(route, device) => routing::add_route(batch, route, device),
        }
    }

    /// Whether a refusal for this reason leaves nothing to be done.
    fn is_done_by(self, errno: Errno) -> bool {
        match self {
            // With one end goes the other.
            Self::Delete(_) => errno == Errno::ENODEV,
            Self::DeleteRule(_) => errno == Errno::ENOENT,
            // A kernel without IPv6 knows nothing of it. Where there is, an address more does no harm.
            Self::WithoutIpv6(_) => true,
            _ => false,
        }
    }
}
