//! Wires the tasks together: sources on an async runtime, the reconciler on a thread of its own, signals.
//!
//! Also the short lives of the same parts: one pass (`run --once`), a preview (`diff`) and `cleanup`.

mod journal;
mod probe;
mod service_manager;
mod trouble;
mod watch;
mod wheel;

use crate::config::Config;
use crate::desired::{Moment, Settings};
use crate::kernel::linux::{Linux, OpenError};
use crate::kernel::modules;
use crate::kernel::node_setup;
use crate::model::Op;
use crate::reconcile::{Options, Reconciler, Report, Takeover};
use crate::state::{Change, Problem};
use anyhow::Context;
use service_manager::ServiceManager;
use std::sync::mpsc;
use std::thread;
use tokio::runtime::{Builder, Runtime};
use tracing::{info, warn};
use watch::Sources;
use wheel::{Message, Wheel};

/// How many passes [`run_once`] makes while something fails.
const ATTEMPTS: usize = 5;

/// Keeps the kernel as the manifests say until SIGTERM or SIGINT, and then leaves it as it is.
///
/// # Errors
/// When it cannot begin: rights, kernel modules, sysctls, the directory.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let kernel = prepared_kernel(config)?;
    let runtime = runtime()?;
    let mut sources = runtime.block_on(Sources::open(config))?;
    let (sender, inbox) = mpsc::channel();
    for message in runtime.block_on(sources.first())? {
        sender.send(message)?;
    }
    let wheel = Wheel::new(Reconciler::new(kernel, config.settings.clone(), config.options.clone()));
    info!(input = %config.input, "started");
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let wheel = thread::Builder::new().name("reconciler".into()).spawn(move || {
        // Dropped on every way out of the thread, which `end` sees.
        let _ended = ended;
        wheel.run(&inbox, ServiceManager::find());
    })?;
    let watched = runtime.block_on(sources.watch(&sender, end));
    // If the wheel is gone already, joining it tells how.
    let _ = sender.send(Message::Stop);
    wheel.join().map_err(|_| anyhow::anyhow!("the reconciler ended in a panic; the kernel stays as it is"))?;
    watched?;
    info!("stopped; the kernel stays as it is");
    Ok(())
}

/// Brings the kernel to what the manifests say now. Returns whether all of it is there: nothing was rejected and
/// nothing failed.
///
/// # Errors
/// As [`run`].
pub fn run_once(config: &Config) -> anyhow::Result<bool> {
    let kernel = prepared_kernel(config)?;
    let first = first_messages(config)?;
    let mut wheel = Wheel::new(Reconciler::new(kernel, config.settings.clone(), config.options.clone()));
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

/// What [`run`] would change in the kernel, and what is wrong with the manifests. Changes nothing.
///
/// # Errors
/// As [`run`], and when the kernel cannot be read.
pub fn preview(config: &Config) -> anyhow::Result<(Vec<Op>, Vec<Problem>)> {
    let mut reconciler = Reconciler::new(Linux::open()?, config.settings.clone(), config.options.clone());
    let mut problems = Vec::new();
    for message in first_messages(config)? {
        match message {
            Message::Manifests(changes, found) => {
                reconciler.take(changes);
                problems.extend(found);
            }
            Message::Node(node) => reconciler.take([Change::Node(node)]),
            Message::Stop => {}
        }
    }
    let ops = reconciler.preview(Moment::ZERO)?;
    problems.extend(reconciler.problems());
    Ok((ops, problems))
}

/// Sets and loads what [`run`] needs, for one that may do so before one that may not (`kube-proxy --init-only`).
///
/// # Errors
/// As [`run`], as far as the kernel is concerned.
pub fn init_only(config: &Config) -> anyhow::Result<()> {
    for missing in modules::load_needed([config.settings.scheduling.scheduler]) {
        warn!("{missing}");
    }
    prepared_kernel(config).map(drop)
}

/// Removes everything ipvsd made, without waiting for connections: a pass like any other, with nothing wanted.
/// With `takeover` also what kube-proxy's ipvs mode left on its device; where the kernel has no IPVS there is none.
///
/// # Errors
/// When the kernel cannot be opened or read.
pub fn cleanup(takeover: Takeover) -> anyhow::Result<Report> {
    let kernel = match Linux::open() {
        Err(OpenError::ModuleMissing { .. }) if takeover != Takeover::Nothing => return Ok(Report::default()),
        kernel => kernel?,
    };
    let options = Options { takeover, ..Options::default() };
    let mut reconciler = Reconciler::new(kernel, Settings::default(), options);
    let mut report = reconciler.pass(Moment::ZERO);
    match report.unread.take() {
        Some(error) => Err(error.into()),
        None => Ok(report),
    }
}

/// Opens the kernel, sets the sysctls that balancing needs and proves that it can balance.
fn prepared_kernel(config: &Config) -> anyhow::Result<Linux> {
    for notice in &config.notices {
        info!("configuration: {notice}");
    }
    let mut kernel = Linux::open()?;
    let prepared = node_setup::prepare(&config.node, &mut kernel)?;
    for setting in prepared.set {
        info!("set {setting}");
    }
    for unset in prepared.unset {
        warn!("{unset}: {}", unset.source);
    }
    let scheduler = config.settings.scheduling.scheduler;
    probe::probe(&mut kernel, scheduler).with_context(|| {
        format!(
            "this kernel cannot balance with the scheduler {scheduler}; load its module (`modprobe ip_vs_{scheduler}`) \
             or choose another one"
        )
    })?;
    Ok(kernel)
}

/// Reads the sources once, without staying to listen.
fn first_messages(config: &Config) -> anyhow::Result<[Message; 2]> {
    runtime()?.block_on(async { Sources::open(config).await?.first().await })
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
