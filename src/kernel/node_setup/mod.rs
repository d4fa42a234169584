//! What is set once on the node before it balances: settings of the kernel, IPVS's timeouts, this process's OOM score.
//!
//! Each is written only where it differs. What balancing needs, and what keeps the node from answering for others'
//! addresses, must be had; what only tunes is told of where it cannot be. [`survey`] says the same and writes nothing.

mod wanted;

use super::ipvs::Timeouts;
use super::linux::Linux;
use super::sysctl::{self, Setting, SysctlError};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;
use wanted::{Wanted, seconds};

/// What the operator wants of the node, as kube-proxy's configuration has it. The default asks for nothing but what
/// balancing needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSetup {
    /// Answer ARP only for addresses of the device that was asked (`ipvs.strictARP`), and so not for VIPs.
    pub strict_arp: bool,
    /// When IPVS forgets a connection that is idle.
    pub ipvs_timeouts: IpvsTimeouts,
    /// The table of netfilter's connection tracking.
    pub conntrack: Conntrack,
    /// `/proc/self/oom_score_adj`, from -1000 to 1000; none leaves it.
    pub oom_score_adj: Option<i32>,
}

/// `ipvs.tcpTimeout` and so on; none or zero leaves the kernel's. Less than a second counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpvsTimeouts {
    /// Of an established TCP connection.
    pub tcp: Option<Duration>,
    /// Of a TCP connection that one side has closed.
    pub tcp_fin: Option<Duration>,
    /// Of a flow of UDP packets.
    pub udp: Option<Duration>,
}

/// `conntrack.*`; none or zero leaves what the kernel has. Less than a second counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// Entries for each processor.
    pub max_per_core: Option<u32>,
    /// Entries at least, if `max_per_core` is given.
    pub min: u32,
    /// Of an established TCP connection.
    pub tcp_established: Option<Duration>,
    /// Of a TCP connection that the other side has closed.
    pub tcp_close_wait: Option<Duration>,
    /// Of a UDP packet that got no answer.
    pub udp: Option<Duration>,
    /// Of a flow of UDP packets in both directions.
    pub udp_stream: Option<Duration>,
    /// Let TCP packets outside of the window pass; false leaves what the kernel has.
    pub tcp_be_liberal: bool,
}

/// Where IPVS has its settings, if it is there.
const IPVS_SETTINGS: &str = "/proc/sys/net/ipv4/vs/";

/// What came of preparing the node.
#[derive(Debug, Default)]
pub struct Prepared {
    /// What was not so before.
    pub set: Vec<Setting>,
    /// What should be so and could not be set; the node balances without it.
    pub unset: Vec<Unset>,
}

/// A setting that is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What is wanted.
    pub setting: Setting,
    /// What it holds; none if it cannot be read.
    pub found: Option<String>,
    /// Whether the node cannot balance without it.
    pub is_required: bool,
}

/// A setting that could not be brought to what is wanted.
#[derive(Debug, thiserror::Error)]
#[error("{difference}, and cannot be set")]
pub struct Unset {
    /// Which, and how it is.
    pub difference: Difference,
    /// Why.
    pub source: io::Error,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting: Setting { path, value }, found, .. } = self;
        write!(f, "{path} is {}, not {value}", found.as_deref().unwrap_or("unknown"))
    }
}

/// Sets what `setup` asks for and what balancing needs.
///
/// # Errors
/// The first setting that the node cannot balance without and that can be neither found right nor set.
pub fn prepare(setup: &NodeSetup, kernel: &mut Linux) -> Result<Prepared, SysctlError> {
    let root = Path::new(sysctl::ROOT);
    let mut prepared = establish(root, differences(root, setup, kernel.has_ipvs())?)?;
    match timeouts_difference(setup, kernel) {
        Ok(None) => {}
        Ok(Some((timeouts, difference))) => match kernel.set_timeouts(timeouts) {
            Ok(()) => prepared.set.push(difference.setting),
            Err(errno) => prepared.unset.push(Unset { difference, source: errno.into() }),
        },
        Err(unset) => prepared.unset.push(unset),
    }
    Ok(prepared)
}

/// What [`prepare`] would set. Writes nothing.
///
/// # Errors
/// As [`prepare`], as far as reading shows.
pub fn survey(setup: &NodeSetup, kernel: &mut Linux) -> Result<Vec<Difference>, SysctlError> {
    let mut differences = differences(Path::new(sysctl::ROOT), setup, kernel.has_ipvs())?;
    match timeouts_difference(setup, kernel) {
        Ok(found) => differences.extend(found.map(|(_, difference)| difference)),
        Err(unset) => differences.push(unset.difference),
    }
    Ok(differences)
}

fn differences(root: &Path, setup: &NodeSetup, has_ipvs: bool) -> Result<Vec<Difference>, SysctlError> {
    let all = wanted::settings(setup, sysctl::running_kernel(root)?, root);
    let all = all.into_iter().filter(|wanted| has_ipvs || !wanted.setting.path.starts_with(IPVS_SETTINGS));
    let compared = all.map(|wanted| compare(root, wanted));
    compared.filter_map(Result::transpose).collect()
}

/// Writes those differences below `root`.
fn establish(root: &Path, differences: Vec<Difference>) -> Result<Prepared, SysctlError> {
    let mut prepared = Prepared::default();
    for difference in differences {
        match difference.setting.write(root) {
            Ok(()) => prepared.set.push(difference.setting),
            Err(source) if difference.is_required => {
                let Difference { setting: Setting { path, value }, found, .. } = difference;
                return Err(SysctlError::Write { path, value, found: found.unwrap_or_default(), source });
            }
            Err(source) => prepared.unset.push(Unset { difference, source }),
        }
    }
    Ok(prepared)
}

fn compare(root: &Path, wanted: Wanted) -> Result<Option<Difference>, SysctlError> {
    let Wanted { setting, is_required, is_minimum } = wanted;
    let found = match setting.read(root) {
        Ok(found) => Some(found),
        Err(source) if is_required => return Err(SysctlError::Read { path: setting.path, source }),
        Err(_) => None,
    };
    let is_met = found.as_ref().is_some_and(|found| match (found.parse::<u64>(), setting.value.parse()) {
        (Ok(found), Ok(value)) if is_minimum => found >= value,
        _ => *found == setting.value,
    });
    Ok((!is_met).then_some(Difference { setting, found, is_required }))
}

/// The timeouts to send to IPVS, and what that changes.
fn timeouts_difference(setup: &NodeSetup, kernel: &mut Linux) -> Result<Option<(Timeouts, Difference)>, Unset> {
    let IpvsTimeouts { tcp, tcp_fin, udp } = setup.ipvs_timeouts;
    let [tcp, tcp_fin, udp] = [tcp, tcp_fin, udp].map(seconds);
    if [tcp, tcp_fin, udp] == [None; 3] || !kernel.has_ipvs() {
        return Ok(None);
    }
    let difference = |wanted: Timeouts, found: Option<Timeouts>| Difference {
        setting: Setting { path: "ipvsadm --set", value: wanted.to_string() },
        found: found.map(|found| found.to_string()),
        is_required: false,
    };
    let only = Timeouts { tcp: tcp.unwrap_or(0), tcp_fin: tcp_fin.unwrap_or(0), udp: udp.unwrap_or(0) };
    let found = kernel
        .timeouts()
        .map_err(|error| Unset { difference: difference(only, None), source: io::Error::other(error) })?;
    let wanted = Timeouts {
        tcp: tcp.unwrap_or(found.tcp),
        tcp_fin: tcp_fin.unwrap_or(found.tcp_fin),
        udp: udp.unwrap_or(found.udp),
    };
    Ok((wanted != found).then(|| (wanted, difference(wanted, Some(found)))))
}

#[cfg(test)]
mod tests {
    use super::wanted::balancing;
    use super::*;
    use crate::kernel::sysctl::KernelVersion;
    use std::fs;

    const MODERN: KernelVersion = KernelVersion { major: 6, minor: 1 };

    /// A machine of four processors whose settings are these, by the ends of their paths; the required ones are right.
    fn machine(others: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        balancing(MODERN).into_iter().for_each(|(path, value)| put(path, value));
        put("proc/sys/kernel/osrelease", "6.1.176");
        put("sys/devices/system/cpu/online", "0-2,7");
        others.iter().for_each(|(path, text)| put(path, text));
        root
    }

    fn found(root: &tempfile::TempDir, path: &str) -> String {
        fs::read_to_string(root.path().join(path.trim_start_matches('/'))).unwrap()
    }

    /// What differs on the machine, as `path: found -> wanted` with the last part of the path.
    fn differing(root: &tempfile::TempDir, setup: &NodeSetup) -> Vec<String> {
        let line = |Difference { setting, found, .. }: Difference| {
            let name = setting.path.rsplit('/').next().unwrap();
            format!("{name}: {} -> {}", found.as_deref().unwrap_or("?"), setting.value)
        };
        differences(root.path(), setup, true).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn by_default_only_what_balancing_needs_is_wanted() {
        let root = machine(&[("/proc/sys/net/ipv4/ip_forward", "0")]);
        assert_eq!(differing(&root, &NodeSetup::default()), ["ip_forward: 0 -> 1"]);
        let prepared = establish(root.path(), differences(root.path(), &NodeSetup::default(), true).unwrap()).unwrap();
        assert_eq!(prepared.set, [Setting { path: "/proc/sys/net/ipv4/ip_forward", value: "1".into() }]);
        assert_eq!(found(&root, "/proc/sys/net/ipv4/ip_forward"), "1");
        assert_eq!(differing(&root, &NodeSetup::default()), [""; 0]);
        assert_eq!(found(&root, "/proc/sys/net/ipv4/vs/conntrack"), "1\n", "what is right is not written");
    }

    #[test]
    fn everything_that_can_be_asked_for_is_compared() {
        let second = Some(Duration::from_secs(1));
        let root = machine(&[
            ("/proc/sys/net/netfilter/nf_conntrack_max", "65536"),
            ("/proc/sys/net/netfilter/nf_conntrack_buckets", "16384"),
            ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "432000"),
            ("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "30"),
            ("/proc/self/oom_score_adj", "0"),
        ]);
        let setup = NodeSetup {
            strict_arp: false,
            ipvs_timeouts: IpvsTimeouts::default(),
            conntrack: Conntrack {
                max_per_core: Some(32_768),
                min: 131_072,
                tcp_established: Some(Duration::from_secs(86_400)),
                tcp_close_wait: Some(Duration::from_secs(3600)),
                udp: Some(Duration::from_secs(30)),
                udp_stream: second.map(|second| second / 2),
                tcp_be_liberal: true,
            },
            oom_score_adj: Some(-999),
        };
        assert_eq!(
            differing(&root, &setup),
            [
                "nf_conntrack_max: 65536 -> 131072",
                "nf_conntrack_buckets: 16384 -> 32768",
                "nf_conntrack_tcp_timeout_established: 432000 -> 86400",
                "nf_conntrack_tcp_timeout_close_wait: ? -> 3600",
                "nf_conntrack_udp_timeout_stream: ? -> 1",
                "nf_conntrack_tcp_be_liberal: ? -> 1",
                "oom_score_adj: 0 -> -999",
            ]
        );
    }

    #[test]
    fn more_buckets_than_wanted_are_as_good() {
        let setup = NodeSetup {
            conntrack: Conntrack { max_per_core: Some(1), min: 100, ..Conntrack::default() },
            ..NodeSetup::default()
        };
        for (buckets, differs) in [("24", true), ("25", false), ("100", false)] {
            let found = ("/proc/sys/net/netfilter/nf_conntrack_buckets", buckets);
            let root = machine(&[("/proc/sys/net/netfilter/nf_conntrack_max", "100"), found]);
            assert_eq!(!differing(&root, &setup).is_empty(), differs, "{buckets}");
        }
    }

    #[test]
    fn strict_arp_is_required_and_tuning_is_not() {
        let root = machine(&[]);
        let strict = NodeSetup { strict_arp: true, ..NodeSetup::default() };
        let error = differences(root.path(), &strict, true).unwrap_err().to_string();
        assert!(error.contains("/proc/sys/net/ipv4/conf/all/arp_ignore cannot be read"), "{error}");

        let liberal = Conntrack { tcp_be_liberal: true, ..Conntrack::default() };
        let tuned = NodeSetup { conntrack: liberal, ..NodeSetup::default() };
        let prepared = establish(root.path(), differences(root.path(), &tuned, true).unwrap()).unwrap();
        assert_eq!(prepared.set, []);
        let [unset] = &prepared.unset[..] else { panic!("{:?}", prepared.unset) };
        let stays = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal is unknown, not 1, and cannot be set";
        assert_eq!(unset.to_string(), stays);
    }

    #[test]
    fn what_is_required_and_cannot_be_written_is_told_with_what_it_is() {
        let root = machine(&[]);
        let path = "/proc/sys/net/ipv4/ip_forward";
        let file = root.path().join(path.trim_start_matches('/'));
        // A directory cannot be written, whoever tries.
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let setting = Setting { path, value: "1".into() };
        let difference = Difference { setting, found: Some("0".into()), is_required: true };
        let error = establish(root.path(), vec![difference]).unwrap_err().to_string();
        assert!(error.starts_with("/proc/sys/net/ipv4/ip_forward is 0 and cannot be set to 1; run as root"), "{error}");
    }
}
