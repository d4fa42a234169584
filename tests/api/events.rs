//! Events about this node and its Services, as kube-proxy writes them.

use crate::access::assert_allowed;
use crate::api_server::{Answer, ApiServer, Fault, Verb};
use crate::follower::settings;
use crate::objects::NODE;
use ipvsd::source::kube::{Events, Occurrence};
use ipvsd::state::ObjectName;
use serde_json::Value;
use tempfile::TempDir;

/// Writes these and waits until that is done.
fn write(server: &ApiServer, occurrences: Vec<Occurrence>) {
    let directory = TempDir::new().unwrap();
    let settings = settings(server.kubeconfig(directory.path()));
    let (events, writer) = Events::new(settings.access, NODE, settings.observer);
    occurrences.into_iter().for_each(|occurrence| events.write(occurrence));
    drop(events);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(writer.run());
}

fn fields(event: &Value) -> Vec<&str> {
    let text = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
    let pointers = [
        "/metadata/namespace",
        "/type",
        "/reason",
        "/action",
        "/note",
        "/regarding/kind",
        "/regarding/namespace",
        "/regarding/name",
        "/reportingController",
        "/reportingInstance",
    ];
    pointers.into_iter().map(text).collect()
}

#[test]
fn events_have_the_names_of_kube_proxy() {
    let server = ApiServer::start();
    let service = ObjectName::new("shop", "web");
    write(
        &server,
        vec![
            Occurrence::Starting,
            Occurrence::HealthServerFailed("in use".into()),
            Occurrence::MetricsServerFailed("in use".into()),
            Occurrence::ServiceHealthServerFailed(service, "in use".into()),
        ],
    );
    let written = server.written();
    let of_node = ["Node", "-", NODE, "kube-proxy", "kube-proxy-worker-1"];
    let of_service = ["Service", "shop", "web", "kube-proxy", "kube-proxy-worker-1"];
    for (event, (beginning, end)) in written.iter().zip([
        (["default", "Normal", "Starting", "StartKubeProxy", "-"], of_node),
        (["default", "Warning", "FailedToStartProxierHealthcheck", "StartKubeProxy", "in use"], of_node),
        (["default", "Warning", "FailedToStartMetricServer", "StartKubeProxy", "in use"], of_node),
        (["shop", "Warning", "FailedToStartServiceHealthcheck", "Listen", "in use"], of_service),
    ]) {
        assert_eq!(fields(event), [beginning, end].concat());
    }
    assert_eq!(written.len(), 4);
    assert_eq!(server.kinds_of_requests().into_iter().collect::<Vec<_>>(), ["Create events.events.k8s.io"]);
}

#[test]
fn the_same_event_again_counts_up_the_first() {
    let server = ApiServer::start();
    write(&server, vec![Occurrence::Starting, Occurrence::Starting]);
    assert_eq!(server.written()[1].pointer("/series/count"), Some(&2.into()));
    assert_eq!(server.records()[1].verb, Verb::Patch);
    assert_allowed(&server);
}

#[test]
fn an_event_that_cannot_be_written_is_lost_and_the_next_one_is_not() {
    let server = ApiServer::start();
    server.fault(Fault::once(Answer::Status(403, None)).verb(Verb::Create));
    write(&server, vec![Occurrence::Starting, Occurrence::MetricsServerFailed("in use".into())]);
    assert_eq!(server.written().len(), 1);
}
