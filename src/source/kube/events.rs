//! Writes Events (events.k8s.io/v1) about this node and its Services, with kube-proxy's names, which people and alerts
//! know. They are a courtesy: one that cannot be written is lost, and nobody waits for it.

use super::connection::Access;
use super::observe::RequestObserver;
use crate::state::ObjectName;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use tracing::debug;

/// In whose name the Events are.
const CONTROLLER: &str = "kube-proxy";
/// Events that may wait to be written; more are lost.
const WAITING: usize = 64;
/// How long writing one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that the cluster's users should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// The proxy on this node begins.
    Starting,
    /// Rules balance where IPVS was asked for; why.
    FellBack(String),
    /// The kernel has IPVS by now; what follows from it.
    IpvsAppeared(String),
    /// The health server cannot listen; why.
    HealthServerFailed(String),
    /// The metrics server cannot listen; why.
    MetricsServerFailed(String),
    /// The health check of a Service (`spec.healthCheckNodePort`) cannot listen; why.
    ServiceHealthServerFailed(ObjectName, String),
}

/// Takes Events to be written; clones write to the same cluster.
#[derive(Clone, Debug)]
pub struct Events(Sender<Occurrence>);

impl Events {
    /// A handle for a node of this name, and what writes for it.
    pub fn new(access: Access, node: &str, observer: RequestObserver) -> (Self, EventWriter) {
        let (sender, inbox) = channel(WAITING);
        (Self(sender), EventWriter { inbox, access, node: node.to_owned(), observer })
    }

    /// Hands over an Event. Never blocks; may be called from any thread.
    pub fn write(&self, occurrence: Occurrence) {
        if let Err(error) = self.0.try_send(occurrence) {
            debug!("an Event is lost: {error}");
        }
    }
}

/// Writes what the handles take.
#[derive(Debug)]
pub struct EventWriter {
    inbox: Receiver<Occurrence>,
    access: Access,
    node: String,
    observer: RequestObserver,
}

impl EventWriter {
    /// Writes until every handle is dropped.
    pub async fn run(mut self) {
        let mut recorder = None;
        while let Some(occurrence) = self.inbox.recv().await {
            if recorder.is_none() {
                recorder = self.recorder().await;
            }
            let Some(ready) = &recorder else { continue };
            let (event, about) = event(&occurrence, &self.node);
            match timeout(PATIENCE, ready.publish(&event, &about)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => debug!("an Event is lost: {occurrence:?}: {error}"),
                Err(_) => debug!("an Event is lost: {occurrence:?}: no answer"),
            }
            // With the credentials of then.
            recorder = None;
        }
    }

    async fn recorder(&self) -> Option<Recorder> {
        let client = self.access.client(&self.observer).await;
        let client = client.inspect_err(|error| debug!("an Event is lost: {error}")).ok()?;
        let instance = Some(format!("{CONTROLLER}-{}", self.node));
        Some(Recorder::new(client, Reporter { controller: CONTROLLER.to_owned(), instance }))
    }
}

/// The Event, and the object that it is about.
fn event(occurrence: &Occurrence, node: &str) -> (Event, ObjectReference) {
    let (type_, reason, action, note) = match occurrence {
        Occurrence::Starting => (EventType::Normal, "Starting", "StartKubeProxy", None),
        Occurrence::FellBack(why) => (EventType::Warning, "FallbackToIptables", "StartKubeProxy", Some(why)),
        Occurrence::IpvsAppeared(what) => (EventType::Normal, "IPVSAvailable", "CheckKernel", Some(what)),
        Occurrence::HealthServerFailed(why) => {
            (EventType::Warning, "FailedToStartProxierHealthcheck", "StartKubeProxy", Some(why))
        }
        Occurrence::MetricsServerFailed(why) => {
            (EventType::Warning, "FailedToStartMetricServer", "StartKubeProxy", Some(why))
        }
        Occurrence::ServiceHealthServerFailed(_, why) => {
            (EventType::Warning, "FailedToStartServiceHealthcheck", "Listen", Some(why))
        }
    };
    let event = Event { type_, reason: reason.into(), note: note.cloned(), action: action.into(), secondary: None };
    match occurrence {
        Occurrence::ServiceHealthServerFailed(service, _) => (event, about_service(service)),
        _ => (event, about_node(node)),
    }
}

/// As kube-proxy does, which does not know the uid: the name stands for it.
fn about_node(node: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.into()),
        uid: Some(node.into()),
        ..ObjectReference::default()
    }
}

fn about_service(service: &ObjectName) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Service".into()),
        namespace: Some(service.namespace.to_string()),
        name: Some(service.name.to_string()),
        uid: Some(service.to_string()),
        ..ObjectReference::default()
    }
}
