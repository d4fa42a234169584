//! The real thing: etcd and kube-apiserver as processes of this test, with a certificate and tokens of its own.

use super::api_server::{Certificates, Credentials, write_kubeconfig};
use super::follower::Truth;
use http::{Method, Request};
use ipvsd::source::kube::{Access, RequestObserver};
use kube::Client;
use serde_json::Value;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The directory of programs, as the tools of kubebuilder have it.
pub fn assets() -> Option<PathBuf> {
    std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from)
}

/// How long an API server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// Users: name, group.
const USERS: [(&str, &str); 3] =
    [("admin", "system:masters"), ("system:kube-proxy", "kube-proxy"), ("nobody", "nobodies")];

/// etcd and an API server that run until this is dropped.
pub struct ControlPlane {
    directory: TempDir,
    address: SocketAddr,
    certificates: Certificates,
    /// Flags besides the usual ones.
    flags: Vec<String>,
    api_server: Child,
    etcd: Child,
    /// As admin.
    client: Client,
    runtime: Runtime,
}

impl ControlPlane {
    /// Starts both, the API server with more flags, and waits until it is ready.
    pub fn start(flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let certificates = Certificates::new(address.ip());
        write_files(directory.path(), &certificates);
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let etcd = start_etcd(directory.path());
        let api_server = start_api_server(directory.path(), address, &flags);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let kubeconfig = kubeconfig(directory.path(), address, &certificates, "admin");
        let access = Access { kubeconfig: Some(kubeconfig), master: None };
        let client = runtime.block_on(access.client(&RequestObserver::default())).unwrap();
        let mut plane = Self { directory, address, certificates, flags, api_server, etcd, client, runtime };
        plane.wait_until_ready();
        plane
    }

    /// A kubeconfig file for a user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        kubeconfig(self.directory.path(), self.address, &self.certificates, user)
    }

    /// The same for one who reaches the API server at another address.
    pub fn kubeconfig_at(&self, address: SocketAddr, user: &str) -> PathBuf {
        kubeconfig(self.directory.path(), address, &self.certificates, user)
    }

    /// Where the API server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the API server with SIGKILL and starts it again on the same data.
    pub fn restart_api_server(&mut self) {
        end(&mut self.api_server);
        self.api_server = start_api_server(self.directory.path(), self.address, &self.flags);
        self.wait_until_ready();
    }

    /// Creates or changes an object.
    pub fn put(&self, object: &Value) {
        self.apply(&path_of(object), object);
    }

    /// Changes an object's status.
    pub fn put_status(&self, object: &Value) {
        self.apply(&format!("{}/status", path_of(object)), object);
    }

    /// Deletes an object.
    pub fn delete(&self, object: &Value) {
        self.request(Method::DELETE, &path_of(object), None).unwrap();
    }

    /// The answer to a request for something.
    pub fn get(&self, path: &str) -> Value {
        self.request(Method::GET, path, None).unwrap()
    }

    fn apply(&self, path: &str, object: &Value) {
        self.request(Method::PATCH, &format!("{path}?fieldManager=test&force=true"), Some(object)).unwrap();
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, kube::Error> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request =
            Request::builder().method(method).uri(path).header("content-type", "application/apply-patch+yaml");
        self.runtime.block_on(self.client.request(request.body(body).unwrap()))
    }

    fn wait_until_ready(&mut self) {
        let latest = Instant::now() + PATIENCE;
        let ready = || self.runtime.block_on(self.client.request_text(Request::get("/readyz").body(vec![]).unwrap()));
        while ready().is_err() {
            let has_ended = self.api_server.try_wait().unwrap().is_some();
            if has_ended || Instant::now() > latest {
                let log = fs::read_to_string(self.directory.path().join("kube-apiserver.log")).unwrap_or_default();
                panic!("kube-apiserver is not ready: {:#?}", log.lines().rev().take(5).collect::<Vec<_>>());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Truth for ControlPlane {
    fn objects(&self, kind: &str) -> Vec<Value> {
        let path = match kind {
            "Service" => "/api/v1/services",
            _ => "/apis/discovery.k8s.io/v1/endpointslices",
        };
        self.get(path)["items"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        end(&mut self.api_server);
        end(&mut self.etcd);
    }
}

fn write_files(directory: &Path, certificates: &Certificates) {
    let tokens: Vec<_> = USERS.iter().map(|(user, group)| format!("token-of-{user},{user},{user},{group}\n")).collect();
    let service_accounts = rcgen::KeyPair::generate().unwrap();
    for (name, text) in [
        ("server.crt", &certificates.server.certificate),
        ("server.key", &certificates.server.key),
        ("service-accounts.key", &service_accounts.serialize_pem()),
        ("service-accounts.pub", &service_accounts.public_key_pem()),
        ("tokens.csv", &tokens.concat()),
    ] {
        fs::write(directory.join(name), text).unwrap();
    }
}

fn kubeconfig(directory: &Path, address: SocketAddr, certificates: &Certificates, user: &str) -> PathBuf {
    let folder = directory.join(user);
    fs::create_dir_all(&folder).unwrap();
    write_kubeconfig(&folder, address, certificates, &Credentials::Token(&format!("token-of-{user}")))
}

/// On sockets in the directory: the API server's port is the only one that is taken.
fn start_etcd(directory: &Path) -> Child {
    let at = directory.display();
    start(
        directory,
        "etcd",
        &[
            "--name=test".to_owned(),
            format!("--data-dir={at}/etcd"),
            format!("--listen-client-urls=unix://{at}/etcd.sock"),
            format!("--listen-peer-urls=unix://{at}/peer.sock"),
            // Nobody dials these: there is one member, and the API server knows the socket.
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            "--initial-advertise-peer-urls=http://127.0.0.1:1".to_owned(),
            "--initial-cluster=test=http://127.0.0.1:1".to_owned(),
            "--unsafe-no-fsync".to_owned(),
        ],
    )
}

fn start_api_server(directory: &Path, address: SocketAddr, more: &[String]) -> Child {
    let at = directory.display();
    let mut flags = vec![
        format!("--etcd-servers=unix://{at}/etcd.sock"),
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        "--advertise-address=192.0.2.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={at}"),
        format!("--tls-cert-file={at}/server.crt"),
        format!("--tls-private-key-file={at}/server.key"),
        format!("--token-auth-file={at}/tokens.csv"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={at}/service-accounts.pub"),
        format!("--service-account-signing-key-file={at}/service-accounts.key"),
        "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--shutdown-delay-duration=0s".to_owned(),
    ];
    flags.extend(more.iter().cloned());
    start(directory, "kube-apiserver", &flags)
}

fn start(directory: &Path, program: &str, flags: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(directory.join(format!("{program}.log"))).unwrap();
    let mut command = Command::new(assets().unwrap().join(program));
    command.args(flags).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn end(child: &mut Child) {
    _ = child.kill();
    child.wait().unwrap();
}

fn path_of(object: &Value) -> String {
    let metadata = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    let (namespace, name) = (metadata("namespace"), metadata("name"));
    match object["kind"].as_str() {
        Some("Service") => format!("/api/v1/namespaces/{namespace}/services/{name}"),
        Some("EndpointSlice") => format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}"),
        Some("Node") => format!("/api/v1/nodes/{name}"),
        other => panic!("{other:?} is not of these tests"),
    }
}
