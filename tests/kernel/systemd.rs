//! A machine that systemd runs, in a network namespace of the lab: boots it, installs ipvsd on it as
//! docs/operations.md says, and runs commands on it.

use crate::lab::run;
use crate::program::{IPVSD, PATIENCE};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::wait::wait_for;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// What becomes systemd, with what it needs around it.
const SYSTEMD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/systemd");
const NAMESPACES: [&str; 7] = ["--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--ipc", "--uts"];
const MANUAL: &str = include_str!("../../docs/operations.md");

/// It is killed with all its processes when this value is dropped.
pub struct Machine {
    /// What waits for the first process.
    _launcher: Daemon,
    /// The number that the machine's first process has in the lab.
    first: String,
    /// The machine's memory is mounted here.
    _directory: TempDir,
}

impl Machine {
    /// Boots one in a network namespace.
    pub fn boot(network: &Namespace) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let memory = directory.path().join("memory");
        fs::create_dir(&memory).unwrap();
        let mut command = Command::new("unshare");
        command.args(NAMESPACES).arg(SYSTEMD).arg(&memory);
        let mut launcher = Daemon::start(network, &mut command, &directory.path().join("log")).unwrap();
        let listens = wait_for(PATIENCE, || {
            launcher.check()?;
            let first = fs::read_to_string(memory.join("process")).unwrap_or_default().trim().to_owned();
            Ok(Path::new("/proc").join(&first).join("root/run/systemd/private").exists().then_some(first))
        });
        let first = listens.unwrap().unwrap_or_else(|| panic!("systemd does not boot: {}", launcher.log()));
        let machine = Self { _launcher: launcher, first, _directory: directory };
        // Which waits until it has.
        machine.sh("systemctl start basic.target");
        machine
    }

    /// Installs ipvsd by the commands of the manual. The last one starts it, and has ended when it is ready.
    pub fn install(&self) {
        let (_, commands) =
            MANUAL.split_once("```sh\ninstall -D -t /usr/local/bin ipvsd\n").expect("the manual's commands");
        let (commands, _) = commands.split_once("```").expect("their end");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd");
        self.sh(&format!(
            "mkdir /run/source && cd /run/source && ln -s {IPVSD} ipvsd && ln -s {source} systemd\n\
             install -D -t /usr/local/bin ipvsd\n{commands}"
        ));
    }

    /// Runs a shell's commands on the machine, none of which may fail. Returns what they print.
    pub fn sh(&self, commands: &str) -> String {
        run("nsenter", &["--target", &self.first, "--all", "sh", "-e", "-c", commands])
    }

    /// A property of the unit.
    pub fn unit(&self, property: &str) -> String {
        self.sh(&format!("systemctl show --property={property} --value ipvsd")).trim_end().to_owned()
    }

    /// Adds lines to the section `Service` of the unit.
    pub fn drop_in(&self, lines: &str) {
        self.sh(&format!(
            "mkdir -p /etc/systemd/system/ipvsd.service.d\n\
             printf '[Service]\\n%s\\n' '{lines}' >/etc/systemd/system/ipvsd.service.d/test.conf\n\
             systemctl daemon-reload"
        ));
    }

    /// Writes a file of the directory of manifests.
    pub fn put(&self, name: &str, text: &str) {
        assert!(!text.contains('\''), "it is quoted below");
        self.sh(&format!("printf %s '{text}' >/etc/ipvsd/manifests/{name}"));
    }

    /// The journal's entries that match, each with its fields.
    pub fn journal(&self, matches: &str) -> Vec<Value> {
        let lines = self.sh(&format!("journalctl --output=json {matches}"));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
