//! An ingress controller as clusters have it: nginx in a pod, behind a Service that leads clients from outside to it, and
//! in front of another Service. What it logs as its client is what operators see.

use super::objects::{balanced, put, rig, slice, slices, target};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To};
use crate::lab::trial;
use crate::program::eventually;
use ipvsd::demo::daemon::Daemon;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use tempfile::TempDir;

pub fn trials() -> Vec<Trial> {
    vec![trial("features::an_ingress_controller_logs_the_address_of_its_client", logs_its_client)]
}

/// Where nginx listens in its pod.
const PORT: u16 = 8000;

/// With the external policy `Local` the client's own address, with `Cluster` that of the node.
fn logs_its_client() {
    let mut rig = rig();
    let controller = FAMILIES.map(|family| {
        let mut slice = slice(&rig, (1, "a"), family, "1:local");
        slice["ports"][0]["port"] = PORT.into();
        slice
    });
    let application = slices(&rig, 2, "2 3:local");
    put(&mut rig, [controller.to_vec(), application, vec![balanced(2, &json!({}))]].concat());
    let nginx = Nginx::start(&rig);
    for policy in ["Local", "Cluster"] {
        put(&mut rig, [balanced(1, &json!({"externalTrafficPolicy": policy}))]);
        for (family, to) in FAMILIES.into_iter().flat_map(|f| [To::LoadBalancer, To::NodePort].map(|to| (f, to))) {
            let known = nginx.clients().len();
            let answer = rig.ask(From::External, Protocol::Tcp, target(&rig, 1, to, family)).unwrap();
            assert!(["backend-2", "backend-3"].contains(&&*answer.name), "{answer:?}");
            assert_eq!(answer.source, rig.own_address(From::Endpoint, family), "a pod's request to the application");
            // It logs what it has done.
            eventually("the request is logged", || nginx.clients().len() > known);
            let gateway = rig.network.backends[0].gateway;
            let node: [IpAddr; 2] = [gateway.ipv4.into(), gateway.ipv6.into()];
            let client = nginx.clients()[known];
            match policy {
                "Local" => assert_eq!(client, rig.own_address(From::External, family), "{to:?}"),
                _ => assert!(node.contains(&client), "{family} {to:?} {client}"),
            }
        }
    }
}

/// A running nginx that hands everything on. It is killed when this value is dropped.
struct Nginx {
    _process: Daemon,
    directory: TempDir,
}

impl Nginx {
    /// In the first backend's pod, for the application, which is the second Service; when this returns, it listens.
    fn start(rig: &GoldenRig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let [four, six] = FAMILIES.map(|family| target(rig, 2, To::ClusterIp, family));
        fs::write(file("nginx.conf"), configuration(&directory, [&four.to_string(), &six.to_string()])).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg("stderr").arg("-p").arg(directory.path()).arg("-c").arg(file("nginx.conf"));
        let pod = &rig.network.backends[0].namespace;
        let mut process = Daemon::start(pod, &mut command, &file("errors")).unwrap();
        let listens = || {
            process.check().unwrap();
            pod.run(|| Ok(std::net::TcpStream::connect(("::1", PORT)).is_ok())).unwrap()
        };
        eventually("nginx listens", listens);
        Self { _process: process, directory }
    }

    /// Whom it served, in this order.
    fn clients(&self) -> Vec<IpAddr> {
        let log = fs::read_to_string(self.directory.path().join("access")).unwrap_or_default();
        log.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// One process, which writes in its own directory only.
fn configuration(directory: &TempDir, [four, six]: [&str; 2]) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.iter().map(|name| format!("{name}_temp_path {name};\n")).collect();
    let path = directory.path().display();
    format!(
        "daemon off;
         master_process off;
         pid {path}/pid;
         events {{}}
         http {{
             {temporary}
             log_format client $remote_addr;
             access_log {path}/access client;
             server {{ listen {PORT}; location / {{ proxy_pass http://{four}; }} }}
             server {{ listen [::]:{PORT} ipv6only=on; location / {{ proxy_pass http://{six}; }} }}
         }}\n"
    )
}
