//! The thread that owns the reconciler: takes messages, turns the wheel when a pass is due, keeps the journal.

use super::journal::Journal;
use super::leftovers::Leftovers;
use super::message::{Asked, Message, News};
use super::service_manager::ServiceManager;
use super::telemetry::Telemetry;
use crate::desired::Moment;
use crate::inspect::{self, LastPass, Subject};
use crate::kernel::{Kernel, program, sysctl};
use crate::model::{Family, Op};
use crate::reconcile::{Reconciler, Report};
use crate::state::{Change, Problem};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tracing::info;

/// The reconciler with a clock and a journal.
#[derive(Debug)]
pub struct Wheel<K> {
    reconciler: Reconciler<K>,
    journal: Journal,
    /// Tells the world outside, if somebody may look.
    telemetry: Option<Telemetry>,
    /// IPVS's virtual servers of before, as long as there are any.
    leftovers: Option<Leftovers>,
    /// Why IPVS does not balance where it is asked for.
    fallback: Option<String>,
    /// What is wrong with the input, as last told.
    source_problems: Vec<Problem>,
    /// Whether a pass has programmed everything.
    others_serve: bool,
    /// Whether the input is known. Before that nothing may be decided: it would be to withdraw everything.
    is_informed: bool,
    /// What the last pass came to; none before the first.
    last_pass: Option<LastPass>,
    /// Where time begins.
    epoch: Instant,
}

impl<K: Kernel> Wheel<K> {
    /// A wheel that has not turned yet, and does not before the first [`Message::News`].
    pub fn new(reconciler: Reconciler<K>, telemetry: Option<Telemetry>) -> Self {
        Self {
            reconciler,
            journal: Journal::default(),
            telemetry,
            leftovers: None,
            fallback: None,
            source_problems: Vec::new(),
            others_serve: false,
            is_informed: false,
            last_pass: None,
            epoch: Instant::now(),
        }
    }

    /// The same, which also has these leave in peace, once others serve in their place.
    pub fn with_leftovers(self, leftovers: Option<Leftovers>) -> Self {
        Self { leftovers, ..self }
    }

    /// The same, which tells who asks why IPVS does not balance where it is asked for.
    pub fn in_place_of_ipvs(self, fallback: Option<&str>) -> Self {
        Self { fallback: fallback.map(str::to_owned), ..self }
    }

    /// Turns until [`Message::Stop`] comes or nobody can send any more.
    pub fn run(mut self, inbox: &Receiver<Message>, mut manager: ServiceManager) {
        let waiting = manager.clone();
        program::meanwhile(move || waiting.alive());
        loop {
            manager.alive();
            manager.stands(self.journal.standing());
            let wait = if self.reconciler.is_checking() { Duration::ZERO } else { self.wait() };
            let mut next = inbox.recv_timeout(wait.min(manager.patience()));
            // What waits in line is acted on in one pass.
            while let Ok(message) = next {
                if !self.take(message) {
                    return;
                }
                next = inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            if matches!(next, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            if self.reconciler_wait().is_zero() {
                let report = self.turn();
                manager.passed(&report);
                self.others_serve |= report.is_good();
            } else if self.wait().is_zero() {
                self.drain_leftovers();
            } else if self.reconciler.is_checking() {
                self.check();
            }
        }
    }

    /// Takes in a message; false means stop.
    pub fn take(&mut self, message: Message) -> bool {
        match message {
            Message::News(news) => self.take_news(news),
            Message::Node(node) => self.reconciler.take([Change::Node(node)]),
            Message::Question(asked) => self.answer(asked),
            Message::Stop => return false,
        }
        true
    }

    /// One pass, with what there is to say about it.
    pub fn turn(&mut self) -> Report {
        let start = self.now();
        let report = self.reconciler.pass(start);
        self.note_pass(&report, self.now().saturating_sub(start));
        if let Some(telemetry) = &mut self.telemetry {
            let reconciler = &self.reconciler;
            telemetry.note_locals(reconciler.locals(), || reconciler.node_port_addresses());
        }
        self.note_problems();
        if report.changes() > 0
            && self.reconciler.serves(Family::Ipv6)
            && !sysctl::forwards_ipv6(Path::new(sysctl::ROOT))
        {
            self.journal.note_ipv6_not_forwarded();
        }
        report
    }

    /// A part of a check, of which there is something to say only if not all was well.
    fn check(&mut self) {
        let start = self.now();
        let report = self.reconciler.check(start);
        if report.changes() > 0 || !report.is_good() {
            self.note_pass(&report, self.now().saturating_sub(start));
        }
    }

    fn note_pass(&mut self, report: &Report, took: Duration) {
        self.last_pass = Some(LastPass::of(report, self.now(), took, self.last_pass.take()));
        let reconciler = &self.reconciler;
        let owner =
            |op: &Op| op.virtual_server().and_then(|key| reconciler.owner(&key)).map(|owner| format!("{owner}: "));
        self.journal.note_pass(report, took, |op| owner(op).unwrap_or_default());
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.passed(report, took);
        }
    }

    /// How long until the next pass is due.
    pub fn wait(&self) -> Duration {
        let leftovers = self.leftovers.as_ref().filter(|_| self.others_serve);
        let leftovers = leftovers.map_or(Duration::MAX, |leftovers| leftovers.next().saturating_sub(self.now()));
        self.reconciler_wait().min(leftovers)
    }

    fn reconciler_wait(&self) -> Duration {
        if !self.is_informed {
            return Duration::MAX;
        }
        self.reconciler.next().saturating_sub(self.now())
    }

    /// Looks after what is left of IPVS, until nothing is.
    fn drain_leftovers(&mut self) {
        let now = self.now();
        let Some(leftovers) = &mut self.leftovers else { return };
        leftovers.kernel_mut().take_asked_for(self.reconciler.view().plan.keys());
        let report = leftovers.pass(now);
        if report.changes() > 0 {
            info!(draining = report.draining, "virtual servers of IPVS make way: {report}");
        }
        if report.is_good() && report.draining == 0 {
            self.leftovers = None;
        }
    }

    /// How many problems stand.
    pub fn problems(&self) -> usize {
        self.journal.problems()
    }

    fn take_news(&mut self, news: News) {
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.received(&news);
        }
        self.is_informed = true;
        self.reconciler.take(news.changes);
        if let Some(problems) = news.problems {
            self.source_problems = problems;
            self.note_problems();
        }
    }

    /// Of one Service it takes microseconds, of everything as long as it takes to copy it.
    fn answer(&self, Asked { question, reply }: Asked) {
        if reply.is_closed() {
            return;
        }
        let problems: Vec<_> = self.all_problems().collect();
        let subject = Subject {
            view: self.reconciler.view(),
            problems: &problems,
            now: self.now(),
            is_informed: self.is_informed,
            last_pass: self.last_pass.as_ref(),
            fallback: self.fallback.as_deref(),
        };
        // Whoever asked may have gone meanwhile.
        _ = reply.send(inspect::answer(&question, &subject));
    }

    fn all_problems(&self) -> impl Iterator<Item = Problem> {
        self.source_problems.iter().cloned().chain(self.reconciler.problems())
    }

    fn note_problems(&mut self) {
        let all: Vec<_> = self.all_problems().collect();
        let new = self.journal.note_problems(all);
        if let Some(telemetry) = &self.telemetry {
            telemetry.note_problems(self.journal.problems(), new);
        }
    }

    fn now(&self) -> Moment {
        self.epoch.elapsed()
    }
}
