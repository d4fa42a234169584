//! Node ports on loopback addresses need a way that not every node can have: what is wanted of it, and what is done
//! without it.

use super::Report;
use crate::desired::{Moment, Settings, node_ports};
use crate::kernel::{Cause, Errno};
use crate::model::{LocalhostPath, Op};
use crate::state::{Origin, Problem, State};
use std::time::Duration;

/// The operator's setting, which messages name.
const FIELD: &str = "iptables.localhostNodePorts";

/// Whether the way could be made.
#[derive(Debug, Default)]
pub(super) struct Localhost {
    /// Why not, and when it is tried again.
    trouble: Option<(Cause, Moment)>,
}

impl Localhost {
    /// How long a way that could not be made is not tried again.
    const PATIENCE: Duration = Duration::from_secs(300);

    /// Whether the operator wants the way, and no address of the node is in it.
    pub fn is_wanted(settings: &Settings, state: &State) -> bool {
        node_ports::are_on_localhost(settings) && node_ports::taken_on_the_way(state).is_none()
    }

    /// Whether the way, which is wanted, is to be made now if it is not there.
    pub fn is_tried(&self, now: Moment) -> bool {
        self.trouble.as_ref().is_none_or(|(_, again)| *again <= now)
    }

    /// Whether rules may lead to the way, which is wanted: it is there, or will be before the rules are.
    pub fn is_usable(&self) -> bool {
        self.trouble.is_none()
    }

    /// Notes what became of the way in a pass, after which it is `found`. A failure is a problem that stands, rather than an
    /// operation that failed. Returns whether rules that were decided are wrong now.
    pub fn note(&mut self, report: &mut Report, found: Option<LocalhostPath>, now: Moment) -> bool {
        let was_usable = self.is_usable();
        if found == Some(LocalhostPath::Whole) {
            self.trouble = None;
        }
        let failed = report.failed.iter().position(|(op, _)| *op == Op::MakeLocalhostPath);
        if let Some((_, cause)) = failed.map(|index| report.failed.swap_remove(index)) {
            self.trouble = Some((cause, now.saturating_add(Self::PATIENCE)));
        }
        self.is_usable() != was_usable
    }

    /// What keeps node ports from loopback addresses where they are wanted.
    pub fn problem(&self, settings: &Settings, state: &State) -> Option<Problem> {
        let reason = match (node_ports::taken_on_the_way(state), &self.trouble) {
            (Some(address), _) => format!("{address}, which leads there, is an address of this node"),
            (None, Some((Cause::Refused(Errno::EOPNOTSUPP), _))) => "the kernel has no veth devices".to_owned(),
            (None, Some((cause, _))) => format!("the way there cannot be made: {cause}"),
            (None, None) => return None,
        };
        let message = format!("node ports are not on 127.0.0.1: {reason}");
        let problem = Problem { origin: Origin::Api, object: None, field: FIELD.to_owned(), message };
        node_ports::are_on_localhost(settings).then_some(problem)
    }
}
