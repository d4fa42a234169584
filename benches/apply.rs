//! What `Linux::apply` costs from an empty kernel, as a ratio to a raw replay of the same bytes in the same run.
//!
//! `./dev bench apply`, or `tests/lab/boot PROGRAM` where this kernel has no IPVS. Every run is in a network namespace
//! of its own, because destinations that were deleted slow down adding others for two minutes. Namespaces share the hash
//! table of services, which has 256 chains, so each run waits until the kernel has taken the one before down.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run ends by panicking")]

#[path = "support/raw.rs"]
mod raw;

use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::netlink::Counters;
use ipvsd::kernel::{Kernel, Scope};
use ipvsd::model::{Model, Op};
use raw::in_namespace;
use std::time::{Duration, Instant};

const VIRTUAL_SERVERS: u32 = 10_000;
const DESTINATIONS: u32 = 2;
const ROUNDS: usize = 7;

/// The goal of the ratio of the medians.
const GOAL: f64 = 1.5;

fn main() {
    let ops = raw::operations(VIRTUAL_SERVERS, DESTINATIONS);
    let (mut applied, mut replayed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        applied.push(in_namespace(|| apply(&ops, round == 0)));
        replayed.push(in_namespace(|| raw::replay(&ops)));
    }
    println!(
        "{VIRTUAL_SERVERS} virtual servers x {DESTINATIONS} destinations and as many routes: {} operations",
        ops.len()
    );
    println!("{:<24} {:>8} {:>8} {:>8} {:>8}", format!("{ROUNDS} rounds"), "min ms", "med ms", "sends", "recvs");
    let apply = print("Linux::apply", applied);
    let replay = print("raw replay", replayed);
    let ratio = apply.as_secs_f64() / replay.as_secs_f64();
    println!("ratio of the medians {ratio:.2}, goal {GOAL} at most");
    if ratio > GOAL {
        std::process::exit(1);
    }
}

/// Applies all of it, and looks at the result in the round that is told to.
fn apply(ops: &[Op], check: bool) -> (Duration, Counters) {
    let mut linux = Linux::open().unwrap();
    let before = linux.counters();
    let start = Instant::now();
    let failures = linux.apply(ops);
    let took = start.elapsed();
    let after = linux.counters();
    assert_eq!(failures, []);
    if check {
        let mut wanted = Model::default();
        ops.iter().for_each(|op| wanted.apply(op).unwrap());
        let start = Instant::now();
        let seen = linux.observe(Scope::All).unwrap();
        println!("reading all of it back took {} ms", start.elapsed().as_millis());
        assert!(seen.model == wanted, "the kernel holds something else");
    }
    let counters = Counters {
        sends: after.sends - before.sends,
        receives: after.receives - before.receives,
        messages: after.messages - before.messages,
    };
    (took, counters)
}

/// Prints a row; returns the median.
fn print(name: &str, rounds: Vec<(Duration, Counters)>) -> Duration {
    let counters = rounds.first().unwrap().1;
    let mut times: Vec<Duration> = rounds.into_iter().map(|(time, _)| time).collect();
    times.sort_unstable();
    let [min, median] = [0, times.len() / 2].map(|index| *times.get(index).unwrap());
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
    println!("{name:<24} {:>8} {:>8} {:>8} {:>8}", ms(min), ms(median), counters.sends, counters.receives);
    median
}
