//! Runs the tests of the mode iptables on the machine's own kernel, in network namespaces, with both kinds of iptables:
//! the lab's kernel has one. The tests are those of `tests/kernel`, and some that need nf_tables.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod circumstances;
#[allow(dead_code, reason = "here are not all who need it")]
#[path = "../kernel/contract.rs"]
mod contract;
mod fallback;
#[path = "../kernel/golden.rs"]
mod golden;
#[path = "../kernel/golden_explained.rs"]
mod golden_explained;
#[allow(dead_code, reason = "here are not all who need it")]
#[path = "../kernel/golden_rig.rs"]
mod golden_rig;
#[path = "../support/kubernetes/mod.rs"]
mod kubernetes;
#[allow(dead_code, reason = "here are not all who need it")]
#[path = "../kernel/lab.rs"]
mod lab;
#[path = "../kernel/meanwhile.rs"]
mod meanwhile;
#[path = "../kernel/migration.rs"]
mod migration;
#[path = "../kernel/mode.rs"]
mod mode;
#[path = "../kernel/nat.rs"]
mod nat;
#[path = "../kernel/nat_metrics.rs"]
mod nat_metrics;
#[path = "../kernel/nat_others.rs"]
mod nat_others;
#[allow(dead_code, reason = "here are not all who need it")]
#[path = "../kernel/program.rs"]
mod program;
#[allow(dead_code, reason = "here are not all who need it")]
#[path = "../kernel/traffic_rig.rs"]
mod traffic_rig;
mod two_daemons;
#[allow(dead_code, reason = "here are not all who need it")]
#[path = "../kernel/vips.rs"]
mod vips;

use kubernetes::{api_server, objects};
use libtest_mimic::{Arguments, Trial};
use mode::Mode;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let trials = if arguments.list || lab::can_run_here() { trials() } else { lab::unable_to_run(trials()) };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials() -> Vec<Trial> {
    let of_mode = |mode| {
        let of_rules =
            [nat::trials(mode), nat_metrics::trials(mode), nat_others::trials(mode), migration::trials(mode)];
        [golden::trials(mode), vips::trials(mode)].into_iter().chain(of_rules).flatten()
    };
    let once = [circumstances::trials(), fallback::trials(), two_daemons::trials()].into_iter().flatten();
    once.chain([Mode::Nft, Mode::Legacy].into_iter().flat_map(of_mode)).collect()
}
