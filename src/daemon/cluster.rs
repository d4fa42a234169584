//! The cluster as a source of a running daemon: followed on a task of its own, which ends with this value.

use super::message::News;
use super::trouble::{STAYS, Trouble};
use crate::config::{Cluster as Connection, Config};
use crate::metrics::{ApiRequest, Metrics};
use crate::source::kube::{
    self, Access, AccessError, Events, Exchange, Failure, Kind, RequestObserver, Settings, Timing, Told,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::AbortHandle;
use tracing::warn;

/// How long a program that does one thing and ends waits for the Node object.
const SHORT_NODE_PATIENCE: Duration = Duration::from_secs(2);

/// A cluster that is followed.
#[derive(Debug)]
pub struct Cluster {
    /// What the task tells. It is folded already, so what waits here is small.
    told: UnboundedReceiver<Told>,
    task: AbortHandle,
    troubles: BTreeMap<Kind, Trouble>,
}

impl Cluster {
    /// Begins to follow the cluster. Nothing is known before the first news.
    pub fn follow(settings: Settings) -> Self {
        let (sender, told) = unbounded_channel();
        let task = tokio::spawn(async move {
            // Whoever does not listen any more has dropped this task too.
            kube::follow(settings, |told| _ = sender.send(told)).await
        });
        let trouble = |kind: Kind| (kind, Trouble::with(kind.name(), STAYS));
        Self { told, task: task.abort_handle(), troubles: Kind::ALL.into_iter().map(trouble).collect() }
    }

    /// The next news; what else is told goes to the log. Nothing is lost if this is dropped before it returns.
    ///
    /// # Errors
    /// When the task is gone, which only a panic in it does.
    pub async fn news(&mut self) -> anyhow::Result<News> {
        loop {
            match self.told.recv().await {
                Some(Told::News(news)) => return Ok(with_notices_logged(news)),
                Some(Told::Reading(kind, failure)) => self.note(kind, failure.as_ref()),
                None => anyhow::bail!("the cluster is followed no more; the kernel stays as it is"),
            }
        }
    }

    /// The first news.
    ///
    /// # Errors
    /// The first failure, for one who does not want to wait for better times.
    pub async fn first_news(&mut self) -> anyhow::Result<News> {
        loop {
            match self.told.recv().await {
                Some(Told::News(news)) => return Ok(with_notices_logged(news)),
                Some(Told::Reading(kind, Some(failure))) => {
                    return Err(anyhow::Error::new(failure).context(format!("cannot read {kind}")));
                }
                Some(Told::Reading(_, None)) => {}
                None => anyhow::bail!("the cluster cannot be followed"),
            }
        }
    }

    fn note(&mut self, kind: Kind, failure: Option<&Failure>) {
        if let Some(trouble) = self.troubles.get_mut(&kind) {
            trouble.note_error(failure);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a daemon on the node of this name follows a cluster.
pub fn settings(connection: &Connection, node: &str, metrics: &Arc<Metrics>) -> Settings {
    Settings { observer: observer(metrics), timing: Timing::default(), ..settings_for_once(connection, node) }
}

/// The same for one reading.
pub fn settings_for_once(connection: &Connection, node: &str) -> Settings {
    Settings {
        access: access(connection),
        node: node.to_owned(),
        started: SystemTime::now(),
        timing: Timing { node: SHORT_NODE_PATIENCE, ..Timing::default() },
        observer: RequestObserver::default(),
    }
}

/// Writes Events on a task of its own; nobody to write to without a cluster.
pub fn events(config: &Config, node: &str, metrics: &Arc<Metrics>) -> Option<Events> {
    let crate::config::Input::Cluster(connection) = &config.input else { return None };
    let (events, writer) = Events::new(access(connection), node, observer(metrics));
    tokio::spawn(writer.run());
    Some(events)
}

/// Whether there is a way to the cluster at all: files and a URL that can be used. Whether the server is there is not
/// tried, it may come later.
///
/// # Errors
/// What is missing or wrong.
pub async fn check_access(connection: &Connection) -> Result<(), AccessError> {
    access(connection).client(&RequestObserver::default()).await.map(drop)
}

fn access(connection: &Connection) -> Access {
    Access { kubeconfig: connection.kubeconfig.clone(), master: connection.master.clone() }
}

fn observer(metrics: &Arc<Metrics>) -> RequestObserver {
    let metrics = Arc::clone(metrics);
    RequestObserver::new(move |Exchange { method, host, code, took }| {
        metrics.api_request(&ApiRequest { host: &host, method: method.as_str(), status: code, took });
    })
}

fn with_notices_logged(news: kube::News) -> News {
    let kube::News { changes, problems, notices, received, triggers } = news;
    for notice in notices {
        match notice {
            kube::Notice::NodeUnknown | kube::Notice::NodeGone => warn!("{notice}"),
        }
    }
    News { changes, problems, received, triggers }
}
