//! `ipvsd demo` as a person runs it.

use crate::lab::trial;
use crate::program::IPVSD;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("demo::every_backend_answers_and_nothing_is_left", every_backend_answers_and_nothing_is_left),
        trial("demo::an_interrupt_leaves_nothing", an_interrupt_leaves_nothing),
    ]
}

/// The demo with temporary files in this directory.
fn demo(directory: &Path) -> Command {
    let mut demo = Command::new(IPVSD);
    demo.arg("demo").env("TMPDIR", directory).stdin(Stdio::null());
    demo
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// Processes, this one not counted, that were started with `directory` in an argument.
fn processes_with(directory: &Path) -> usize {
    let text = directory.to_str().unwrap();
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    processes.filter(|arguments| String::from_utf8_lossy(arguments).contains(text)).count()
}

fn every_backend_answers_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let output = demo(directory.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "web (rr)             http://10.96.0.10:80",
        "web (rr)             http://[fd00:96::10]:80",
        "weighted (wrr 3:2:1) udp://[fd00:96::20]:7",
        "TCP  10.96.0.20:80 wrr",
        "Every backend answered as it should.",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    assert!(!text.contains("EXPECTED"), "{text}");
    assert!(is_empty(directory.path()));
    assert_eq!(processes_with(directory.path()), 0);
}

fn an_interrupt_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = demo(directory.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("The node runs:")), "the demo ended before it began");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(is_empty(directory.path()));
    assert_eq!(processes_with(directory.path()), 0);
}
