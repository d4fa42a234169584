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

#[cfg(test)]
mod tests {
    use crate::desired::{Moment, NetfilterSettings, Settings};
    use crate::kernel::Errno;
    use crate::kernel::fake::FakeKernel;
    use crate::model::localhost::NEAR_ADDRESS;
    use crate::model::{Family, LocalhostPath, Op};
    use crate::reconcile::{Options, Reconciler};
    use crate::state::{Change, Node};
    use std::time::Duration;

    fn reconciler(kernel: FakeKernel) -> Reconciler<FakeKernel> {
        let settings = Settings { netfilter: Some(NetfilterSettings::default()), ..Settings::default() };
        Reconciler::new(kernel, settings, Options::default())
    }

    fn without_veth() -> FakeKernel {
        let refuses = |op: &Op| (*op == Op::MakeLocalhostPath).then_some(Errno::EOPNOTSUPP);
        FakeKernel { refuses, ..FakeKernel::default() }
    }

    /// Whether rules lead to the way, and whether it is there.
    fn seen(reconciler: &Reconciler<FakeKernel>) -> (bool, bool) {
        let model = &reconciler.kernel().model;
        (model.rules[&Family::Ipv4].localhost, model.localhost_path == Some(LocalhostPath::Whole))
    }

    fn problems(reconciler: &Reconciler<FakeKernel>) -> Vec<String> {
        reconciler.problems().into_iter().map(|problem| problem.message).collect()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn rules_lead_to_the_way_where_it_is() {
        let mut reconciler = reconciler(FakeKernel::default());
        assert!(reconciler.pass(Moment::ZERO).is_good());
        assert_eq!((seen(&reconciler), problems(&reconciler)), ((true, true), vec![]));
        reconciler.kernel_mut().model.localhost_path = Some(LocalhostPath::Broken);
        assert!(reconciler.pass(MINUTE).is_good());
        assert_eq!((seen(&reconciler), reconciler.kernel().cost.applications), ((true, true), 2));
    }

    #[test]
    fn where_it_cannot_be_made_all_else_is_done_and_it_is_told_until_it_can() {
        let mut reconciler = reconciler(without_veth());
        let told = "node ports are not on 127.0.0.1: the kernel has no veth devices";
        assert!(reconciler.pass(Moment::ZERO).is_good(), "nothing is tried again at once");
        assert_eq!((seen(&reconciler), problems(&reconciler)), ((false, false), vec![told.to_owned()]));
        let before = reconciler.kernel().cost.operations;
        assert!(reconciler.pass(MINUTE).is_good());
        assert_eq!(reconciler.kernel().cost.operations, before, "nor in the next minutes");
        assert!(reconciler.pass(MINUTE * 6).is_good());
        assert_eq!(reconciler.kernel().cost.operations, before + 1, "the way alone is tried");
        assert_eq!((seen(&reconciler), problems(&reconciler)), ((false, false), vec![told.to_owned()]));

        reconciler.kernel_mut().refuses = |_| None;
        assert!(reconciler.pass(MINUTE * 12).is_good());
        assert_eq!((seen(&reconciler), problems(&reconciler)), ((true, true), vec![]));
    }

    #[test]
    fn an_address_of_the_node_in_the_way_takes_it_away() {
        let mut reconciler = reconciler(FakeKernel::default());
        reconciler.pass(Moment::ZERO);
        let taken = Node { addresses: [NEAR_ADDRESS.into()].into(), ..Node::default() };
        reconciler.take([Change::Node(taken)]);
        assert!(reconciler.pass(MINUTE).is_good());
        assert_eq!(seen(&reconciler), (false, false));
        let told = "node ports are not on 127.0.0.1: 169.254.255.118, which leads there, is an address of this node";
        assert_eq!(problems(&reconciler), [told]);
        reconciler.take([Change::Node(Node::default())]);
        assert!(reconciler.pass(MINUTE * 2).is_good());
        assert_eq!((seen(&reconciler), problems(&reconciler)), ((true, true), vec![]));
    }
}
