//! Runs the program itself, and makes clusters for it.

use super::lab;
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

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

/// A daemon that ends with its value.
pub struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    /// Starts `program` with arguments, whose log is read here.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let command = &mut Command::new(program);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().expect("the program is there");
        let log = BufReader::new(child.stderr.take().expect("its stderr is a pipe"));
        Self { child, log }
    }

    /// Reads the log up to a line with `text` in it, and returns that line.
    pub fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            let before = seen.len();
            let read = self.log.read_line(&mut seen).expect("the log is text");
            assert!(read > 0, "the log ended without {text:?}:\n{seen}");
            if seen[before..].contains(text) {
                return seen[before..].to_owned();
            }
        }
    }

    /// SIGKILL, wherever it is.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `holds`, which must be soon.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
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
