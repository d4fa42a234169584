//! Runs the tests that need a kernel with IPVS: collects them from the modules beside this file, one per subject.
//! Where they can run is decided in `lab.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

#[path = "../support/kubernetes/mod.rs"]
mod kubernetes;

mod affinity;
mod check;
mod cluster;
mod commands;
mod contract;
mod contract_linux;
mod contract_netfilter;
mod cost;
mod demo;
mod drains;
mod explain;
mod features;
mod flow_table;
mod flows;
mod golden;
mod golden_explained;
mod golden_rig;
mod lab;
mod list;
mod list_document;
mod listing;
mod localhost;
mod meanwhile;
mod migration;
mod mode;
mod mode_changes;
mod nat;
mod nat_metrics;
mod nat_others;
mod netfilter;
mod network;
mod node;
mod program;
mod record;
mod record_top;
mod servers;
mod service;
mod service_metrics;
mod service_systemd;
mod setup;
mod smoke;
mod systemd;
mod takeover;
mod top;
mod traffic;
mod traffic_changes;
mod traffic_rig;
mod vips;

use kubernetes::{api_server, control_plane, follower, objects, relay};
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The lab has one processor, and traffic tests measure.
    arguments.test_threads.get_or_insert(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials()).exit_code();
    }
    match lab::Place::find() {
        lab::Place::Here => libtest_mimic::run(&arguments, lab::part_of(trials())).exit_code(),
        lab::Place::Lab => lab::run_this_program_there(arguments.filter.is_none()),
        lab::Place::Nowhere => libtest_mimic::run(&arguments, lab::unable_to_run(trials())).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    let subjects = [
        mode_changes::first_trials(),
        affinity::trials(),
        check::trials(),
        cluster::trials(),
        commands::trials(),
        contract_linux::trials(),
        cost::trials(),
        demo::trials(),
        drains::trials(),
        features::trials(),
        flow_table::trials(),
        flows::trials(),
        explain::trials(),
        golden::trials(mode::Mode::Ipvs),
        golden::trials(mode::Mode::Legacy),
        list::trials(),
        list_document::trials(),
        localhost::trials(),
        migration::trials(mode::Mode::Ipvs),
        migration::trials(mode::Mode::Legacy),
        mode_changes::trials(),
        nat::trials(mode::Mode::Legacy),
        nat_metrics::trials(mode::Mode::Legacy),
        nat_metrics::trials_with_ipvs(),
        nat_others::trials(mode::Mode::Legacy),
        netfilter::trials(),
        network::trials(),
        node::trials(),
        record::trials(),
        record_top::trials(),
        servers::trials(),
        service::trials(),
        service_metrics::trials(),
        service_systemd::trials(),
        setup::trials(),
        smoke::trials(),
        takeover::trials(),
        top::trials(),
        traffic::trials(),
        traffic_changes::trials(),
        vips::trials(mode::Mode::Ipvs),
        vips::trials(mode::Mode::Legacy),
        vips::trials_with_ipvs(),
    ];
    subjects.into_iter().flatten().collect()
}
