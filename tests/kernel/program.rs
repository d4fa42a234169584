//! Runs the program itself, and makes clusters for it.

use crate::lab;
use ipvsd::demo::daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::wait::wait_for;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// From a change to its effect. The lab may be slow, and nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The same for 10,000 Services and every system call traced.
const PATIENCE_AT_SIZE: Duration = Duration::from_secs(180);

/// The program under test.
pub const IPVSD: &str = env!("CARGO_BIN_EXE_ipvsd");

/// Runs `ipvsd` to its end.
pub fn ipvsd(arguments: &[&str]) -> Output {
    Command::new(IPVSD).args(arguments).output().expect("the program is there")
}

/// Its standard output, after it ended with `code`.
pub fn stdout(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What IPVS holds, by ipvsadm's word, in an order of our own.
pub fn rules() -> Vec<String> {
    let mut lines: Vec<_> = lab::run("ipvsadm", &["-Sn"]).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Gives this namespace a device with addresses.
pub fn add_addresses(addresses: &[&str]) {
    lab::run("ip", &["link", "add", "node0", "type", "dummy"]);
    lab::run("ip", &["link", "set", "node0", "up"]);
    for address in addresses {
        let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        lab::run("ip", &[&["addr", "add", address, "dev", "node0"], nodad].concat());
    }
}

/// A daemon in this thread's namespace, which is killed when this value is dropped.
pub struct Daemon {
    daemon: daemon::Daemon,
    /// How many bytes of the log were waited for already.
    read: usize,
    /// Where the log is.
    _directory: TempDir,
}

impl Daemon {
    /// Starts `program` with arguments: ipvsd, or what runs it.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let here = Namespace::here().expect("/proc is mounted");
        let log = directory.path().join("log");
        let daemon = daemon::Daemon::start(&here, Command::new(program).args(arguments), &log);
        Self { daemon: daemon.expect("the program is there"), read: 0, _directory: directory }
    }

    /// Waits for the next line of the log with `text` in it, and returns that line.
    pub fn wait_for(&mut self, text: &str) -> String {
        let line = wait_for(PATIENCE_AT_SIZE, || {
            let log = self.daemon.log();
            for line in log[self.read..].split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                self.read += line.len();
                if line.contains(text) {
                    return Ok(Some(line.to_owned()));
                }
            }
            self.daemon.check()?;
            Ok(None)
        });
        let line = line.unwrap_or_else(|error| panic!("waiting for {text:?}: {error}"));
        line.unwrap_or_else(|| panic!("no {text:?} in\n{}", self.daemon.log()))
    }

    /// SIGKILL, wherever it is.
    pub fn kill(self) {
        self.daemon.kill().expect("it runs");
    }
}

/// Waits until `holds`, which must be soon.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let held = wait_for(PATIENCE, || Ok(holds().then_some(())));
    assert!(held.is_ok_and(|held| held.is_some()), "not in time: {what}");
}

/// Writes `count` Services with two endpoints each, a thousand to a file.
pub fn write_cluster(directory: &Path, count: u32) {
    for (file, numbers) in (0..count).collect::<Vec<_>>().chunks(1000).enumerate() {
        let text = numbers.iter().fold(String::new(), |text, number| text + &service(*number, &[1, 2]));
        fs::write(directory.join(format!("{file:03}.yaml")), text).expect("the directory is ours");
    }
}

/// One Service with its endpoints, numbered within it.
pub fn service(number: u32, endpoints: &[u32]) -> String {
    let [_, a, b, c] = (number + 1).to_be_bytes();
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\n\
         spec: {{clusterIP: 10.{a}.{b}.{c}, ports: [{{port: 80}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: s{number}, labels: {{kubernetes.io/service-name: s{number}}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints:\n"
    );
    for endpoint in endpoints {
        writeln!(text, "- addresses: [\"172.{}.{b}.{c}\"]", 16 + endpoint).expect("memory");
    }
    text
}
