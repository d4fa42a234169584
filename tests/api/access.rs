//! Who we are to the server, and what we ask of it.

use crate::api_server::{ApiServer, Credentials, Kick, Record, Streams, TOKEN};
use crate::deployment::{Request, Role};
use crate::follower::{Follower, settings};
use crate::objects::{node, service, with};
use ipvsd::source::kube::{Access, AccessError, Exchange, Kind, RequestObserver, Settings};
use serde_json::json;
use std::fs;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A server with one Service.
fn cluster() -> ApiServer {
    let server = ApiServer::start();
    server.put(node("a"));
    server.put(service("web", 1));
    server
}

#[test]
fn a_client_certificate_is_enough() {
    let (server, directory) = (cluster(), TempDir::new().unwrap());
    server.accept_tokens(&[]);
    let follower = Follower::start(settings(server.kubeconfig_with(directory.path(), &Credentials::Certificate)));
    follower.until_equal_to(&server);
}

#[test]
fn a_token_file_is_read_again_when_the_token_is_no_longer_good() {
    let (server, directory) = (cluster(), TempDir::new().unwrap());
    let file = directory.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let follower = Follower::start(settings(server.kubeconfig_with(directory.path(), &Credentials::TokenFile(&file))));
    follower.until_equal_to(&server);

    server.accept_tokens(&["second-token"]);
    server.kick(Kick::Cut);
    follower.until("it is told", |seen| seen.was_told(Kind::Services, "answers 401: Unauthorized"));
    // With the newline that `echo` adds.
    fs::write(&file, "second-token\n").unwrap();
    server.put(service("more", 2));
    follower.until_equal_to(&server);
    assert_eq!(follower.seen().withdrawn.len(), 0);
}

#[test]
fn a_server_with_another_authority_is_told_nothing() {
    let (server, other, directory) = (cluster(), ApiServer::start(), TempDir::new().unwrap());
    let mut settings = settings(other.kubeconfig(directory.path()));
    settings.access.master = Some(format!("https://{}", server.address()));
    let follower = Follower::start(settings);
    follower.until("it is told", |seen| seen.was_told(Kind::Services, "invalid peer certificate"));
    assert_eq!(server.records().len(), 0);
}

#[test]
fn the_master_stands_in_for_the_server_of_the_file() {
    let (server, directory) = (cluster(), TempDir::new().unwrap());
    let path = server.kubeconfig(directory.path());
    let text = fs::read_to_string(&path).unwrap().replace(&server.address().to_string(), "192.0.2.1:1");
    fs::write(&path, text).unwrap();
    let mut settings = settings(path);
    // Without a scheme, as people write it.
    settings.access.master = Some(server.address().to_string());
    let follower = Follower::start(settings);
    follower.until_equal_to(&server);
}

#[test]
fn where_the_servers_are_is_known_with_the_first_news() {
    let (server, directory) = (cluster(), TempDir::new().unwrap());
    let follower = Follower::start(settings(server.kubeconfig(directory.path())));
    follower.until_equal_to(&server);
    assert!(follower.seen().state.has_api_server(server.address()));

    let servers = |master: &str| {
        let access = Access { kubeconfig: None, master: Some(master.to_owned()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(access.servers())
    };
    assert_eq!(servers("https://[fd00::1]:6443"), ["[fd00::1]:6443".parse().unwrap()].into());
    assert!(servers("localhost:6443").contains(&([127, 0, 0, 1], 6443).into()));
    assert_eq!(servers("https://192.0.2.1"), [([192, 0, 2, 1], 443).into()].into());
    assert_eq!(servers("http://192.0.2.1"), [([192, 0, 2, 1], 80).into()].into());
    assert_eq!(servers("https://no-such-name.invalid"), [].into());
}

#[test]
fn what_cannot_be_used_as_access_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("kubeconfig");
    let access = |kubeconfig: Option<&std::path::Path>, master: Option<&str>| Access {
        kubeconfig: kubeconfig.map(Into::into),
        master: master.map(Into::into),
    };
    let refused = |access: Access| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(access.client(&RequestObserver::default())).err().unwrap()
    };
    assert!(matches!(refused(access(Some(&path), None)), AccessError::Kubeconfig { .. }));
    fs::write(&path, "clusters: [{name: a, cluster: {server: 'https://a', proxy-url: 'http://b'}}]").unwrap();
    assert!(matches!(refused(access(Some(&path), None)), AccessError::Proxy(_)));
    assert!(matches!(refused(access(None, Some("https://a b"))), AccessError::Master { .. }));
    assert!(matches!(refused(access(None, None)), AccessError::InCluster(_)));
}

#[test]
fn what_is_asked_for_is_what_kube_proxy_asks_for_and_the_role_allows() {
    let server = cluster();
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    server.wait_for_watches(3);
    server.set_streams(Streams::Refused);
    server.kick(Kick::Error(410));
    follower.until("everything was listed again", |_| server.kinds_of_requests().len() == 6);
    assert_eq!(
        server.kinds_of_requests().into_iter().collect::<Vec<_>>(),
        [
            "List endpointslices.discovery.k8s.io !service.kubernetes.io/headless",
            "List nodes metadata.name=worker-1",
            "List services !service.kubernetes.io/service-proxy-name spec.clusterIP!=None",
            "Watch endpointslices.discovery.k8s.io !service.kubernetes.io/headless",
            "Watch nodes metadata.name=worker-1",
            "Watch services !service.kubernetes.io/service-proxy-name spec.clusterIP!=None",
        ]
    );
    assert_allowed(&server);
}

/// Checks that the role of the deployment allows everything that was asked of a server.
pub fn assert_allowed(server: &ApiServer) {
    let role = Role::of_ipvsd();
    for Record { method, target, .. } in server.records() {
        let request = Request::of_http(&method, &target).unwrap();
        assert!(role.allows(&request), "{method} {target}");
    }
}

#[test]
fn a_service_that_another_proxy_gets_is_gone_and_comes_back() {
    let server = cluster();
    server.put(with(service("theirs", 2), "/metadata/labels", json!({"service.kubernetes.io/service-proxy-name": ""})));
    server.put(with(service("headless", 3), "/spec/clusterIP", json!("None")));
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    server.put(with(service("web", 1), "/metadata/labels", json!({"service.kubernetes.io/service-proxy-name": "x"})));
    follower.until("it is gone", |seen| seen.withdrawn == ["web"]);
    server.put(service("web", 1));
    follower.until_equal_to(&server);
    assert_eq!(follower.seen().services.len(), 1);
}

#[test]
fn every_request_is_observed() {
    let (mut server, directory) = (cluster(), TempDir::new().unwrap());
    let noted: Arc<Mutex<Vec<Exchange>>> = Arc::default();
    let sink = Arc::clone(&noted);
    let observer = RequestObserver::new(move |exchange| sink.lock().unwrap().push(exchange));
    let follower = Follower::start(Settings { observer, ..settings(server.kubeconfig(directory.path())) });
    follower.until_equal_to(&server);
    server.stop();
    follower.until("failures are noted too", |_| noted.lock().unwrap().iter().any(|exchange| exchange.code.is_none()));
    let noted = noted.lock().unwrap();
    assert_eq!(noted.iter().filter(|exchange| exchange.code == Some(200)).count(), 3);
    assert!(noted.iter().all(|exchange| *exchange.host == *server.address().to_string() && exchange.method == "GET"));
}
