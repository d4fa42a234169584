//! The kernel settings that the data path needs. [`settings`] decides, [`establish`] writes what differs.
//!
//! Paths below /proc/sys/net are of the reading thread's network namespace.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where settings are files.
pub const ROOT: &str = "/proc/sys";

/// A setting and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its path below [`ROOT`].
    pub path: &'static str,
    /// The text that it should hold.
    pub value: &'static str,
}

/// A kernel's version, as far as behaviour depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// 6 of 6.1.176.
    pub major: u32,
    /// 1 of 6.1.176.
    pub minor: u32,
}

/// A text that is not a kernel's version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kernel version")]
pub struct InvalidKernelVersion(String);

/// A setting that is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The setting is not there.
    #[error("{} cannot be read; is the module ip_vs loaded, and is its connection tracking part of this kernel?", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The setting is there and cannot be changed.
    #[error(
        "{} cannot be set to {value}; run as root with a writable /proc/sys, or set it on the host",
        .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        value: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not say which it is.
    #[error("the kernel's version cannot be known")]
    Version(#[source] io::Error),
}

/// What must be set on a kernel of this version.
pub fn settings(kernel: KernelVersion) -> Vec<Setting> {
    let mut settings = vec![
        // Netfilter sees connections through IPVS, so that they can be masqueraded and filtered by state.
        Setting { path: "net/ipv4/vs/conntrack", value: "1" },
        // A packet of a connection whose destination is gone ends the connection, rather than being lost silently.
        Setting { path: "net/ipv4/vs/expire_nodest_conn", value: "1" },
        // Persistence does not send new connections to a destination that is draining.
        Setting { path: "net/ipv4/vs/expire_quiescent_template", value: "1" },
        Setting { path: "net/ipv4/ip_forward", value: "1" },
    ];
    // A client's port that is used again meets the old connection's entry. Before Linux 5.9 the default (1) delays
    // such a connection by a second; since then it does not. Before 4.1 there is no such setting.
    if (KernelVersion { major: 4, minor: 1 }..KernelVersion { major: 5, minor: 9 }).contains(&kernel) {
        settings.push(Setting { path: "net/ipv4/vs/conn_reuse_mode", value: "0" });
    }
    settings
}

/// Sets what must be set on this kernel; returns what was not so before.
///
/// # Errors
/// The first setting that cannot be read or written.
pub fn prepare() -> Result<Vec<Setting>, SysctlError> {
    let root = Path::new(ROOT);
    establish(root, &settings(running_kernel(root)?))
}

/// Writes those settings below `root` that hold something else; returns them.
///
/// # Errors
/// The first setting that cannot be read or written; those after it are not looked at.
pub fn establish(root: &Path, settings: &[Setting]) -> Result<Vec<Setting>, SysctlError> {
    let mut changed = Vec::new();
    for setting in settings {
        let path = root.join(setting.path);
        let found =
            std::fs::read_to_string(&path).map_err(|source| SysctlError::Read { path: path.clone(), source })?;
        if found.trim() != setting.value {
            std::fs::write(&path, setting.value).map_err(|source| SysctlError::Write {
                path,
                value: setting.value,
                source,
            })?;
            changed.push(*setting);
        }
    }
    Ok(changed)
}

/// Whether the kernel below `root` forwards IPv6, without which virtual servers of IPv6 reach no other node.
///
/// ipvsd does not set it: the node would no longer accept router advertisements, and may lose its default route.
pub fn forwards_ipv6(root: &Path) -> bool {
    std::fs::read_to_string(root.join("net/ipv6/conf/all/forwarding")).is_ok_and(|found| found.trim() == "1")
}

/// The version of the kernel below `root`.
///
/// # Errors
/// It cannot be read or is no version.
pub fn running_kernel(root: &Path) -> Result<KernelVersion, SysctlError> {
    let release = std::fs::read_to_string(root.join("kernel/osrelease")).map_err(SysctlError::Version)?;
    release.parse().map_err(|invalid: InvalidKernelVersion| {
        SysctlError::Version(io::Error::new(io::ErrorKind::InvalidData, invalid))
    })
}

impl FromStr for KernelVersion {
    type Err = InvalidKernelVersion;

    /// Reads `6.1`, `6.1.176` or `6.12-rc1-custom`.
    fn from_str(release: &str) -> Result<Self, InvalidKernelVersion> {
        let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(InvalidKernelVersion(release.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn reuse_of_ports_is_set_only_where_its_default_hurts() {
        let sets = |release: &str| {
            let settings = settings(release.parse().unwrap());
            settings.contains(&Setting { path: "net/ipv4/vs/conn_reuse_mode", value: "0" })
        };
        assert!(!sets("3.19.8") && !sets("4.0") && !sets("5.9.0-rc1") && !sets("6.1.176"));
        assert!(sets("4.1.0") && sets("4.19.0-26-amd64") && sets("5.8.18"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for release in ["", "6", "six.one", ".6.1"] {
            assert_eq!(release.parse::<KernelVersion>(), Err(InvalidKernelVersion(release.into())));
        }
    }

    /// A directory that has the settings of Linux 6.1, all 0.
    fn proc_sys() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["net/ipv4/vs", "net/ipv6/conf/all", "kernel"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for setting in settings(KernelVersion { major: 6, minor: 1 }) {
            fs::write(root.path().join(setting.path), "0\n").unwrap();
        }
        fs::write(root.path().join("kernel/osrelease"), "6.1.176\n").unwrap();
        root
    }

    #[test]
    fn only_what_differs_is_written() {
        let root = proc_sys();
        let settings = settings(running_kernel(root.path()).unwrap());
        fs::write(root.path().join("net/ipv4/ip_forward"), "1\n").unwrap();
        let changed = establish(root.path(), &settings).unwrap();
        assert_eq!(changed.len(), settings.len() - 1);
        assert_eq!(fs::read_to_string(root.path().join("net/ipv4/ip_forward")).unwrap(), "1\n");
        assert_eq!(fs::read_to_string(root.path().join("net/ipv4/vs/conntrack")).unwrap(), "1");
        assert_eq!(establish(root.path(), &settings).unwrap(), []);
    }

    #[test]
    fn a_setting_that_is_missing_is_named() {
        let root = proc_sys();
        fs::remove_file(root.path().join("net/ipv4/vs/conntrack")).unwrap();
        let error = establish(root.path(), &settings(KernelVersion { major: 6, minor: 1 })).unwrap_err();
        assert!(error.to_string().contains("net/ipv4/vs/conntrack"), "{error}");
    }

    #[test]
    fn ipv6_forwarding_is_off_unless_the_kernel_says_one() {
        let root = proc_sys();
        assert!(!forwards_ipv6(root.path()));
        fs::write(root.path().join("net/ipv6/conf/all/forwarding"), "1\n").unwrap();
        assert!(forwards_ipv6(root.path()));
    }
}
