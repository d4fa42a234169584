//! The whole program in kube-proxy's place: a process that is called `kube-proxy`, follows an API server over HTTPS and
//! programs this kernel. The API server is the small one of `tests/support/api_server`, or the real one where there is
//! one.

mod behaviour;
mod configuration;
mod faults;
mod health;
mod latency;
mod node;
mod rig;
mod table;
mod truth;
mod watcher;

use libtest_mimic::Trial;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    let subjects = [
        behaviour::trials(),
        configuration::trials(),
        faults::trials(),
        health::trials(),
        latency::trials(),
        node::trials(),
    ];
    subjects.into_iter().flatten().collect()
}
