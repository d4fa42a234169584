//! Wires the tasks together: sources and servers on an async runtime, the reconciler on a thread of its own, signals.
//!
//! [`run`] is the daemon; `short` has the short lives of the same parts: one pass, a preview, a clean-up.

mod cluster;
mod configuration;
mod heap;
mod inspection;
mod journal;
mod look;
mod node;
mod probe;
mod restart;
mod servers;
mod service_manager;
mod short;
mod survey;
mod telemetry;
mod trouble;
mod watch;
mod wheel;

use crate::config::{Config, Input};
use crate::health::{Health, SharedHealth};
use crate::kernel::linux::Linux;
use crate::metrics::{Feature, Metrics};
use crate::reconcile::Reconciler;
use crate::server::system_clock;
use crate::source::kube::Occurrence;
use anyhow::Context;
use configuration::Configuration;
use service_manager::ServiceManager;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use telemetry::{HealthChecks, Shared, Telemetry};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::sync::oneshot;
use tracing::info;
use watch::{Listener, Sources};
use wheel::{Message, Wheel};

pub use configuration::Reread;
pub use look::{Look, look, look_for};
pub use restart::restart_in_place;
pub use servers::About;
pub use short::{cleanup, init_only, preview, run_once};
pub use survey::survey;

/// How a daemon's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a signal.
    Stopped,
    /// Because the configuration changed: the program is to be started anew.
    ConfigurationChanged,
}

/// What the daemon cannot know of itself.
pub struct Invocation {
    /// Reads the configuration again from where it came.
    pub reread: Reread,
    /// For the pages at the metrics port.
    pub about: About,
}

/// Keeps the kernel as the input says until SIGTERM, SIGINT or another configuration, and then leaves it as it is.
///
/// # Errors
/// When it cannot begin (rights, kernel modules, sysctls, the directory), or a socket that must be had cannot be had.
pub fn run(config: Config, invocation: Invocation) -> anyhow::Result<Ended> {
    restart::name_process();
    heap::share();
    config.notices.iter().for_each(|notice| info!("configuration: {notice}"));
    let node_name = node::name(&config)?;
    let kernel = node::prepared_kernel(&config)?;
    let ended = runtime()?.block_on(live(config, invocation, (kernel, &node_name)))?;
    info!("stopped; the kernel stays as it is");
    Ok(ended)
}

async fn live(config: Config, invocation: Invocation, (kernel, node): (Linux, &str)) -> anyhow::Result<Ended> {
    let shared = shared(&config)?;
    if let Input::Cluster(connection) = &config.input {
        cluster::check_access(connection).await.context("there is no way to the cluster")?;
    }
    let events = cluster::events(&config, node, &shared.metrics);
    let mut sources = Sources::open(&config, Listener { node, metrics: Some(&shared.metrics) }).await?;
    let (wheel_sender, inbox) = mpsc::channel();
    for message in sources.first().await? {
        if let (Message::Node(facts), Input::Cluster(_)) = (&message, &config.input) {
            node::check_families(&config, facts)?;
        }
        wheel_sender.send(message)?;
    }
    inspection::start(&wheel_sender);
    let mut fatal = servers::start(&config, invocation.about, &shared, events.as_ref());
    let (health_checks, wanted) = tokio::sync::watch::channel(HealthChecks::default());
    tokio::spawn(servers::serve_health_checks(wanted, shared.clone(), events.clone()));
    let telemetry = Telemetry::new(shared.clone(), health_checks);
    let reconciler = Reconciler::new(kernel, node::settings(&config), config.options.clone());
    let (end_sender, end) = oneshot::channel();
    let wheel = turn(Wheel::new(reconciler, Some(telemetry)), inbox, end_sender)?;
    info!(input = %config.input, node, "started");
    if let Some(events) = &events {
        events.write(Occurrence::Starting);
    }
    let mut configuration = Configuration::watch(config, invocation.reread, Arc::clone(&shared.metrics));
    let ended = select! {
        stopped = sources.watch(&wheel_sender, end) => stopped.map(|()| Ended::Stopped),
        () = configuration.changed() => Ok(Ended::ConfigurationChanged),
        Some(error) = fatal.recv() => Err(error.into()),
    };
    // If the wheel is gone already, joining it tells how.
    let _ = wheel_sender.send(Message::Stop);
    wheel.join().map_err(|_| anyhow::anyhow!("the reconciler ended in a panic; the kernel stays as it is"))?;
    ended
}

/// Turns the wheel on a thread of its own. `ended` is dropped on every way out of it.
fn turn(
    wheel: Wheel<Linux>,
    inbox: mpsc::Receiver<Message>,
    ended: oneshot::Sender<()>,
) -> anyhow::Result<JoinHandle<()>> {
    let run = move || {
        let _ended = ended;
        wheel.run(&inbox, ServiceManager::find());
    };
    Ok(thread::Builder::new().name("reconciler".into()).spawn(run)?)
}

fn shared(config: &Config) -> anyhow::Result<Shared> {
    let families = node::families();
    let features: Vec<_> =
        config.feature_gates.iter().map(|(name, stage, enabled)| Feature { name, stage, enabled }).collect();
    let metrics = Metrics::new(&families, &features).context("metrics cannot be registered")?;
    let clock = system_clock();
    // Where there is a cluster, its Node object says whether the node may have traffic.
    let is_eligible = matches!(config.input, Input::Manifests(_));
    let health = Health::new(families.clone(), 2 * config.options.intervals.resync, is_eligible, clock());
    Ok(Shared { metrics: Arc::new(metrics), health: SharedHealth::new(health), clock, families })
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
