//! What a Service promises, feature by feature, as real packets: the tests that `docs/features.md` names and that are not
//! about another subject of this program.

mod affinity;
mod endpoints;
mod firewall;
mod frontends;
mod ingress;
mod lan;
mod masquerading;
mod objects;
mod process;
mod scale;
mod two_nodes;
mod window;

use libtest_mimic::Trial;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    let subjects = [
        affinity::trials(),
        endpoints::trials(),
        firewall::trials(),
        frontends::trials(),
        ingress::trials(),
        masquerading::trials(),
        process::trials(),
        scale::trials(),
        two_nodes::trials(),
        window::trials(),
    ];
    subjects.into_iter().flatten().collect()
}
