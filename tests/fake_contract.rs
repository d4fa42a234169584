//! Holds the fake kernel to what Linux does: see kernel/contract.rs, which runs on both.

#[path = "kernel/contract.rs"]
mod contract;

use ipvsd::kernel::fake::FakeKernel;

#[test]
fn the_fake_keeps_the_contract() {
    for (name, case) in contract::CASES {
        println!("{name}");
        case(&mut FakeKernel::default());
    }
}
