//! Single changes of endpoints, one after the other, and how long each of them is on its way.

use crate::api::Api;
use crate::ms;
use crate::world::{self, World};
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::{Kernel, Scope};
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

/// How many changes.
const CHANGES: u32 = 200;
/// Between a change's arrival and the next change: all of them together go on for longer than the daemon lets pass
/// between two readings of the whole kernel, so that one of these is in the way of some change, as in a cluster.
const PAUSE: Duration = Duration::from_millis(160);

/// Between two looks at the kernel.
const GLANCE: Duration = Duration::from_micros(100);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Service gets one endpoint more, or loses it again.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    service: u32,
    /// The endpoint's number among those of the Service.
    endpoint: u32,
    is_added: bool,
}

/// How long changes were on their way, from the shortest to the longest.
#[derive(Clone, Debug)]
pub struct Delays(Vec<Duration>);

impl Delays {
    /// Makes the changes, each when the one before has arrived. `arrival` waits for one and returns when it came.
    pub fn measure(world: World, api: &Api, mut arrival: impl FnMut(Change) -> Instant) -> Self {
        let delay = |number| {
            thread::sleep(PAUSE);
            let change = Change::of_number(number, world);
            let endpoints = if change.is_added { world.endpoints + 1 } else { world.endpoints };
            let acknowledged = api.put(world::slice(change.service, endpoints));
            // What is there before we know that it was acknowledged has no delay.
            arrival(change).saturating_duration_since(acknowledged)
        };
        let mut delays: Vec<_> = (0..CHANGES).map(delay).collect();
        delays.sort_unstable();
        Self(delays)
    }

    /// So many of a hundred took no longer.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |percent| ms(self.percentile(percent));
        write!(f, "p50 {}, p90 {}, p99 {}, max {}", of(50), of(90), of(99), of(100))
    }
}

impl Change {
    /// The changes come in pairs, of Services far from each other.
    fn of_number(number: u32, world: World) -> Self {
        let service = (number / 2 * 7919) % world.services;
        Self { service, endpoint: world.endpoints, is_added: number.is_multiple_of(2) }
    }

    /// Looks at the kernel until the change is there; returns when that was. A destination that
    /// leaves is away when it takes no new connections.
    pub fn until_in_kernel(self, kernel: &mut Linux) -> Instant {
        let key = world::virtual_server(self.service);
        let destination = world::destination(self.service, self.endpoint);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let seen = kernel.observe(Scope::VirtualServers(&[key])).unwrap();
            let found = seen.model.virtual_servers[&key].destinations.get(&destination);
            if found.is_some_and(|spec| spec.weight > 0) == self.is_added {
                return Instant::now();
            }
            // The lab has one processor for all of us, which a loop without this would keep for 10 ms.
            thread::sleep(GLANCE);
        }
        panic!("{self:?} does not get into the kernel");
    }
}
