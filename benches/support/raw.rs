//! The least that programming a cold start can cost: the bytes of all its operations, encoded before, one send and one
//! answer for every batch.

use ipvsd::demo::namespace::Namespace;
use ipvsd::kernel::ipvs::encode::Encoder;
use ipvsd::kernel::netlink::socket::RECEIVE_BUFFER;
use ipvsd::kernel::netlink::{Batch, Counters, Socket, family};
use ipvsd::kernel::{ipvs, route};
use ipvsd::model::{
    DestinationKey, DestinationSpec, Op, Phase, Protocol, RouteSpec, SchedulerFlags, VirtualServerKey,
    VirtualServerSpec,
};
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// More than enough to take 30,000 objects down.
const TEARDOWN: Duration = Duration::from_secs(2);

/// A cold start: everything is new, and each virtual server has a route.
pub fn operations(virtual_servers: u32, destinations: u32) -> Vec<Op> {
    let spec =
        VirtualServerSpec { scheduler: "rr".parse().unwrap(), flags: SchedulerFlags::default(), persistence: None };
    let vip = |number: u32| IpAddr::from((0x0a60_0000 + number).to_be_bytes());
    let key = |number| VirtualServerKey::new(vip(number), 80, Protocol::Tcp);
    let destination = |number: u32, which: u32| {
        let address = IpAddr::from((0x0a10_0000 + number * destinations + which).to_be_bytes());
        Op::AddDestination(key(number), DestinationKey { address, port: 8080 }, DestinationSpec::masquerading(1))
    };
    let source = RouteSpec { preferred_source: Some(IpAddr::from([127, 0, 0, 1])) };
    let servers = (0..virtual_servers).map(|number| Op::AddVirtualServer(key(number), spec));
    let destinations =
        (0..virtual_servers).flat_map(|number| (0..destinations).map(move |which| destination(number, which)));
    let routes = (0..virtual_servers).map(|number| Op::AddRoute(vip(number), source));
    servers.chain(destinations).chain(routes).collect()
}

/// Sends the bytes that `Linux::apply` would send, encoded before, and receives each send's one answer.
pub fn replay(ops: &[Op]) -> (Duration, Counters) {
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
pub fn in_namespace<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let value = Namespace::new().and_then(|namespace| namespace.run(|| Ok(body()))).unwrap();
    // A worker of the kernel does it, which nothing tells about.
    std::thread::sleep(TEARDOWN);
    value
}
