//! The sources of a running daemon: reads them when they change and sends what is news to the wheel.

use super::cluster::{self, Cluster};
use super::message::{Message, News};
use super::trouble::{STAYS, Trouble};
use crate::config::{Config, Input};
use crate::metrics::Metrics;
use crate::source::manifests::{self, Manifests, Watch};
use crate::source::node::NodeWatch;
use crate::state::{Change, Problem};
use anyhow::Context;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;
use tokio::select;
use tokio::sync::oneshot;

/// Everything a daemon listens to.
#[derive(Debug)]
pub struct Sources {
    services: Services,
    node: NodeWatch,
    node_trouble: Trouble,
}

/// Where Services come from.
#[derive(Debug)]
enum Services {
    Directory(Box<Directory>),
    Cluster(Cluster),
}

/// A directory of manifests.
#[derive(Debug)]
struct Directory {
    manifests: Manifests,
    files: Watch,
}

impl Directory {
    fn read(&mut self) -> Result<News, manifests::Error> {
        let Self { manifests, files } = self;
        let manifests::Update { changes, problems } = manifests.load_unless(|file| files.is_being_written(file))?;
        Ok(news(changes, problems))
    }
}

/// Who follows the sources.
#[derive(Clone, Copy, Debug)]
pub struct Listener<'a> {
    /// This node's name.
    pub node: &'a str,
    /// Where requests to the cluster are counted; none for one who reads once and ends.
    pub metrics: Option<&'a Arc<Metrics>>,
}

impl Sources {
    /// Starts to listen, before anything is read, so that no change is missed.
    ///
    /// # Errors
    /// When the kernel does not tell of the node's links.
    pub async fn open(config: &Config, listener: Listener<'_>) -> anyhow::Result<Self> {
        let node = NodeWatch::open().await.context("cannot follow this node's addresses")?;
        let services = Services::open(config, listener);
        Ok(Self { services, node, node_trouble: Trouble::with("this node's network", STAYS) })
    }

    /// What can be read at once: the node, and a directory. A cluster takes its time.
    ///
    /// # Errors
    /// When that cannot be read.
    pub async fn first(&mut self) -> anyhow::Result<Vec<Message>> {
        let node = self.node.read().await.context("cannot read this node's addresses")?;
        let mut messages = vec![Message::Node(node)];
        if let Services::Directory(directory) = &mut self.services {
            messages.push(Message::News(directory.read()?));
        }
        Ok(messages)
    }

    /// The first reading of everything, for one who does not stay.
    ///
    /// # Errors
    /// The first thing that cannot be read.
    pub async fn complete(&mut self) -> anyhow::Result<Vec<Message>> {
        let mut messages = self.first().await?;
        if let Services::Cluster(cluster) = &mut self.services {
            messages.push(Message::News(cluster.first_news().await?));
        }
        Ok(messages)
    }

    /// Sends news, without end.
    ///
    /// # Errors
    /// When the wheel is gone (`end`), or the cluster is followed no more.
    pub async fn watch(
        &mut self,
        wheel: &Sender<Message>,
        mut end: oneshot::Receiver<()>,
    ) -> anyhow::Result<Infallible> {
        loop {
            let message = select! {
                news = self.services.changed() => news?.map(Message::News),
                () = self.node.changed() => self.read_node().await,
                _ = &mut end => anyhow::bail!("the reconciler ended by itself"),
            };
            if let Some(message) = message {
                wheel.send(message).context("the reconciler ended by itself")?;
            }
        }
    }

    async fn read_node(&mut self) -> Option<Message> {
        let node = self.node_trouble.note(self.node.read().await)?;
        Some(Message::Node(node))
    }
}

impl Services {
    fn open(config: &Config, listener: Listener<'_>) -> Self {
        match &config.input {
            Input::Manifests(directory) => {
                // Before the first reading, so that no change is missed.
                let files = Watch::new(directory);
                let manifests = Manifests::new(directory, listener.node);
                Self::Directory(Box::new(Directory { manifests, files }))
            }
            Input::Cluster(connection) => {
                let settings = match listener.metrics {
                    Some(metrics) => cluster::settings(connection, listener.node, metrics),
                    None => cluster::settings_for_once(connection, listener.node),
                };
                Self::Cluster(Cluster::follow(settings))
            }
        }
    }

    /// The next news, if a change brought any.
    async fn changed(&mut self) -> anyhow::Result<Option<News>> {
        match self {
            Self::Directory(directory) => {
                directory.files.changed().await;
                let read = directory.read();
                Ok(Some(read.unwrap_or_else(|error| news(Vec::new(), directory.manifests.problems_with(&error)))))
            }
            Self::Cluster(cluster) => cluster.news().await.map(Some),
        }
    }
}

fn news(changes: Vec<Change>, problems: Vec<Problem>) -> News {
    News { changes, problems: Some(problems), received: Instant::now(), triggers: Vec::new() }
}
