//! The short lives of the daemon's parts: one pass (`run --once`), a preview (`diff`), preparing the node (`--init-only`)
//! and a clean-up.

use super::message::Message;
use super::runtime;
use super::watch::{Listener, Sources};
use super::wheel::Wheel;
use super::{balancer, inspection, node};
use crate::config::{Config, Mode};
use crate::desired::{Moment, Settings};
use crate::kernel::linux::{Linux, OpenError};
use crate::kernel::{modules, nfacct};
use crate::model::{Op, SchedulerName};
use crate::reconcile::{Options, Reconciler, Report, Takeover};
use crate::server::LogFilter;
use crate::state::{Change, Problem};
use anyhow::Context;
use std::sync::mpsc;
use std::thread;
use tracing::warn;

/// How many passes [`run_once`] makes while something fails.
const ATTEMPTS: usize = 5;

/// Brings the kernel to what the input says now. Returns whether all of it is there: nothing was rejected and nothing
/// failed.
///
/// # Errors
/// As [`super::run`], when the input cannot be read, and when a daemon is at work in this network namespace.
pub fn run_once(config: &Config, log: LogFilter) -> anyhow::Result<bool> {
    // It answers that it is busy, so that a daemon which starts meanwhile waits.
    let (wheel, _) = mpsc::channel();
    inspection::start(inspection::ask(wheel), log, None)?.context("nothing was changed")?;
    let (kernel, choice) = balancer::prepare(config)?;
    let first = first_messages(config)?;
    let mut wheel = Wheel::new(Reconciler::new(kernel, choice.settings(config), choice.options(config)), None);
    for message in first {
        wheel.take(message);
    }
    let mut report = wheel.turn();
    for _ in 1..ATTEMPTS {
        if report.is_good() {
            break;
        }
        thread::sleep(wheel.wait());
        report = wheel.turn();
    }
    Ok(report.is_good() && wheel.problems() == 0)
}

/// What [`super::run`] would change in the kernel, and what is wrong with the input. Changes nothing.
///
/// # Errors
/// When the input or the kernel cannot be read.
pub fn preview(config: &Config) -> anyhow::Result<(Vec<Op>, Vec<Problem>)> {
    let (kernel, choice) = balancer::open(config)?;
    let mut reconciler = Reconciler::new(kernel, choice.settings(config), choice.options(config));
    let mut problems = Vec::new();
    for message in first_messages(config)? {
        match message {
            Message::News(news) => {
                reconciler.take(news.changes);
                problems.extend(news.problems.into_iter().flatten());
            }
            Message::Node(node) => reconciler.take([Change::Node(node)]),
            Message::Question(_) | Message::Stop => {}
        }
    }
    let ops = reconciler.preview(Moment::ZERO)?;
    problems.extend(reconciler.problems());
    Ok((ops, problems))
}

/// Sets and loads what [`super::run`] needs, for one that may do so before one that may not.
///
/// # Errors
/// As [`super::run`], as far as the kernel is concerned.
pub fn init_only(config: &Config) -> anyhow::Result<()> {
    if config.mode != Mode::Iptables {
        // The second one is for affinity.
        for missing in modules::load_needed([config.settings.scheduling.scheduler, SchedulerName::MH]) {
            warn!("{missing}");
        }
    }
    balancer::prepare(config).map(drop)
}

/// Removes everything ipvsd made, without waiting for connections: a pass like any other, with nothing wanted.
/// With `takeover` also what kube-proxy left in any of its modes, even where the kernel has no IPVS.
///
/// # Errors
/// When the kernel cannot be opened or read.
pub fn cleanup(takeover: Takeover) -> anyhow::Result<Report> {
    let kernel = match Linux::open() {
        Err(OpenError::ModuleMissing { .. }) => Linux::open_nat()?,
        kernel => kernel?.with_netfilter()?,
    };
    let options = Options { takeover, ..Options::default() };
    let mut reconciler = Reconciler::new(kernel, Settings::default(), options);
    let mut report = reconciler.pass(Moment::ZERO);
    // Whether or not there were rules that counted in them.
    nfacct::remove_unused();
    match report.unread.take() {
        Some(error) => Err(error.into()),
        None => Ok(report),
    }
}

/// Reads the sources once, without staying to listen.
fn first_messages(config: &Config) -> anyhow::Result<Vec<Message>> {
    let node = node::name(config)?;
    runtime()?
        .block_on(async { Sources::open(config, Listener { node: &node, metrics: None }).await?.complete().await })
}
