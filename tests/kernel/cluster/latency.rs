//! How soon a new endpoint is in the kernel, printed: among 10,000 Services, from when the API server has acknowledged
//! it. The lab has one processor for the server, the daemon and this test.

use super::rig::{IPVS, Rig};
use crate::lab::trial;
use crate::objects::{service, slice, with};
use crate::program::eventually;
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::{Kernel, Scope};
use ipvsd::model::{Protocol, VirtualServerKey};
use libtest_mimic::Trial;
use serde_json::json;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![trial("cluster::every_new_endpoint_among_ten_thousand_services_arrives", latency)]
}

const SERVICES: u16 = 10_000;
const CHANGES: u16 = 100;

fn latency() {
    let mut rig = Rig::new(&[IPVS]);
    for number in 0..SERVICES {
        let [high, low] = number.to_be_bytes();
        let address = json!(format!("10.64.{high}.{low}"));
        let service = with(service(&format!("s{number}"), 1), "/spec/clusterIP", address.clone());
        rig.server.put(with(service, "/spec/clusterIPs", json!([address])));
        rig.server.put(slice(&format!("s{number}"), &[1, 2]));
    }
    rig.start();
    rig.until_said(&["programmed: add destination: 20000"]);
    let mut kernel = Linux::open().unwrap();
    let mut times: Vec<Duration> = (0..CHANGES).map(|number| arrival(&rig, &mut kernel, number)).collect();
    times.sort_unstable();
    let [half, most] = [50, 99].map(|percent| times[times.len() * percent / 100]);
    println!(
        "    from the acknowledgement to the kernel: p50 {half:?}, p99 {most:?}, max {:?}",
        times[times.len() - 1]
    );
}

/// Adds an endpoint to a Service, and waits until the kernel has it.
fn arrival(rig: &Rig, kernel: &mut Linux, number: u16) -> Duration {
    let [high, low] = number.to_be_bytes();
    let key = VirtualServerKey::new(IpAddr::from([10, 64, high, low]), 80, Protocol::Tcp);
    rig.server.put(slice(&format!("s{number}"), &[1, 2, 3]));
    let acknowledged = Instant::now();
    let mut arrived = None;
    eventually("the endpoint is in the kernel", || {
        while arrived.is_none() && acknowledged.elapsed() < Duration::from_secs(5) {
            let seen = kernel.observe(Scope::VirtualServers(&[key])).unwrap();
            let found = seen.model.virtual_servers.get(&key).map_or(0, |server| server.destinations.len());
            arrived = (found == 3).then(|| acknowledged.elapsed());
        }
        arrived.is_some()
    });
    arrived.unwrap()
}
