//! What this machine is called.

use std::{fs, io};

/// The host name, as kubelet makes a node's name of it: trimmed, in lower case.
///
/// # Errors
/// When the kernel does not give it.
pub fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase())
}
