//! Which settings a node should have: what balancing needs on its kernel, and what the operator asks for.

use super::{Conntrack, NodeSetup};
use crate::kernel::sysctl::{KernelVersion, Setting};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// A setting and how it is to be compared.
pub(super) struct Wanted {
    pub(super) setting: Setting,
    /// Whether the node cannot balance without it.
    pub(super) is_required: bool,
    /// Whether a larger number is as good.
    pub(super) is_minimum: bool,
}

/// All settings that a node should have whose settings are below `root`.
pub(super) fn settings(setup: &NodeSetup, kernel: KernelVersion, root: &Path) -> Vec<Wanted> {
    let required = |(path, value): (_, &str)| exactly(path, value, true);
    let tuning = |(path, value): (_, String)| exactly(path, value, false);
    let mut all: Vec<_> = balancing(kernel).into_iter().map(required).collect();
    if setup.strict_arp {
        all.extend(
            [("/proc/sys/net/ipv4/conf/all/arp_ignore", "1"), ("/proc/sys/net/ipv4/conf/all/arp_announce", "2")]
                .map(required),
        );
    }
    if let Some(maximum) = maximum(&setup.conntrack, || processors(root)) {
        all.push(tuning(("/proc/sys/net/netfilter/nf_conntrack_max", maximum.to_string())));
        // Also the module's parameter `hashsize`, which only root can read; Linux before 4.9 has this one to read alone.
        let buckets = tuning(("/proc/sys/net/netfilter/nf_conntrack_buckets", (maximum / 4).to_string()));
        all.push(Wanted { is_minimum: true, ..buckets });
    }
    all.extend(conntrack_timeouts(&setup.conntrack).map(tuning));
    if setup.conntrack.tcp_be_liberal {
        all.push(tuning(("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1".into())));
    }
    all.extend(setup.oom_score_adj.map(|score| tuning(("/proc/self/oom_score_adj", score.to_string()))));
    all
}

fn exactly(path: &'static str, value: impl Into<String>, is_required: bool) -> Wanted {
    Wanted { setting: Setting { path, value: value.into() }, is_required, is_minimum: false }
}

/// What balancing needs on a kernel of this version.
pub(super) fn balancing(kernel: KernelVersion) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // Netfilter sees connections through IPVS, so that they can be masqueraded and filtered by state.
        ("/proc/sys/net/ipv4/vs/conntrack", "1"),
        // A packet of a connection whose destination is gone ends the connection, rather than being lost silently.
        ("/proc/sys/net/ipv4/vs/expire_nodest_conn", "1"),
        // Persistence does not send new connections to a destination that is draining.
        ("/proc/sys/net/ipv4/vs/expire_quiescent_template", "1"),
        ("/proc/sys/net/ipv4/ip_forward", "1"),
    ];
    // A client's port that is used again meets the old connection's entry. Before Linux 5.9 the default (1) delays
    // such a connection by a second; since then it does not. Before 4.1 there is no such setting.
    if (KernelVersion { major: 4, minor: 1 }..KernelVersion { major: 5, minor: 9 }).contains(&kernel) {
        settings.push(("/proc/sys/net/ipv4/vs/conn_reuse_mode", "0"));
    }
    settings
}

/// Entries of the table of connections, or none to leave it. kube-proxy's own limit is 2^20; a larger minimum counts
/// only below it.
fn maximum(conntrack: &Conntrack, processors: impl FnOnce() -> u64) -> Option<u64> {
    const LIMIT: u64 = 1 << 20;
    let per_core = conntrack.max_per_core.filter(|per_core| *per_core > 0)?;
    let scaled = u64::from(per_core).saturating_mul(processors());
    Some(if scaled > LIMIT { LIMIT } else { scaled.max(conntrack.min.into()) })
}

fn conntrack_timeouts(conntrack: &Conntrack) -> impl Iterator<Item = (&'static str, String)> {
    let all = [
        ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", conntrack.tcp_established),
        ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", conntrack.tcp_close_wait),
        ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", conntrack.udp),
        ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream", conntrack.udp_stream),
    ];
    all.into_iter().filter_map(|(path, timeout)| Some((path, seconds(timeout)?.to_string())))
}

/// Whole seconds, at least one: zero would mean something else to the kernel. None for what is to be left.
pub(super) fn seconds(timeout: Option<Duration>) -> Option<u32> {
    let timeout = timeout.filter(|timeout| !timeout.is_zero())?;
    Some(u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1))
}

/// The processors that are switched on, whatever share of them this process may use.
fn processors(root: &Path) -> u64 {
    let online = fs::read_to_string(root.join("sys/devices/system/cpu/online")).ok();
    let usable = || thread::available_parallelism().map_or(1, |count| u64::try_from(count.get()).unwrap_or(1));
    online.and_then(|list| count(&list)).unwrap_or_else(usable)
}

/// How many numbers are in a list as the kernel prints it: `0-3,8`.
fn count(list: &str) -> Option<u64> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.trim().split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reuse_of_ports_is_set_only_where_its_default_hurts() {
        let sets = |release: &str| {
            balancing(release.parse().unwrap()).contains(&("/proc/sys/net/ipv4/vs/conn_reuse_mode", "0"))
        };
        assert!(!sets("3.19.8") && !sets("4.0") && !sets("5.9.0-rc1") && !sets("6.1.176"));
        assert!(sets("4.1.0") && sets("4.19.0-26-amd64") && sets("5.8.18"));
    }

    #[test]
    fn the_table_of_connections_grows_with_the_processors_up_to_a_limit() {
        let maximum = |max_per_core, min, processors| {
            maximum(&Conntrack { max_per_core, min, ..Conntrack::default() }, || processors)
        };
        assert_eq!([maximum(None, 5, 4), maximum(Some(0), 5, 4)], [None, None]);
        assert_eq!(maximum(Some(32_768), 131_072, 8), Some(262_144));
        assert_eq!(maximum(Some(32_768), 131_072, 2), Some(131_072));
        assert_eq!(maximum(Some(32_768), 131_072, 64), Some(1_048_576));
        assert_eq!(maximum(Some(32_768), 2_000_000, 64), Some(1_048_576), "the limit counts before the minimum");
        assert_eq!(maximum(Some(32_768), 2_000_000, 2), Some(2_000_000), "the minimum has no limit");
    }

    #[test]
    fn processors_are_counted_as_the_kernel_lists_them() {
        assert_eq!([count("0-2,7\n"), count("0"), count("0-63")], [Some(4), Some(1), Some(64)]);
        assert_eq!([count(""), count("a-b"), count("3-1"), count("0-18446744073709551615")], [None; 4]);
        let root = tempfile::tempdir().unwrap();
        assert!(processors(root.path()) >= 1);
        let cpus = root.path().join("sys/devices/system/cpu");
        fs::create_dir_all(&cpus).unwrap();
        fs::write(cpus.join("online"), "0-2,7\n").unwrap();
        assert_eq!(processors(root.path()), 4);
    }
}
