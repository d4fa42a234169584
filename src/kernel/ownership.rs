//! How a virtual server or a route in the kernel is known to be ours, after a restart and after a crash too.
//!
//! The tag is in the object itself, not in a file: what was made a moment before a crash carries it, and what
//! somebody else made never does. Pure; `ipvs` and `route` write and read the tag.
//!
//! A person who edits one of our virtual servers by hand (`ipvsadm -E`) takes the tag off it. A running daemon, which
//! knows it to be its own, puts it right; a daemon that starts then finds it to be foreign.

/// What our virtual servers have in the high half of their flags (`IP_VS_SVC_F_*`, linux/ip_vs.h). The kernel uses the
/// lowest five bits, keeps and tells all 32 (`ip_vs_add_service`, `ip_vs_edit_service`), and ipvsadm shows only those it knows.
const TAG: u32 = 0x4950_0000;

/// The half of the flags that the tag fills.
const TAG_MASK: u32 = 0xffff_0000;

/// `rtm_protocol` of our routes: who made a route (linux/rtnetlink.h: above 4 it is for user space to agree on).
/// Neither the kernel's list nor iproute2's rt_protos has 118.
pub const ROUTE_PROTOCOL: u8 = 118;

/// `RTA_PRIORITY` (metric) of our routes. The kernel's own local routes have 0, so that adding, replacing and deleting
/// ours cannot meet them; an address on a device beside our route stays the one that counts.
pub const ROUTE_METRIC: u32 = 0x4950;

/// Flags with the tag.
pub fn tagged(flags: u32) -> u32 {
    flags & !TAG_MASK | TAG
}

/// Flags whose high half says how they differ from the tag: 0 for ours, so that a virtual server that lost its tag
/// differs from every one that is wanted.
pub fn compared_with_tag(flags: u32) -> u32 {
    flags ^ TAG
}

/// Whether a virtual server with these flags is ours.
pub fn virtual_server_is_ours(flags: u32) -> bool {
    flags & TAG_MASK == TAG
}

/// Whether a local route of this protocol and metric is ours.
pub fn route_is_ours(protocol: u8, metric: u32) -> bool {
    (protocol, metric) == (ROUTE_PROTOCOL, ROUTE_METRIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_tag_makes_a_virtual_server_ours() {
        assert!(virtual_server_is_ours(tagged(0x1f)));
        assert!(virtual_server_is_ours(tagged(u32::MAX)));
        for foreign in [0, 0x3, 0x4950, 0x4950_0000 | 0x1_0000, 0x4150_0000, u32::MAX] {
            assert!(!virtual_server_is_ours(foreign), "{foreign:#x}");
        }
    }

    #[test]
    fn the_tag_leaves_the_settings_alone() {
        assert_eq!(tagged(0x801f) & !TAG_MASK, 0x801f);
        assert_eq!(compared_with_tag(tagged(0x801f)), 0x801f);
        assert_ne!(compared_with_tag(0x801f), 0x801f);
    }

    #[test]
    fn the_kernels_own_local_routes_are_not_ours() {
        assert!(route_is_ours(ROUTE_PROTOCOL, ROUTE_METRIC));
        assert!(!route_is_ours(2, 0) && !route_is_ours(ROUTE_PROTOCOL, 0) && !route_is_ours(2, ROUTE_METRIC));
    }
}
