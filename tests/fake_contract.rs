//! Holds the fake kernel to what Linux does: see kernel/contract.rs, which runs on both.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "kernel/contract.rs"]
mod contract;
#[path = "kernel/contract_netfilter.rs"]
mod contract_netfilter;

use ipvsd::kernel::fake::FakeKernel;

#[test]
fn the_fake_keeps_the_contract() {
    for (name, case) in contract::CASES.iter().chain(contract_netfilter::CASES) {
        println!("{name}");
        case(&mut FakeKernel::default());
    }
}
