//! What a cluster costs: how long after its start everything is in the kernel, how much memory that takes, and how long
//! a single change is on its way.
//!
//! `./dev bench cluster` has clusters of the sizes that have goals, `./dev bench cluster -- 1000x2` one of another size:
//! Services by endpoints of each. They are in the tests' own API server, which sends what it keeps as text; with `--
//! real` they are in a real one (`KUBEBUILDER_ASSETS`), which takes minutes to fill. All of it runs on this kernel if it
//! has IPVS, else in the lab, where server, daemon and observer share one processor. So each time is also given as a
//! ratio to what the same takes without the daemon in the same run: reading the lists and sending the operations, and
//! the arrival of an event at a client that does nothing but wait for it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run ends by panicking"
)]

#[path = "../../tests/support/kubernetes/mod.rs"]
mod kubernetes;
#[path = "../support/raw.rs"]
mod raw;

mod api;
mod change;
mod client;
mod daemon;
mod world;

use api::Api;
use change::Delays;
use client::Client;
use daemon::{Daemon, Memory};
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::{Kernel, Scope};
use kubernetes::{api_server, control_plane, objects};
use std::process::{Command, ExitCode};
use std::time::Duration;
use tempfile::TempDir;
use world::World;

/// Rounds of the raw replay; the median counts.
const ROUNDS: usize = 3;

/// In how much time so many of a hundred changes should be in the kernel.
const CHANGES: [(usize, Duration); 2] = [(50, Duration::from_millis(10)), (99, Duration::from_millis(50))];

/// What was measured in one cluster.
struct Measured {
    /// Reading the lists and doing nothing with them.
    read: Duration,
    /// From the start of the process until everything is in the kernel.
    start: Duration,
    memory: Memory,
    /// Of events, at a client that only waits for them.
    arrivals: Delays,
    /// Of changes, in the kernel.
    changes: Delays,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_real = words.iter().any(|word| word == "real");
    let mut worlds: Vec<World> =
        words.iter().filter(|word| *word != "real").map(|word| word.parse().unwrap()).collect();
    if worlds.is_empty() {
        worlds = World::WITH_GOALS.to_vec();
    }
    let reached = worlds.into_iter().map(|world| report(world, is_real)).collect::<Vec<_>>();
    if reached.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures and prints; returns whether the goals are reached.
fn report(world: World, is_real: bool) -> bool {
    let sent = replay(world);
    let measured = raw::in_namespace(|| measure(world, is_real));
    let Measured { read, start, memory, arrivals, changes } = &measured;
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!("{world}, from {}", if is_real { "a real API server" } else { "the tests' API server" });
    println!("  lists read and dropped {}, operations sent {}", ms(*read), ms(sent));
    println!("  from the start to the kernel {}, {:.2} times these two", ms(*start), ratio(*start, *read + sent));
    println!("  memory {memory}");
    println!("  events at a client that waits {arrivals}");
    println!("  changes in the kernel {changes}");
    // A real server may tell of a change before it acknowledges it.
    if arrivals.percentile(50) > Duration::ZERO {
        println!(
            "  half of the changes within {:.2} times that of events",
            ratio(changes.percentile(50), arrivals.percentile(50))
        );
    }
    let missed: Vec<_> = missed(world, &measured).collect();
    let goals = if missed.is_empty() { "reached".to_owned() } else { format!("MISSED: {}", missed.join(", ")) };
    println!("  goals {goals}");
    missed.is_empty()
}

/// The goals that were not reached.
fn missed(world: World, measured: &Measured) -> impl Iterator<Item = String> {
    let goals = world.goals();
    let start = goals.start.filter(|goal| measured.start > *goal);
    let start = start.map(|goal| format!("in the kernel within {}", ms(goal)));
    let memory = goals.megabytes.filter(|goal| measured.memory.megabytes() > *goal);
    let memory = memory.map(|goal| format!("at most {goal} MB"));
    let slow = CHANGES.into_iter().filter(|(percent, goal)| measured.changes.percentile(*percent) > *goal);
    let slow = slow.map(|(percent, goal)| format!("changes within {} (p{percent})", ms(goal)));
    [start, memory].into_iter().flatten().chain(slow.collect::<Vec<_>>())
}

/// The median of raw replays of the operations that such a cluster leads to.
fn replay(world: World) -> Duration {
    let ops = raw::operations(world.services, world.endpoints);
    let mut rounds: Vec<_> = (0..ROUNDS).map(|_| raw::in_namespace(|| raw::replay(&ops)).0).collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn measure(world: World, is_real: bool) -> Measured {
    add_node_address();
    let directory = TempDir::new().unwrap();
    let api = Api::start(world, is_real);
    let kubeconfig = api.kubeconfig(directory.path());
    let (client, read) = Client::start(kubeconfig.clone());
    let arrivals = Delays::measure(world, &api, |_| client.event());
    drop(client);
    let daemon = Daemon::start(&kubeconfig);
    let start = daemon.first_pass();
    let memory = daemon.memory();
    let mut kernel = Linux::open().unwrap();
    check(world, &mut kernel);
    let changes = Delays::measure(world, &api, |change| change.until_in_kernel(&mut kernel));
    Measured { read, start, memory, arrivals, changes }
}

/// A device with the address that the Node object names.
fn add_node_address() {
    for words in ["link add node0 type dummy", "link set node0 up", "addr add 192.0.2.1/24 dev node0"] {
        assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
    }
}

/// Counts what the kernel has. A real API server has a Service of its own.
fn check(world: World, kernel: &mut Linux) {
    let seen = kernel.observe(Scope::All).unwrap().model;
    let destinations: usize = seen.virtual_servers.values().map(|server| server.destinations.len()).sum();
    assert!(seen.virtual_servers.len() >= world.services.try_into().unwrap(), "virtual servers are missing");
    assert_eq!(destinations, usize::try_from(world.services * world.endpoints).unwrap());
}

/// In milliseconds, or in seconds where those are many.
fn ms(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
