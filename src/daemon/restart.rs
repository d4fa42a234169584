//! Starts the program anew in place: the same process, arguments and environment, what it was told from the beginning.
//!
//! So a changed configuration takes the one path that every start takes, and the supervisor sees neither an exit nor a
//! crash loop. The kernel goes on balancing meanwhile, as in any restart.

use super::service_manager;
use nix::sys::prctl;
use std::env;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The program that runs, also after its file was replaced (proc(5)).
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Does not return when it works; what it returns is why it did not. Sockets and files are closed on the way.
pub fn restart_in_place() -> io::Error {
    let mut arguments = env::args_os();
    let mut command = Command::new(THIS_PROGRAM);
    // The name decides whose command line it is: kube-proxy's or ipvsd's.
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    service_manager::starts_anew();
    command.args(arguments).exec()
}

/// Gives the process the name that it was started by. Linux names it after the file that it executes, which after a start
/// in place is `exe`, and then nobody who looks for `kube-proxy` finds it.
pub fn name_process() {
    let name = env::args_os().next().and_then(|program| {
        let name = Path::new(&program).file_name()?.as_bytes().to_owned();
        CString::new(name).ok()
    });
    if let Some(name) = name {
        // A name is for people; without it everything works.
        _ = prctl::set_name(&name);
    }
}
