//! What `Linux::apply` costs from an empty kernel, as a ratio to a raw replay of the same bytes in the same run.
//!
//! `./dev bench apply`, or `tests/lab/boot PROGRAM` where this kernel has no IPVS. Every run is in a network namespace
//! of its own, because destinations that were deleted slow down adding others for two minutes. Namespaces share the hash
//! table of services, which has 256 chains, so each run waits until the kernel has taken the one before down.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run ends by panicking")]

use ipvsd::demo::namespace::Namespace;
use ipvsd::kernel::ipvs::encode::Encoder;
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::netlink::socket::RECEIVE_BUFFER;
use ipvsd::kernel::netlink::{Batch, Counters, Socket, family};
use ipvsd::kernel::{Kernel, Scope, ipvs, route};
use ipvsd::model::{
    DestinationKey, DestinationSpec, Model, Op, Phase, Protocol, RouteSpec, SchedulerFlags, VirtualServerKey,
    VirtualServerSpec,
};
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const VIRTUAL_SERVERS: u32 = 10_000;
const DESTINATIONS: u32 = 2;
const ROUNDS: usize = 7;

/// More than enough to take 30,000 objects down.
const TEARDOWN: Duration = Duration::from_secs(2);

/// The goal of the ratio of the medians.
const GOAL: f64 = 1.5;

fn main() {
    let ops = operations();
    let (mut applied, mut replayed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        applied.push(in_namespace(|| apply(&ops, round == 0)));
        replayed.push(in_namespace(|| replay(&ops)));
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

/// A cold start: everything is new.
fn operations() -> Vec<Op> {
    let spec =
        VirtualServerSpec { scheduler: "rr".parse().unwrap(), flags: SchedulerFlags::default(), persistence: None };
    let vip = |number: u32| IpAddr::from((0x0a60_0000 + number).to_be_bytes());
    let key = |number| VirtualServerKey::new(vip(number), 80, Protocol::Tcp);
    let destination = |number: u32, which: u32| {
        let address = IpAddr::from((0x0a10_0000 + number * DESTINATIONS + which).to_be_bytes());
        Op::AddDestination(key(number), DestinationKey { address, port: 8080 }, DestinationSpec::masquerading(1))
    };
    let source = RouteSpec { preferred_source: Some(IpAddr::from([127, 0, 0, 1])) };
    let servers = (0..VIRTUAL_SERVERS).map(|number| Op::AddVirtualServer(key(number), spec));
    let destinations =
        (0..VIRTUAL_SERVERS).flat_map(|number| (0..DESTINATIONS).map(move |which| destination(number, which)));
    let routes = (0..VIRTUAL_SERVERS).map(|number| Op::AddRoute(vip(number), source));
    servers.chain(destinations).chain(routes).collect()
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

/// Sends the bytes that `apply` would send, encoded before, and receives each send's one answer.
fn replay(ops: &[Op]) -> (Duration, Counters) {
    let connect = |family| NlSocket::connect(family, None, Groups::empty()).unwrap();
    let (generic, routes) = (connect(NlFamily::Generic), connect(NlFamily::Route));
    let batches = batches(ops);
    let mut counters = Counters::default();
    let mut buffer = vec![0; 65_536];
    let start = Instant::now();
    for (phase, batch) in &batches {
        let socket = if *phase == Phase::Expose { &routes } else { &generic };
        socket.send(batch.bytes(), Msg::empty()).unwrap();
        let (length, _) = socket.recv(&mut buffer, Msg::empty()).unwrap();
        // The acknowledgement echoes the header of the last request.
        assert_eq!((length, buffer.get(16..20)), (36, Some(&[0; 4][..])));
        counters = counters + Counters { sends: 1, receives: 1, messages: batch.len().try_into().unwrap() };
    }
    (start.elapsed(), counters)
}

fn batches(ops: &[Op]) -> Vec<(Phase, Batch)> {
    let mut socket = Socket::open(NlFamily::Generic, RECEIVE_BUFFER).unwrap();
    let encoder = Encoder { family: family::look_up(&mut socket, ipvs::FAMILY_NAME).unwrap() };
    let mut batches: Vec<(Phase, Batch)> = Vec::new();
    for op in ops {
        match batches.last() {
            Some((phase, batch)) if *phase == op.phase() && !batch.is_full() => {}
            _ => batches.push((op.phase(), Batch::new(1))),
        }
        let (_, batch) = batches.last_mut().unwrap();
        encoder.operation(batch, op);
        route::operation(batch, op);
    }
    batches.iter_mut().for_each(|(_, batch)| batch.acknowledge_last());
    batches
}

/// Runs `body` on a thread with a new network namespace, and waits until the namespace is gone.
fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let value = Namespace::new().and_then(|namespace| namespace.run(|| Ok(body()))).unwrap();
    // A worker of the kernel does it, which nothing tells about.
    std::thread::sleep(TEARDOWN);
    value
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
