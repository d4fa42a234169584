//! Settings of the kernel that are files: what one should hold and holds, and writing it. Which are wanted is decided
//! in `node_setup`.
//!
//! Paths below /proc/sys/net are of the reading thread's network namespace.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the files are; tests have them elsewhere.
pub const ROOT: &str = "/";

/// A setting and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The file; or, for what is no file, the command that would set it.
    pub path: &'static str,
    /// The text that it should hold.
    pub value: String,
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
    #[error("{path} cannot be read; is the module ip_vs loaded, and is its connection tracking part of this kernel?")]
    Read {
        /// The file.
        path: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The setting is there and cannot be changed.
    #[error(
        "{path} is {found} and cannot be set to {value}; run as root with a writable /proc/sys, or set it on the host"
    )]
    Write {
        /// The file.
        path: &'static str,
        /// What it should hold.
        value: String,
        /// What it holds.
        found: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not say which it is.
    #[error("the kernel's version cannot be known")]
    Version(#[source] io::Error),
}

impl Setting {
    /// What the setting holds below `root`, without the end of its line.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, root: &Path) -> io::Result<String> {
        Ok(fs::read_to_string(self.below(root))?.trim().to_owned())
    }

    /// Writes it below `root`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        fs::write(self.below(root), &self.value)
    }

    fn below(&self, root: &Path) -> PathBuf {
        root.join(self.path.trim_start_matches('/'))
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.path, self.value)
    }
}

/// Whether the kernel below `root` forwards IPv6, without which virtual servers of IPv6 reach no other node.
///
/// ipvsd does not set it: the node would no longer accept router advertisements, and may lose its default route.
pub fn forwards_ipv6(root: &Path) -> bool {
    fs::read_to_string(root.join("proc/sys/net/ipv6/conf/all/forwarding")).is_ok_and(|found| found.trim() == "1")
}

/// Whether connection tracking below `root` lets TCP packets pass that are outside of the window.
pub fn tracks_liberally(root: &Path) -> bool {
    let found = fs::read_to_string(root.join("proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"));
    found.is_ok_and(|found| found.trim() != "0")
}

/// The version of the kernel below `root`.
///
/// # Errors
/// It cannot be read or is no version.
pub fn running_kernel(root: &Path) -> Result<KernelVersion, SysctlError> {
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).map_err(SysctlError::Version)?;
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

    #[test]
    fn what_is_no_version_is_refused() {
        for release in ["", "6", "six.one", ".6.1"] {
            assert_eq!(release.parse::<KernelVersion>(), Err(InvalidKernelVersion(release.into())));
        }
    }

    #[test]
    fn ipv6_forwarding_is_off_unless_the_kernel_says_one() {
        let root = tempfile::tempdir().unwrap();
        assert!(!forwards_ipv6(root.path()));
        let directory = root.path().join("proc/sys/net/ipv6/conf/all");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("forwarding"), "1\n").unwrap();
        assert!(forwards_ipv6(root.path()));
    }
}
