//! The thread that owns the reconciler: takes messages, turns the wheel when a pass is due, keeps the journal.

use super::journal::Journal;
use super::service_manager::ServiceManager;
use crate::desired::Moment;
use crate::kernel::{Kernel, sysctl};
use crate::model::{Family, Op};
use crate::reconcile::{Reconciler, Report};
use crate::state::{Change, Node, Problem};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// News for the wheel.
#[derive(Debug)]
pub enum Message {
    /// The manifests were read again: what is different, and everything that is wrong with them now.
    Manifests(Vec<Change>, Vec<Problem>),
    /// The node's facts.
    Node(Node),
    /// End after what came before this.
    Stop,
}

/// The reconciler with a clock and a journal.
#[derive(Debug)]
pub struct Wheel<K> {
    reconciler: Reconciler<K>,
    journal: Journal,
    /// What is wrong with the manifests, as last told.
    source_problems: Vec<Problem>,
    /// Where time begins.
    epoch: Instant,
}

impl<K: Kernel> Wheel<K> {
    /// A wheel that has not turned yet.
    pub fn new(reconciler: Reconciler<K>) -> Self {
        Self { reconciler, journal: Journal::default(), source_problems: Vec::new(), epoch: Instant::now() }
    }

    /// Turns until [`Message::Stop`] comes or nobody can send any more.
    pub fn run(mut self, inbox: &Receiver<Message>, mut manager: ServiceManager) {
        loop {
            manager.alive();
            let mut next = inbox.recv_timeout(self.wait().min(manager.patience()));
            // What waits in line is acted on in one pass.
            while let Ok(message) = next {
                if !self.take(message) {
                    return manager.stopping();
                }
                next = inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            if matches!(next, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            if self.wait().is_zero() {
                manager.passed(&self.turn());
            }
        }
    }

    /// Takes in a message; false means stop.
    pub fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Manifests(changes, problems) => {
                self.reconciler.take(changes);
                self.source_problems = problems;
                self.note_problems();
            }
            Message::Node(node) => self.reconciler.take([Change::Node(node)]),
            Message::Stop => return false,
        }
        true
    }

    /// One pass, with what there is to say about it.
    pub fn turn(&mut self) -> Report {
        let start = self.now();
        let report = self.reconciler.pass(start);
        let reconciler = &self.reconciler;
        let owner =
            |op: &Op| op.virtual_server().and_then(|key| reconciler.owner(&key)).map(|owner| format!("{owner}: "));
        self.journal.note_pass(&report, self.now().saturating_sub(start), |op| owner(op).unwrap_or_default());
        self.note_problems();
        if report.changes() > 0
            && self.reconciler.serves(Family::Ipv6)
            && !sysctl::forwards_ipv6(Path::new(sysctl::ROOT))
        {
            self.journal.note_ipv6_not_forwarded();
        }
        report
    }

    /// How long until the next pass is due.
    pub fn wait(&self) -> Duration {
        self.reconciler.next().saturating_sub(self.now())
    }

    /// How many problems stand.
    pub fn problems(&self) -> usize {
        self.journal.problems()
    }

    fn note_problems(&mut self) {
        let all = self.source_problems.iter().cloned().chain(self.reconciler.problems());
        self.journal.note_problems(all);
    }

    fn now(&self) -> Moment {
        self.epoch.elapsed()
    }
}
