//! The sources of a running daemon: reads them when they change and sends what is news to the wheel.

use super::trouble::Trouble;
use super::wheel::Message;
use crate::config::{Config, Input};
use crate::source::manifests::{Manifests, Watch};
use crate::source::node::NodeWatch;
use anyhow::Context;
use std::sync::mpsc::Sender;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// What trouble with reading a source means.
const STAYS: &str = "what it said before stays in force";

/// Everything a daemon listens to.
#[derive(Debug)]
pub struct Sources {
    manifests: Manifests,
    files: Watch,
    node: NodeWatch,
    manifest_trouble: Trouble,
    node_trouble: Trouble,
}

impl Sources {
    /// Starts to listen, before anything is read, so that no change is missed.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let node = NodeWatch::open().await.context("cannot follow this node's addresses")?;
        let Input::Manifests(directory) = &config.input else {
            anyhow::bail!("there is nothing to read Services from: give --manifests DIR");
        };
        let files = Watch::new(directory);
        let manifest_trouble = Trouble::with("the directory of manifests", STAYS);
        let node_trouble = Trouble::with("this node's network", STAYS);
        Ok(Self { manifests: Manifests::new(directory), files, node, manifest_trouble, node_trouble })
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

    fn read_manifests(&mut self) -> Option<Message> {
        let update = self.manifest_trouble.note(self.manifests.load())?;
        Some(Message::Manifests(update.changes, update.problems))
    }

    async fn read_node(&mut self) -> Option<Message> {
        let node = self.node_trouble.note(self.node.read().await)?;
        Some(Message::Node(node))
    }
}
