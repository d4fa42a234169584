//! What the real kube-proxy leaves in both back ends of iptables and in nftables is found and removed, and nothing else; on
//! the kernel that we are on, as the lab's has the older back end alone. Each test has network namespaces of its own.
//!
//! The rules are in `tests/fixtures/kube-proxy`. Traffic through IPVS while they go is for `tests/kernel/migration.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "where these tests run is decided here")]
#[path = "../kernel/lab.rs"]
mod lab;

mod cleanup;
mod rules;
mod table;

use ipvsd::demo::namespace::Namespace;
use libtest_mimic::{Arguments, Failed, Trial};
use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

/// Tells a person why nothing was tested, and what to do.
const UNABLE: &str = "tests of what kube-proxy leaves did not run: they need root, iptables with both back ends, and nft; \
                      run `./dev test`";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = cleanup::trials().into_iter().chain(rules::trials()).chain(table::trials());
    let mut trials: Vec<_> = trials.collect();
    if !arguments.list && !is_able() {
        eprintln!("\n{UNABLE}");
        let required = lab::is_set("IPVSD_REQUIRE_KERNEL");
        let unable = |trial: &Trial| Trial::test(trial.name(), || Err(Failed::from(UNABLE)));
        trials = trials.iter().map(|trial| unable(trial).with_ignored_flag(!required)).collect();
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether namespaces can be made, and all programs work in them.
fn is_able() -> bool {
    let commands = ["iptables-nft -S", "iptables-legacy -S", "ip6tables-legacy -S", "nft list tables", "ipset list"];
    let works = |command: &str| {
        let words: Vec<_> = command.split(' ').collect();
        Command::new(words[0]).args(&words[1..]).output().is_ok_and(|output| output.status.success())
    };
    let all_work = || Ok(commands.into_iter().all(works));
    Namespace::new().is_ok_and(|namespace| namespace.run(all_work).is_ok_and(|all| all))
}

/// Gives a program its input.
fn feed(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
}
