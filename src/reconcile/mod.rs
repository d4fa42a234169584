//! Turns the wheel: takes in changes, decides, applies, folds what was done into the picture, and reports.
//!
//! There is one path. A pass looks at the virtual servers that were touched; at start, after a failure and on the
//! timer all of them are, and the picture is read from the kernel first. In between the picture is the last
//! reading with the applied operations folded in, so a change costs what it changes and no reading. What the timer asks
//! for is read in parts, between which changes have their turn.

mod check;
mod decide;
mod flows;
mod leftovers;
mod localhost;
mod netfilter;
pub mod pace;
mod reading;
mod report;
mod takeover;
mod view;

use crate::desired::{Drains, Inherited, Locals, Moment, Plan, Settings, untold_pods};
use crate::diff::flows::Suspects;
use crate::kernel::{Cause, Kernel, Observation, ObserveError, Scope};
use crate::model::{Family, Op, SchedulerName, VirtualServerKey};
use crate::state::{Change, ObjectRef, Origin, Problem, Service, State};
use check::Check;
use leftovers::{Clearing, Stages};
use localhost::Localhost;
pub use netfilter::Netfilter;
use pace::{Intervals, Pace};
use reading::Reading;
pub use report::Report;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
pub use takeover::Takeover;
pub use view::View;

/// What the operator decides about reconciling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How often things happen.
    pub intervals: Intervals,
    /// How long a departing destination may keep its connections where its Service does not say; zero removes it at once.
    pub drain_timeout: Duration,
    /// How long a virtual server nobody wants stays after connections were cut, so that their clients hear of it.
    pub linger: Duration,
    /// What becomes of what kube-proxy left.
    pub takeover: Takeover,
}

/// Owns the state and the kernel, and brings the second in line with the first.
#[derive(Debug)]
pub struct Reconciler<K> {
    kernel: K,
    options: Options,
    state: State,
    settings: Settings,
    plan: Plan,
    /// Virtual servers of which the plan may say something else than when they were last compared.
    touched: BTreeSet<VirtualServerKey>,
    drains: Drains,
    /// What the first reading found, if the input was in doubt then and has been ever since; none before.
    inherited: Option<Inherited>,
    pace: Pace,
    /// What is left of the check that the timer asked for.
    check: Check,
    /// The kernel as last read, with what was applied since. Virtual servers and routes that are ours, and the
    /// keys of those that are not.
    found: Observation,
    /// What became of kube-proxy's rules and tables.
    clearing: Clearing,
    /// Where flows may be left that lead nowhere. Written as operations are done, emptied as flows are looked for.
    suspects: Suspects,
    /// When schedulers that could not be loaded are tried again.
    schedulers_again: Moment,
    localhost: Localhost,
}

impl<K: Kernel> Reconciler<K> {
    /// How long a scheduler that could not be loaded is not asked for again.
    const SCHEDULER_PATIENCE: Duration = Duration::from_secs(300);

    /// A reconciler that has done nothing yet. The first pass reads everything.
    pub fn new(kernel: K, settings: Settings, options: Options) -> Self {
        Self {
            kernel,
            pace: Pace::new(options.intervals),
            check: Check::default(),
            options,
            state: State::default(),
            settings,
            plan: Plan::default(),
            touched: BTreeSet::new(),
            drains: Drains::default(),
            inherited: None,
            found: Observation::default(),
            clearing: Clearing::default(),
            suspects: Suspects::all(),
            schedulers_again: Moment::ZERO,
            localhost: Localhost::default(),
        }
    }

    /// Takes in changes of the input; the next pass acts on them.
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            if matches!(&change, Change::Node(node) if node != self.state.node()) {
                // With an address go the routes that prefer it as their source: the kernel drops them unasked.
                self.pace.read_soon();
            }
            let pods_moved =
                matches!(&change, Change::NodeObject(node) if node.pod_cidrs != self.state.node_object().pod_cidrs);
            if pods_moved || change == Change::Doubt(false) {
                self.pace.read_soon();
            }
            self.state.apply(change);
        }
    }

    /// When the next pass is due.
    pub fn next(&self) -> Moment {
        self.pace.next(self.state.is_dirty())
    }

    /// One pass: reads what is due, decides, applies.
    pub fn pass(&mut self, now: Moment) -> Report {
        let mut report = match self.read(now) {
            Ok(reading) => self.settle(&reading, now),
            Err(error) => Report { unread: Some(error), ..Report::default() },
        };
        self.conclude(&mut report);
        self.pace.passed(report.outcome(), now);
        report
    }

    /// Whether a part of a check can be had now: one is under way, and no change is waiting.
    pub fn is_checking(&self) -> bool {
        self.check.is_under_way() && !self.state.is_dirty()
    }

    /// The next part of a check: reads some virtual servers, and puts right what is not as it should be.
    pub fn check(&mut self, now: Moment) -> Report {
        let keys = self.check.take();
        let mut report = match self.read_virtual_servers(keys) {
            Ok(reading) => self.settle(&reading, now),
            Err(error) => Report { unread: Some(error), ..Report::default() },
        };
        report.checked = true;
        self.conclude(&mut report);
        self.pace.checked(report.outcome(), now);
        report
    }

    /// What the next pass would do, with everything read first and nothing changed.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub fn preview(&mut self, now: Moment) -> Result<Vec<Op>, ObserveError> {
        self.pace.read_soon();
        let reading = self.read(now)?;
        Ok(self.decide(&reading, now))
    }

    /// What is wrong with the input as far as only the whole shows it: addresses that two want, schedulers that
    /// are missing, virtual servers of somebody else in the way, what of kube-proxy's does not go, pods that cannot be
    /// told.
    pub fn problems(&self) -> Vec<Problem> {
        let conflicts = self.found.foreign.iter().filter_map(|key| self.conflict(key));
        let held = self.found.held.iter().map(|held| leftovers::on_this_node(held.to_string()));
        let localhost = self.localhost.problem(&self.settings, &self.state);
        let untold = untold_pods(&self.settings, &self.state);
        let of_node = held.chain(self.clearing.problems()).chain(localhost).chain(untold);
        self.plan.problems().cloned().chain(conflicts).chain(of_node).collect()
    }

    /// The Service behind a virtual server, for messages.
    pub fn owner(&self, key: &VirtualServerKey) -> Option<ObjectRef> {
        self.plan.owner(key).cloned().map(ObjectRef::Service)
    }

    /// Whether any virtual server of a family is wanted. (One that matches a mark comes with one that does not.)
    pub fn serves(&self, family: Family) -> bool {
        self.plan.serves(family.addresses())
    }

    /// What load balancers are told, and which Services want for endpoints on this node; as of the last pass.
    pub fn locals(&self) -> &Locals {
        self.plan.locals()
    }

    /// Where the node's ports are; the unspecified address stands for all addresses of its family.
    pub fn node_port_addresses(&self) -> BTreeSet<IpAddr> {
        crate::desired::node_ports::listening(&self.settings, &self.state).collect()
    }

    /// The kernel, for those who count what was asked of it.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// The kernel, for those who have something to tell it, and tests that change it behind the reconciler's back.
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// The input as it is known.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Completes a report by what there is to say after each pass.
    fn conclude(&mut self, report: &mut Report) {
        report.draining = self.drains.len();
        report.lingering = self.drains.lingering();
        report.inherited = self.inherited.as_ref().map_or(0, Inherited::len);
        if !report.is_good() {
            // Everything is read soon.
            self.check = Check::default();
        }
    }

    /// Decides and applies; once more if that showed that schedulers are missing, or the way from 127.0.0.1.
    fn settle(&mut self, reading: &Reading, now: Moment) -> Report {
        let is_whole = reading.is_whole();
        let mut report = Report { read_all: is_whole, checked: is_whole, ..Report::default() };
        self.apply(reading, now, &mut report);
        let decided_wrongly = self.localhost.note(&mut report, self.found.model.localhost_path, now);
        if self.note_missing_schedulers(&report.failed, now) | decided_wrongly {
            report.failed.clear();
            let seen = self.kernel.observe(Scope::All);
            let found = seen.and_then(|seen| self.with_all_of_ours(seen));
            if let Err(error) = found.and_then(|found| self.take_reading(Scope::All, found)) {
                report.unread = Some(error);
                return report;
            }
            self.apply(&Reading::All, now, &mut report);
        }
        report
    }

    fn apply(&mut self, reading: &Reading, now: Moment, report: &mut Report) {
        let mut stages = Stages::of(self.decide(reading, now), &self.found.model);
        self.submit(&stages.first, report);
        self.submit(&stages.rules, report);
        stages.clearing.retain(|op| !leftovers::failures_need(op, &report.failed));
        self.submit(&stages.clearing, report);
        self.submit(&stages.last, report);
        if !takeover::failures_need_device(&report.failed, &self.found.model) {
            self.submit(&stages.relieving, report);
        }
        self.forget_flows(report);
    }

    fn submit(&mut self, ops: &[Op], report: &mut Report) {
        if ops.is_empty() {
            return;
        }
        let mut failures = self.kernel.apply(ops).into_iter().peekable();
        for (index, op) in ops.iter().enumerate() {
            if let Some(failure) = failures.next_if(|failure| failure.index == index) {
                report.failed.push((*op, failure.cause));
                continue;
            }
            report.note_done(op);
            self.clearing.note_done(op);
            self.suspects.note(op, &self.found.model);
            // The kernel did what the picture has no place for: somebody else changed something too.
            report.surprised |= self.found.model.apply(op).is_err();
        }
    }

    /// Returns whether schedulers turned out to be missing that Services can do without.
    fn note_missing_schedulers(&mut self, failed: &[(Op, Cause)], now: Moment) -> bool {
        let mut news = false;
        for (op, cause) in failed {
            if let (Op::AddVirtualServer(_, spec) | Op::UpdateVirtualServer(_, spec), Cause::SchedulerMissing) =
                (op, cause)
                && spec.scheduler != self.settings.scheduling.scheduler
            {
                news |= self.settings.unavailable.insert(spec.scheduler);
            }
        }
        if news {
            self.schedulers_again = now.saturating_add(Self::SCHEDULER_PATIENCE);
            let unavailable = &self.settings.unavailable;
            self.state.touch(|service| is_spread_by(service, unavailable));
        }
        news
    }

    fn conflict(&self, foreign: &VirtualServerKey) -> Option<Problem> {
        let owner = self.plan.owner(foreign)?;
        Some(Problem {
            origin: self.state.service(owner).map_or(Origin::Api, |service| service.origin.clone()),
            object: Some(ObjectRef::Service(owner.clone())),
            field: String::new(),
            message: format!("{foreign} is a virtual server that ipvsd did not make: it is left as it is"),
        })
    }
}

/// Whether one of these schedulers is what a Service asks for, or spreads its short circuits by affinity.
fn is_spread_by(service: &Service, schedulers: &BTreeSet<SchedulerName>) -> bool {
    let own = service.scheduling.map(|own| own.scheduler);
    let of_affinity = service.affinity.map(|_| SchedulerName::MH);
    own.into_iter().chain(of_affinity).any(|name| schedulers.contains(&name))
}
