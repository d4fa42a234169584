//! Wires the tasks together: sources and servers on an async runtime, the reconciler on a thread of its own, signals.
//!
//! [`run`] is the daemon; `short` has the short lives of the same parts: one pass, a preview, a clean-up.

mod balancer;
mod cluster;
mod configuration;
mod heap;
mod inspection;
mod journal;
mod leftovers;
mod look;
mod message;
mod node;
mod probe;
mod restart;
mod servers;
mod service_manager;
mod short;
mod socket_file;
mod stop;
mod survey;
mod telemetry;
mod traffic;
mod trouble;
mod watch;
mod wheel;

use crate::config::{Config, Input, Mode, ServiceMetrics};
use crate::health::{Health, SharedHealth};
use crate::kernel::linux::Linux;
use crate::kernel::nfacct;
use crate::metrics::{Feature, Metrics, RulesSource};
use crate::reconcile::Reconciler;
use crate::server::{Page, system_clock};
use crate::source::kube::{Events, Occurrence};
use anyhow::Context;
use balancer::Choice;
use configuration::Configuration;
use leftovers::Leftovers;
use message::Message;
use servers::Starter;
use service_manager::ServiceManager;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use stop::Stop;
use telemetry::{HealthChecks, Shared, Telemetry};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::sync::oneshot;
use tracing::{info, warn};
use watch::{Listener, Sources};
use wheel::Wheel;

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
    /// Because another daemon has ended, in whose place it can be: the program is to be started anew.
    OtherDaemonEnded,
    /// Because the kernel has IPVS now, and the program is to move over: it is to be started anew.
    IpvsAppeared,
}

/// What the daemon cannot know of itself.
pub struct Invocation {
    /// Reads the configuration again from where it came.
    pub reread: Reread,
    /// For the pages at the metrics port.
    pub about: About,
}

/// Keeps the kernel as the input says until SIGTERM, SIGINT or another configuration, and then leaves it as it is. Where
/// another daemon is at work in this network namespace it does nothing but wait for that one's end.
///
/// # Errors
/// When it cannot begin (rights, kernel modules, sysctls, the directory), or a socket that must be had cannot be had.
pub fn run(config: Config, invocation: Invocation) -> anyhow::Result<Ended> {
    restart::name_process();
    heap::share();
    config.notices.iter().for_each(|notice| info!("configuration: {notice}"));
    let node_name = node::name(&config)?;
    let (sender, inbox) = mpsc::channel();
    let (ask, log) = (inspection::ask(sender.clone()), invocation.about.log.clone());
    if let Err(other) = inspection::start(ask, log, config.servers.inspection.as_deref())? {
        return inspection::wait(other);
    }
    let ended = runtime()?.block_on(live(config, invocation, &node_name, Messages { sender, inbox }))?;
    info!("stopped; the kernel stays as it is");
    Ok(ended)
}

/// Both ends of what the wheel is told.
struct Messages {
    sender: Sender<Message>,
    inbox: Receiver<Message>,
}

async fn live(config: Config, invocation: Invocation, node: &str, messages: Messages) -> anyhow::Result<Ended> {
    let (fatal, hard_failure) = tokio::sync::mpsc::channel(1);
    let mut stop = Stop::hear(hard_failure)?;
    let shared = shared(&config)?;
    let events = cluster::events(&config, node, &shared.metrics);
    let servers = Starter { shared: &shared, events: events.as_ref(), fatal };
    // Before anything that may take its time: programs may hang.
    servers.health(&config.servers);
    let (mut kernel, choice) = match prepare(&config, &mut stop).await? {
        Ok(prepared) => prepared,
        Err(ended) => return Ok(ended),
    };
    shared.metrics.mode(choice.mode(), choice.why());
    tell_of_rules(&shared.metrics, &kernel)?;
    let (mut sources, first) = select! {
        begun = begin(&config, node, &shared) => begun?,
        told = stop.told() => return told,
    };
    first.into_iter().try_for_each(|message| messages.sender.send(message))?;
    let ask = inspection::ask(messages.sender.clone());
    let traffic = traffic_of(&config, &kernel).map(|what| traffic::teller(what, Arc::clone(&ask), &shared.metrics));
    let page = Page::new(node.to_owned(), choice.reason(), ask);
    servers.metrics(&config, servers::Pages { about: invocation.about, mode: choice.mode(), page, traffic });
    let (health_checks, wanted) = tokio::sync::watch::channel(HealthChecks::default());
    tokio::spawn(servers::serve_health_checks(wanted, shared.clone(), events.clone()));
    let telemetry = Telemetry::new(shared.clone(), health_checks);
    let leftovers = leftovers_of_ipvs(&config, &mut kernel);
    let reconciler = Reconciler::new(kernel, choice.settings(&config), choice.options(&config));
    let (end_sender, end) = oneshot::channel();
    let wheel = Wheel::new(reconciler, Some(telemetry));
    let wheel = wheel.with_leftovers(leftovers).in_place_of_ipvs(choice.fallback());
    let wheel = turn(wheel, messages.inbox, ServiceManager::find(&config.input), end_sender)?;
    info!(input = %config.input, node, mode = choice.mode(), "started");
    tell_start(events.as_ref(), &choice);
    let moving = moving(config.clone(), choice, events.clone());
    let mut configuration = Configuration::watch(config, invocation.reread, Arc::clone(&shared.metrics));
    let ended = select! {
        Err(error) = sources.watch(&messages.sender, end) => Err(error),
        () = configuration.changed() => Ok(Ended::ConfigurationChanged),
        () = moving => Ok(Ended::IpvsAppeared),
        told = stop.told() => told,
    };
    if matches!(ended, Ok(Ended::Stopped) | Err(_)) {
        service_manager::stopping();
    }
    // If the wheel is gone already, joining it tells how.
    let _ = messages.sender.send(Message::Stop);
    stop::let_end(&wheel).await;
    wheel.join().map_err(|_| anyhow::anyhow!("the reconciler ended in a panic; the kernel stays as it is"))?;
    ended
}

/// Prepares the node, on a thread of its own. An error within is how it ended first.
async fn prepare(config: &Config, stop: &mut Stop) -> anyhow::Result<Result<(Linux, Choice), Ended>> {
    let config = config.clone();
    let preparing = thread::Builder::new().name("preparation".into()).spawn(move || balancer::prepare(&config))?;
    select! {
        () = stop::ended(&preparing) => {}
        told = stop.told() => {
            stop::let_end(&preparing).await;
            return told.map(Err);
        }
    }
    let prepared = preparing.join().map_err(|_| anyhow::anyhow!("the preparation of the node ended in a panic"))?;
    prepared.map(Ok)
}

/// Begins to follow the input. Returns with it what is known of it at once.
async fn begin(config: &Config, node: &str, shared: &Shared) -> anyhow::Result<(Sources, Vec<Message>)> {
    if let Input::Cluster(connection) = &config.input {
        cluster::check_access(connection).await.context("there is no way to the cluster")?;
    }
    let mut sources = Sources::open(config, Listener { node, metrics: Some(&shared.metrics) }).await?;
    let first = sources.first().await?;
    for message in &first {
        if let (Message::Node(facts), Input::Cluster(_)) = (message, &config.input) {
            node::check_families(config, facts)?;
        }
    }
    Ok((sources, first))
}

/// Where IPVS balances there are none: what it has is compared with what is wanted like all else.
fn leftovers_of_ipvs(config: &Config, kernel: &mut Linux) -> Option<Leftovers> {
    if kernel.has_ipvs() { None } else { leftovers::find(config, kernel) }
}

/// What metrics tell of what goes through Services: rules count nothing that could be told.
fn traffic_of(config: &Config, kernel: &Linux) -> Option<ServiceMetrics> {
    let wanted = config.servers.service_metrics?;
    if !kernel.has_ipvs() {
        warn!("serviceMetrics has no effect: only IPVS counts what goes through Services");
        return None;
    }
    Some(wanted)
}

/// Where rules balance metrics tell how many there are and what they count.
fn tell_of_rules(metrics: &Metrics, kernel: &Linux) -> anyhow::Result<()> {
    let Some(counts) = kernel.rule_counts().filter(|_| !kernel.has_ipvs()) else { return Ok(()) };
    let source = RulesSource { counts: Arc::clone(counts), packets: Box::new(nfacct::packets) };
    metrics.rules(source).context("metrics of rules cannot be registered")
}

fn tell_start(events: Option<&Events>, choice: &Choice) {
    let Some(events) = events else { return };
    events.write(Occurrence::Starting);
    if let Some(why) = choice.fallback() {
        events.write(Occurrence::FellBack(why.to_owned()));
    }
}

/// Says when IPVS appears that was missed, and returns then if the program is to move over.
async fn moving(config: Config, choice: Choice, events: Option<Events>) {
    balancer::ipvs_appeared(&config, &choice).await;
    let moves_over = matches!(config.mode, Mode::Ipvs { moves_over: true, .. });
    let then = if moves_over { "moving over to it" } else { "the next start moves over to it" };
    info!("the kernel has IPVS now: {then}");
    if let Some(events) = events {
        events.write(Occurrence::IpvsAppeared(format!("the kernel has IPVS now: {then}")));
    }
    if !moves_over {
        std::future::pending::<()>().await;
    }
}

/// Turns the wheel on a thread of its own. `ended` is dropped on every way out of it.
fn turn(
    wheel: Wheel<Linux>,
    inbox: Receiver<Message>,
    manager: ServiceManager,
    ended: oneshot::Sender<()>,
) -> anyhow::Result<JoinHandle<()>> {
    let run = move || {
        let _ended = ended;
        wheel.run(&inbox, manager);
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
