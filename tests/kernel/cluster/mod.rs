//! The whole program in kube-proxy's place: a process that is called `kube-proxy`, follows an API server over HTTPS and
//! programs this kernel. The API server is the small one of `tests/support/kubernetes/api_server`, or the real one where there is
//! one.

mod behaviour;
mod comparison;
mod configuration;
mod faults;
mod health;
mod hidden;
mod latency;
mod node;
mod random;
mod real;
mod rig;
mod table;
mod truth;
mod watcher;

use libtest_mimic::Trial;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    let subjects = [
        behaviour::trials(),
        comparison::trials(),
        configuration::trials(),
        faults::trials(),
        health::trials(),
        hidden::trials(),
        latency::trials(),
        node::trials(),
        real::trials(),
    ];
    subjects.into_iter().flatten().collect()
}
