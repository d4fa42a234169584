//! The sources of a running daemon: reads them when they change and sends what is news to the wheel.

use super::journal::error_with_causes;
use super::wheel::Message;
use crate::config::Config;
use crate::source::manifests::{Manifests, Watch};
use crate::source::node::NodeWatch;
use anyhow::Context;
use std::sync::mpsc::Sender;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

/// Everything a daemon listens to.
#[derive(Debug)]
pub struct Sources {
    manifests: Manifests,
    files: Watch,
    node: NodeWatch,
    /// Why the directory could not be read the last time, so that it is said once.
    unreadable: Option<String>,
}

impl Sources {
    /// Starts to listen, before anything is read, so that no change is missed.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let node = NodeWatch::open().await.context("cannot follow this node's addresses")?;
        let files = Watch::new(&config.manifests);
        Ok(Self { manifests: Manifests::new(&config.manifests), files, node, unreadable: None })
    }

    /// The first reading of everything.
    pub async fn first(&mut self) -> anyhow::Result<[Message; 2]> {
        let node = self.node.read().await.context("cannot read this node's addresses")?;
        let update = self.manifests.load()?;
        Ok([Message::Node(node), Message::Manifests(update.changes, update.problems)])
    }

    /// Sends news until a signal says to stop.
    ///
    /// # Errors
    /// When the wheel is gone (`end`).
    pub async fn watch(mut self, wheel: &Sender<Message>, mut end: oneshot::Receiver<()>) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        loop {
            let news = select! {
                () = self.files.changed() => self.read_manifests(),
                () = self.node.changed() => self.read_node().await,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = &mut end => anyhow::bail!("the reconciler ended by itself"),
            };
            if let Some(message) = news {
                wheel.send(message).context("the reconciler ended by itself")?;
            }
        }
    }

    /// What cannot be read changes nothing.
    fn read_manifests(&mut self) -> Option<Message> {
        match self.manifests.load() {
            Ok(update) => {
                if self.unreadable.take().is_some() {
                    info!("the directory of manifests can be read again");
                }
                Some(Message::Manifests(update.changes, update.problems))
            }
            Err(error) => {
                let text = error_with_causes(&error);
                if self.unreadable.as_ref() != Some(&text) {
                    warn!("what was read before stays in force: {text}");
                }
                self.unreadable = Some(text);
                None
            }
        }
    }

    async fn read_node(&mut self) -> Option<Message> {
        match self.node.read().await {
            Ok(node) => Some(Message::Node(node)),
            Err(error) => {
                warn!("this node's addresses are taken to be what they were: {}", error_with_causes(&error));
                None
            }
        }
    }
}
