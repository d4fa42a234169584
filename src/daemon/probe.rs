//! Whether the kernel can balance at all: makes a virtual server with the default scheduler and removes it.

use crate::kernel::{Cause, Kernel};
use crate::model::{Op, Protocol, SchedulerFlags, SchedulerName, VirtualServerKey, VirtualServerSpec};
use std::net::IpAddr;

/// An address for documentation (RFC 5737), which no node has and kube-proxy's own probe uses.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 0));
const PORT: u16 = 20_000;

/// Tries `scheduler`.
///
/// # Errors
/// Why the kernel did not take the virtual server.
pub fn probe(kernel: &mut impl Kernel, scheduler: SchedulerName) -> Result<(), Cause> {
    let key = VirtualServerKey::new(ADDRESS, PORT, Protocol::Tcp);
    let spec = VirtualServerSpec { scheduler, flags: SchedulerFlags::default(), persistence: None };
    match kernel.apply(&[Op::AddVirtualServer(key, spec)]).first().map(|failure| failure.cause.clone()) {
        None => {
            // Should it stay, the next reading finds it to be ours and unwanted.
            kernel.apply(&[Op::RemoveVirtualServer(key)]);
            Ok(())
        }
        // Somebody's virtual server is there: IPVS works, and it is not ours to remove.
        Some(Cause::OutOfDate(_)) => Ok(()),
        Some(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake::FakeKernel;
    use crate::model::Model;

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let mut kernel = FakeKernel::default();
        assert_eq!(probe(&mut kernel, SchedulerName::RR), Ok(()));
        assert_eq!(kernel.model, Model::default());
        assert_eq!(kernel.cost.operations, 2);
    }

    #[test]
    fn a_probe_tells_of_a_missing_scheduler_and_leaves_foreign_virtual_servers_alone() {
        let mut kernel = FakeKernel::default();
        assert_eq!(probe(&mut kernel, "none".parse().unwrap()), Err(Cause::SchedulerMissing));
        kernel.foreign.insert(VirtualServerKey::new(ADDRESS, PORT, Protocol::Tcp));
        assert_eq!(probe(&mut kernel, SchedulerName::RR), Ok(()));
        assert_eq!(kernel.cost.operations, 2, "nothing was removed");
    }
}
