//! Scenarios in text: manifests and a node in, the exact operations, kernel and problems out. One file per feature
//! in `tests/scenarios/`; `IPVSD_UPDATE=1` writes what came out into the files, for a person to read the diff.
//!
//! A file begins with prose. Then come sections, each after a line `=== NAME`:
//!
//! - what happens: `settings` (what the operator says, on a new node), `node` (addresses; the first of each family is
//!   the primary one), `node-object` (`zone NAME` and `address IP`), `manifests` (all that the directory holds from now
//!   on), `file NAME` (one more file in it), `api` (all that the API has from now on), `foreign` and `schedulers` (what
//!   others made and what the kernel can load), `api-servers` (where they are), `connections` (what it counts:
//!   `KEY -> DESTINATION COUNT`), `after DURATION`, `restart` (a new process on the same kernel and directory);
//! - what is expected then, after one pass: `operations`, `kernel`, `problems`, `health-checks`, `unserved` (how many
//!   Services have no endpoint on this node and want one, by policy and family).
//!
//! The node is called `node-1`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what it did not expect"
)]

use ipvsd::config::duration;
use ipvsd::desired::{NodePortAddresses, Settings, Traffic};
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::model::{DestinationKey, Family, Op, VirtualServerKey};
use ipvsd::reconcile::{Options, Reconciler};
use ipvsd::source::convert::{self, Context, Rules};
use ipvsd::source::manifests::Manifests;
use ipvsd::state::{Change, Node, NodeObject, Origin, Problem, Scheduling};
use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn every_scenario_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("IPVSD_UPDATE").is_some();
    let mut wrong = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "the scenarios were not found");
    for file in files {
        let written = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let came_out = play(&name, &written);
        if update {
            fs::write(&file, &came_out).unwrap();
        } else if came_out != written {
            wrong.push(format!("--- {name}: expected\n{written}\n--- {name}: came out\n{came_out}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Plays a scenario and returns it with what came out in place of what was expected.
fn play(name: &str, text: &str) -> String {
    let mut parts = text.split_inclusive('\n').peekable();
    let mut out = String::new();
    let mut stage = Stage::new();
    while let Some(line) = parts.next() {
        out.push_str(line);
        let Some(heading) = line.strip_prefix("=== ") else { continue };
        let mut body = String::new();
        while let Some(line) = parts.next_if(|line| !line.starts_with("=== ")) {
            body.push_str(line);
        }
        match stage.section(heading.trim(), &body) {
            Some(result) => out.push_str(&result),
            None => out.push_str(&body),
        }
    }
    assert!(out.contains("\n=== kernel\n") || out.contains("\n=== problems\n"), "{name} expects nothing");
    out
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const LINGER: Duration = Duration::from_secs(10);
const NODE_NAME: &str = "node-1";

/// A node with its kernel and its directory of manifests.
struct Stage {
    directory: TempDir,
    manifests: Manifests,
    settings: Settings,
    reconciler: Reconciler<FakeKernel>,
    now: Duration,
    /// What the last pass did; none if something happened since.
    last: Option<Vec<String>>,
    problems: Vec<Problem>,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            manifests: Manifests::new(directory.path(), NODE_NAME),
            settings: Settings::default(),
            reconciler: reconciler(FakeKernel::default(), &Settings::default()),
            now: Duration::ZERO,
            last: None,
            problems: Vec::new(),
            directory,
        }
    }

    /// Plays one section; returns what came out if it is an expectation.
    fn section(&mut self, heading: &str, body: &str) -> Option<String> {
        let (name, argument) = heading.split_once(' ').unwrap_or((heading, ""));
        match name {
            "operations" | "kernel" | "problems" | "health-checks" | "unserved" => return Some(self.outcome(name)),
            "settings" => {
                self.settings = settings(body);
                self.reconciler = reconciler(FakeKernel::default(), &self.settings);
            }
            "node-object" => self.reconciler.take([Change::NodeObject(node_object(body))]),
            "api" => self.list(body),
            "api-servers" => {
                self.reconciler.take([Change::ApiServers(body.lines().map(|at| at.parse().unwrap()).collect())])
            }
            "node" => self.reconciler.take([Change::Node(node(body))]),
            "manifests" => self.write("cluster.yaml", body),
            "file" => self.write(argument, body),
            "foreign" => self.kernel().foreign = body.lines().map(key).collect(),
            "schedulers" => self.kernel().schedulers = body.split_whitespace().map(|s| s.parse().unwrap()).collect(),
            "connections" => self.kernel().connections = body.lines().map(count).collect(),
            "restart" => self.restart(),
            "after" => self.now += duration::parse(argument).unwrap(),
            _ => panic!("unknown section {heading:?}"),
        }
        self.last = None;
        None
    }

    fn kernel(&mut self) -> &mut FakeKernel {
        self.reconciler.kernel_mut()
    }

    fn write(&mut self, name: &str, body: &str) {
        let path = self.directory.path().join(name);
        if body.is_empty() {
            fs::remove_file(path).unwrap()
        } else {
            fs::write(path, body).unwrap()
        }
        let update = self.manifests.load().unwrap();
        self.reconciler.take(update.changes);
        self.problems = update.problems;
    }

    /// What the API server has, as a complete list.
    fn list(&mut self, body: &str) {
        let context = Context::new(Rules::Api, NODE_NAME);
        let (mut services, mut slices) = (HashSet::new(), HashSet::new());
        let mut changes = Vec::new();
        self.problems.clear();
        for document in body.split("---\n") {
            let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
            if value["kind"] == "Service" {
                let raw = serde_json::from_value(value).unwrap();
                let Some(found) = convert::service(&raw, &Origin::Api, &context).unwrap() else { continue };
                services.insert(found.object.name.clone());
                self.problems.extend(found.problems);
                changes.push(Change::Service(found.object.into()));
            } else {
                let raw = serde_json::from_value(value).unwrap();
                let Some(found) = convert::endpoint_slice(&raw, &Origin::Api, &context).unwrap() else { continue };
                slices.insert(found.object.name.clone());
                self.problems.extend(found.problems);
                changes.push(Change::EndpointSlice(found.object.into()));
            }
        }
        changes.extend([Change::OnlyServices(services), Change::OnlyEndpointSlices(slices)]);
        self.reconciler.take(changes);
    }

    /// A new process on the same node: what it knows it finds in the kernel and in the directory.
    fn restart(&mut self) {
        let node = self.reconciler.state().node().clone();
        self.reconciler = reconciler(self.reconciler.kernel().clone(), &self.settings);
        self.manifests = Manifests::new(self.directory.path(), NODE_NAME);
        self.now = Duration::ZERO;
        let update = self.manifests.load().unwrap();
        self.reconciler.take([Change::Node(node)].into_iter().chain(update.changes));
        self.problems = update.problems;
    }

    fn outcome(&mut self, what: &str) -> String {
        if self.last.is_none() {
            let (before, start) = (self.reconciler.kernel().model.clone(), self.now);
            let report = self.reconciler.pass(start);
            let after = self.reconciler.kernel().model.clone();
            let mut lines: Vec<_> = ipvsd::diff::diff(&after, &before).iter().map(Op::to_string).collect();
            lines.extend(report.failed.iter().map(|(op, cause)| format!("failed {op}: {cause}")));
            self.last = Some(lines);
        }
        match what {
            "kernel" => self.reconciler.kernel().to_string(),
            "health-checks" => self.health_checks(),
            "unserved" => self.unserved(),
            "operations" => self.last.iter().flatten().fold(String::new(), |text, line| text + line + "\n"),
            _ => self.problem_lines(),
        }
    }

    fn health_checks(&self) -> String {
        let of_family = |family: Family| {
            let checks = self.reconciler.locals().health_checks(family);
            checks.iter().map(move |(name, check)| (name, family, check))
        };
        [Family::Ipv4, Family::Ipv6].into_iter().flat_map(of_family).fold(String::new(), |mut text, one| {
            let (name, family, check) = one;
            writeln!(text, "{name}, {} port {}: {}", family.name(), check.port, check.local_endpoints).unwrap();
            text
        })
    }

    fn unserved(&self) -> String {
        let mut text = String::new();
        for (traffic, name) in [(Traffic::Internal, "internal"), (Traffic::External, "external")] {
            for family in [Family::Ipv4, Family::Ipv6] {
                let count = self.reconciler.locals().unserved(traffic, family);
                if count > 0 {
                    writeln!(text, "{name} {} {count}", family.name()).unwrap();
                }
            }
        }
        text
    }

    fn problem_lines(&self) -> String {
        let folder = format!("{}/", self.directory.path().display());
        let all = self.problems.iter().cloned().chain(self.reconciler.problems());
        all.fold(String::new(), |mut text, problem| {
            writeln!(text, "{}", problem.to_string().replace(&folder, "")).unwrap();
            text
        })
    }
}

fn reconciler(kernel: FakeKernel, settings: &Settings) -> Reconciler<FakeKernel> {
    let options = Options { drain_timeout: DRAIN_TIMEOUT, linger: LINGER, ..Options::default() };
    Reconciler::new(kernel, settings.clone(), options)
}

/// Reads lines such as `scheduler lc`, `node-ports primary`, `node-ports 192.0.2.0/24`, `bind-address 192.0.2.1`, `external-ips off`,
/// `affinity shared`.
fn settings(body: &str) -> Settings {
    let mut settings = Settings::default();
    for line in body.lines() {
        match line.split_once(' ').unwrap() {
            ("node-ports", "primary") => settings.node_ports = NodePortAddresses::Primary,
            ("node-ports", ranges) => {
                let ranges = ranges.split(' ').map(|range| range.parse().unwrap());
                settings.node_ports = NodePortAddresses::Within(ranges.collect());
            }
            ("scheduler", name) => settings.scheduling = Scheduling::with_usual_flags(name.parse().unwrap()),
            ("affinity", "shared") => settings.shares_affinity = true,
            ("bind-address", address) => settings.bind_address = Some(address.parse().unwrap()),
            ("external-ips", "off") => settings.external_ips_allowed = false,
            _ => panic!("unknown setting {line:?}"),
        }
    }
    settings
}

fn node_object(body: &str) -> NodeObject {
    let mut object = NodeObject::default();
    for line in body.lines() {
        match line.split_once(' ').unwrap() {
            ("zone", zone) => object.zone = Some(zone.into()),
            ("address", address) => object.addresses.push(address.parse().unwrap()),
            _ => panic!("unknown fact {line:?}"),
        }
    }
    object
}

fn node(body: &str) -> Node {
    let addresses: Vec<IpAddr> = body.split_whitespace().map(|address| address.parse().unwrap()).collect();
    Node {
        primary_ipv4: addresses.iter().find(|address| address.is_ipv4()).copied(),
        primary_ipv6: addresses.iter().find(|address| address.is_ipv6()).copied(),
        addresses: addresses.into_iter().collect(),
    }
}

/// Reads `tcp 10.0.0.1:80`.
fn key(line: &str) -> VirtualServerKey {
    let (protocol, address) = line.trim().split_once(' ').unwrap();
    let protocol = match protocol {
        "tcp" => 6,
        "udp" => 17,
        _ => 132,
    };
    let address: SocketAddr = address.parse().unwrap();
    VirtualServerKey::new(address.ip(), address.port(), ipvsd::model::Protocol::from_number(protocol).unwrap())
}

/// Reads `tcp 10.0.0.1:80 -> 10.1.0.1:8080 3`.
fn count(line: &str) -> ((VirtualServerKey, DestinationKey), u32) {
    let (server, rest) = line.split_once(" -> ").unwrap();
    let (destination, count) = rest.trim().split_once(' ').unwrap();
    let destination: SocketAddr = destination.parse().unwrap();
    let destination = DestinationKey { address: destination.ip(), port: destination.port() };
    ((key(server), destination), count.parse().unwrap())
}
