//! The daemon under measurement: a process of its own, as a cluster would start it.

use crate::objects::NODE;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running daemon, which is killed when this value is dropped.
pub struct Daemon {
    process: Child,
    started: Instant,
    /// When each pass was over that changed something.
    passes: Receiver<Instant>,
}

/// Memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now, in kB.
    resident: u64,
    /// The most that was resident, in kB.
    peak: u64,
}

impl Daemon {
    /// Starts ipvsd in kube-proxy's place.
    pub fn start(kubeconfig: &Path) -> Self {
        let started = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_ipvsd"))
            .arg0("kube-proxy")
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--hostname-override={NODE}"))
            .args(["--proxy-mode=ipvs", "--ipvs-min-sync-period=0", "--cluster-cidr=10.128.0.0/9"])
            .args(["--conntrack-max-per-core=0", "--nodeport-addresses=192.0.2.0/24"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, passes) = channel();
        let log = process.stderr.take().unwrap();
        std::thread::spawn(move || read(log, &sender));
        Self { process, started, passes }
    }

    /// Waits for the first pass; returns how long after the start it was over.
    pub fn first_pass(&self) -> Duration {
        self.passes.recv_timeout(PATIENCE).unwrap().duration_since(self.started)
    }

    /// Its memory as it is now.
    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim_end_matches("kB").trim().parse().unwrap()
        };
        Memory { resident: kilobytes("VmRSS"), peak: kilobytes("VmHWM") }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Memory {
    /// What is resident, in units of 1024 kB.
    pub fn megabytes(&self) -> u64 {
        self.resident.div_ceil(1024)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |kilobytes: u64| kilobytes.div_ceil(1024);
        write!(f, "{} MB resident, {} MB at most", megabytes(self.resident), megabytes(self.peak))
    }
}

/// Reads the log to its end, so that the daemon never waits for us. Problems are passed on.
fn read(log: ChildStderr, passes: &Sender<Instant>) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        if line.contains(" programmed: ") {
            _ = passes.send(Instant::now());
        } else if line.contains("ERROR") {
            eprintln!("{line}");
        }
    }
}
