//! Whether the kernel can balance at all: makes a virtual server and removes it.

use crate::kernel::{Cause, Kernel};
use crate::model::{
    DestinationKey, DestinationSpec, Op, Persistence, Protocol, SchedulerFlags, SchedulerName, VirtualServerKey,
    VirtualServerSpec,
};
use std::net::IpAddr;

/// An address for documentation (RFC 5737), which no node has and kube-proxy's own probe uses.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 0));
const PORT: u16 = 20_000;

/// Tries IPVS with `scheduler`.
///
/// # Errors
/// Why the kernel did not take the virtual server.
pub fn ipvs(kernel: &mut impl Kernel, scheduler: SchedulerName) -> Result<(), Cause> {
    try_with(kernel, VirtualServerSpec { scheduler, flags: SchedulerFlags::default(), persistence: None }, &[])
}

/// Tries netfilter's rules with all that a virtual server can ask of them, in a chain that no packet gets to.
///
/// # Errors
/// Why the kernel did not take the rules.
pub fn nat(kernel: &mut impl Kernel) -> Result<(), Cause> {
    let persistence = Some(Persistence { timeout: 1, prefix: 32 });
    let spec = VirtualServerSpec { scheduler: SchedulerName::RANDOM, flags: SchedulerFlags::default(), persistence };
    let destination =
        |port| Op::AddDestination(key(), DestinationKey { address: ADDRESS, port }, DestinationSpec::masquerading(1));
    try_with(kernel, spec, &[destination(1), destination(2)])
}

fn try_with(kernel: &mut impl Kernel, spec: VirtualServerSpec, destinations: &[Op]) -> Result<(), Cause> {
    let ops = [&[Op::AddVirtualServer(key(), spec)], destinations].concat();
    match kernel.apply(&ops).first().map(|failure| failure.cause.clone()) {
        None => {
            // Should it stay, the next reading finds it to be ours and unwanted.
            kernel.apply(&[Op::RemoveVirtualServer(key())]);
            Ok(())
        }
        // Somebody's virtual server is there: balancing works, and it is not ours to remove.
        Some(Cause::OutOfDate(_)) => Ok(()),
        Some(cause) => Err(cause),
    }
}

fn key() -> VirtualServerKey {
    VirtualServerKey::new(ADDRESS, PORT, Protocol::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake::FakeKernel;
    use crate::model::Model;

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let mut kernel = FakeKernel::default();
        assert_eq!(ipvs(&mut kernel, SchedulerName::RR), Ok(()));
        assert_eq!(kernel.model, Model::default());
        assert_eq!(kernel.cost.operations, 2);
    }

    #[test]
    fn a_probe_tells_of_a_missing_scheduler_and_leaves_foreign_virtual_servers_alone() {
        let mut kernel = FakeKernel::default();
        assert_eq!(ipvs(&mut kernel, "none".parse().unwrap()), Err(Cause::SchedulerMissing));
        kernel.foreign.insert(VirtualServerKey::new(ADDRESS, PORT, Protocol::Tcp));
        assert_eq!(ipvs(&mut kernel, SchedulerName::RR), Ok(()));
        assert_eq!(kernel.cost.operations, 2, "nothing was removed");
    }
}
