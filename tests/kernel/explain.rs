//! `explain`, and `diff` of the running daemon: what they say with a daemon, without one, and of a kernel that somebody
//! changed.

use crate::lab::{run, trial};
use crate::program::{Daemon, IPVSD, add_addresses, eventually, ipvsd, stdout};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("explain::a_service_is_told_with_what_the_kernel_holds", a_service_is_told),
        trial("explain::what_somebody_changed_is_told", what_differs_is_told),
        trial("explain::a_packet_is_told_with_and_without_a_daemon", a_packet_is_told),
        trial("explain::top_shows_the_names_that_the_daemon_knows", top_shows_names),
        trial("explain::a_list_has_the_names_that_the_daemon_knows", list_has_names),
        trial("explain::a_list_shows_names_behind_the_bytes_of_ipvsadm", list_shows_names),
        trial("explain::without_a_daemon_it_says_so", without_a_daemon),
        trial("explain::a_daemon_that_was_killed_leaves_the_socket_to_the_next", after_a_crash),
    ]
}

const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  externalTrafficPolicy: Local
  ports: [{name: http, port: 80, nodePort: 30080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.2], nodeName: here, targetRef: {name: web-a}}
- {addresses: [10.244.1.2], nodeName: there, targetRef: {name: web-b}}
- {addresses: [10.244.1.3], nodeName: there, targetRef: {name: web-c}, conditions: {ready: false}}
"#;

/// A node with a daemon that programs netfilter too.
struct Stage {
    directory: TempDir,
    daemon: Daemon,
}

impl Stage {
    fn new() -> Self {
        add_addresses(&["192.0.2.1/24"]);
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("manifests")).unwrap();
        fs::write(directory.path().join("manifests/web.yaml"), WEB).unwrap();
        fs::write(directory.path().join("own.yaml"), "netfilter: true\n").unwrap();
        let mut daemon = start(directory.path());
        daemon.wait_for("programmed");
        Self { directory, daemon }
    }
}

fn start(directory: &Path) -> Daemon {
    let (manifests, own) = (directory.join("manifests"), directory.join("own.yaml"));
    let (manifests, own) = (manifests.to_str().unwrap(), own.to_str().unwrap());
    let flags = ["run", "--manifests", manifests, "--ipvsd-config", own, "--hostname-override", "here"];
    let pods = ["--cluster-cidr", "10.244.0.0/16", "--ipvs-sync-period", "1h"];
    Daemon::start(IPVSD, &[&flags[..], &pods].concat())
}

fn list_has_names() {
    let stage = Stage::new();
    let listed = || in_json(&["list", "-t", "10.96.0.1:80"], 0)["virtualServers"][0].take();
    let names = |server: &Value| {
        let pods = server["destinations"].as_array().unwrap().iter().map(|destination| destination["pod"].clone());
        (server["service"].clone(), pods.collect::<Vec<_>>())
    };
    assert_eq!(names(&listed()), (json!("default/web"), vec![json!("default/web-a"), json!("default/web-b")]));
    drop(stage);
    assert_eq!(names(&listed()), (Value::Null, vec![Value::Null, Value::Null]));
}

/// The text is ipvsadm's to the byte, and behind it are names.
fn list_shows_names() {
    let stage = Stage::new();
    for columns in ["-Ln", "--stats", "--thresholds"] {
        let (plain, named) = (told(&["list", columns], 0), told(&["list", columns, "--names"], 0));
        let remarks = |line: &str| line.split_once(" # ").map(|(_, name)| name.to_owned());
        let without: Vec<_> = named.lines().map(|line| line.split(" # ").next().unwrap()).collect();
        assert_eq!(without, plain.lines().collect::<Vec<_>>());
        let names: Vec<_> = named.lines().skip(3).map(remarks).collect();
        assert!(names.iter().all(Option::is_some), "{named}");
        assert_eq!(names.iter().flatten().filter(|name| *name == "default/web:http").count(), 4, "{named}");
        assert_eq!(names.iter().flatten().filter(|name| *name == "default/web-b").count(), 2, "{named}");
    }
    run("ipvsadm", &["-A", "-t", "9.9.9.9:99", "-s", "rr"]);
    assert!(told(&["list", "--names"], 0).contains("TCP  9.9.9.9:99 rr\n"), "what is nobody's has no name");
    let plain = told(&["list"], 0);
    stage.daemon.kill();
    let output = ipvsd(&["list", "--names"]);
    assert_eq!(stdout(&output, 1), plain);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "ipvsd: names are not known: no ipvsd runs in this network namespace\n");
}

fn told(arguments: &[&str], code: i32) -> String {
    stdout(&ipvsd(arguments), code)
}

fn in_json(arguments: &[&str], code: i32) -> Value {
    let text = told(&[arguments, &["--json"]].concat(), code);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn a_service_is_told() {
    let _stage = Stage::new();
    let text = told(&["explain", "default/web"], 0);
    for line in [
        "Service default/web",
        "port http 80/tcp ipv4",
        "  cluster IP 10.96.0.1:80",
        "  load-balancer IP 203.0.113.1:80, policy Local",
        "  node port 192.0.2.1:30080, policy Local",
        "  endpoints: 3, of which 1 get traffic by every way",
        "    10.244.0.2:8080 web-a on this node: gets traffic",
        "    10.244.1.2:8080 web-b: no traffic by policy Local: it is on another node",
        "    10.244.1.3:8080 web-c: no traffic: it is not ready; by policy Local: it is on another node",
        "in the kernel",
        "  tcp 10.96.0.1:80 rr",
        "    10.244.1.2:8080 weight 1, connections: 0 active, 0 inactive",
        "  mark 1052736 ipv4 rr",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    // By port and by frontend it is the same Service.
    assert_eq!(told(&["explain", "default/web:http"], 0), text);
    assert_eq!(told(&["explain", "203.0.113.1:80/tcp"], 0), text);
    let whole = in_json(&["explain", "default/web"], 0);
    assert_eq!(whole["service"]["ports"][0]["endpoints"][1]["localPolicy"], "onOtherNode");
    assert_eq!(whole["kernel"].as_array().unwrap().len(), 4);
    assert_eq!(whole["differences"], json!([]));

    for (target, code) in [("default/nobody", 1), ("default/web:https", 2), ("web", 2)] {
        assert_eq!(told(&["explain", target], code), "", "{target}");
    }
    // Where a problem is, all is not well.
    assert_eq!(in_json(&["diff"], 0), json!({ "operations": [], "problems": [] }));
}

fn what_differs_is_told() {
    let mut stage = Stage::new();
    run("ipvsadm", &["-d", "-t", "203.0.113.1:80", "-r", "10.244.0.2:8080"]);
    run("ip", &["route", "del", "local", "10.96.0.1", "dev", "lo", "table", "local"]);
    run("ipset", &["del", "KUBE-CLUSTER-IP", "10.96.0.1,tcp:80"]);
    let missing = ["+ tcp 203.0.113.1:80 -> 10.244.0.2:8080 weight 1", "+ route 10.96.0.1 src 192.0.2.1"];
    let text = told(&["explain", "default/web"], 1);
    for line in ["what it lacks of what should be".into(), format!("  {}", missing[0]), format!("  {}", missing[1])] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    assert!(text.contains("no destination takes connections: they are refused"), "{text}");
    let set = "+ KUBE-CLUSTER-IP 10.96.0.1,tcp:80";
    assert_eq!(told(&["diff"], 1).lines().collect::<Vec<_>>(), [set, missing[0], missing[1]]);

    // What is wrong with the input is told too.
    fs::write(stage.directory.path().join("manifests/bad.yaml"), "neither: [").unwrap();
    stage.daemon.wait_for("problem");
    let diff = in_json(&["diff"], 1);
    assert!(diff["problems"][0].as_str().unwrap().contains("bad.yaml"), "{diff}");
}

fn a_packet_is_told() {
    let stage = Stage::new();
    let from_pod = "10.244.0.9,203.0.113.1:80/tcp";
    let with_daemon = told(&["explain", "--flow", from_pod], 0);
    for line in [
        "tcp 10.244.0.9 -> 203.0.113.1:80, Service default/web",
        "from a pod of this node",
        "    its mark becomes 0x101040",
        "=> mark 1052736 ipv4 rr takes it and gives it to one of",
        "  10.244.1.2:8080 web-b weight 1, which sees 10.244.0.9 as its client",
    ] {
        assert!(with_daemon.lines().any(|found| found == line), "no {line:?} in\n{with_daemon}");
    }
    for written in [&["10.244.0.9", "203.0.113.1:80"][..], &["10.244.0.9 -> 203.0.113.1:80/TCP"]] {
        assert_eq!(told(&[&["explain", "--flow"], written].concat(), 0), with_daemon, "{written:?}");
    }
    stage.daemon.kill();
    let alone = told(&["explain", "--flow", from_pod], 0);
    assert_eq!(alone, with_daemon.replace(", Service default/web", "").replace(" web-a", "").replace(" web-b", ""));
    for (flow, code, outcome, client, masqueraded) in [
        ("192.0.2.9,203.0.113.1:80", 0, "balanced", "outside", json!([false])),
        ("192.0.2.9,10.96.0.1:80", 0, "balanced", "outside", json!([true, true])),
        ("node,203.0.113.1:80", 0, "balanced", "node", json!([true, true])),
        ("10.244.0.2,10.96.0.1:80", 0, "balanced", "pod", json!([true, false])),
        ("192.0.2.9,10.96.0.1:81", 1, "refused", "outside", json!([])),
        ("192.0.2.9,192.0.2.1:22", 1, "delivered", "outside", json!([])),
        ("192.0.2.9,198.51.100.1:80", 1, "forwarded", "outside", json!([])),
    ] {
        let whole = in_json(&["explain", "--flow", flow], code);
        let seen: Vec<_> =
            whole["destinations"].as_array().unwrap().iter().map(|one| one["masqueraded"].clone()).collect();
        assert_eq!(
            (&whole["outcome"], &whole["client"], json!(seen)),
            (&json!(outcome), &json!(client), masqueraded),
            "{flow}"
        );
    }
}

fn top_shows_names() {
    let stage = Stage::new();
    let text = told(&["top", "--batch"], 0);
    assert_eq!(text.matches("default/web").count(), 4, "{text}");
    stage.daemon.kill();
    assert!(!told(&["top", "--batch"], 0).contains("default/web"));
}

fn without_a_daemon() {
    let stage = Stage::new();
    stage.daemon.kill();
    let output = ipvsd(&["explain", "default/web"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("no ipvsd runs in this network namespace") && errors.contains("--flow"), "{errors}");
    let text = told(&["explain", "203.0.113.1:80"], 0);
    assert!(
        text.starts_with("no daemon knows whose this is; the kernel alone:\nin the kernel\n  tcp 203.0.113.1:80"),
        "{text}"
    );
    assert!(text.contains("\n  mark 1052736 ipv4 rr\n"), "{text}");
    let nowhere = "no daemon knows whose this is; the kernel alone:\nin the kernel: nothing\n";
    assert_eq!(told(&["explain", "203.0.113.1:81"], 1), nowhere);
    let output = ipvsd(&["diff"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no ipvsd runs in this network namespace"));
}

fn after_a_crash() {
    let Stage { directory, daemon } = Stage::new();
    daemon.kill();
    let _next = start(directory.path());
    eventually("the next one answers", || ipvsd(&["explain", "default/web"]).status.success());
    assert_eq!(told(&["diff"], 0), "");
}
