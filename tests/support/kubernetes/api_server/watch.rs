//! Watches: what is there, what changes, bookmarks, and how they end.

use super::selector::Selector;
use super::serve::{Ended, Writer, status};
use super::{Kick, Record, Shared, Streams};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};

/// The buffer of Go's HTTP server, in bytes.
const PIECE: usize = 4096;

/// Kind and API version.
type Kind = (&'static str, &'static str);

/// Serves a watch to its end.
pub async fn run(shared: &Shared, record: &Record, kind: Kind, writer: Writer) {
    let mut changed = shared.changed.subscribe();
    let mut kicks = shared.kicks.subscribe();
    let seconds = record.parameter("timeoutSeconds").parse().unwrap_or(1800);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut watch = Watch { shared, kind, selector: Selector::of(record), place: 0, writer };
    if watch.begin(record).await.is_err() {
        return;
    }
    loop {
        changed.mark_unchanged();
        if watch.catch_up().await.is_err() {
            return;
        }
        let going = tokio::select! {
            // What a test does to the watch comes before what it does to the objects after that.
            biased;
            kick = kicks.recv() => watch.kick(kick).await,
            _ = changed.changed() => Ok(()),
            () = watch.writer.closed() => Err(Ended),
            () = sleep_until(end) => {
                _ = watch.bookmark(false).await;
                Err(Ended)
            }
        };
        if going.is_err() {
            return;
        }
    }
}

struct Watch<'a> {
    shared: &'a Shared,
    kind: Kind,
    selector: Selector,
    /// The version up to which everything was sent.
    place: u64,
    writer: Writer,
}

impl Watch<'_> {
    /// What is sent before the first change.
    async fn begin(&mut self, record: &Record) -> Result<(), Ended> {
        if let Ok(version @ 1..) = record.parameter("resourceVersion").parse() {
            self.place = version;
            if !self.shared.lock().store.knows(version) {
                return self.error(410, "too old resource version").await;
            }
            return Ok(());
        }
        let (objects, version, streams) = {
            let inner = self.shared.lock();
            (inner.store.matching(self.kind.0, &self.selector), inner.store.version(), inner.streams)
        };
        self.place = version;
        let lines = objects.iter().map(|object| line("ADDED", &object.text));
        for piece in pieces(lines) {
            self.writer.write(piece).await?;
        }
        if record.is_stream() && streams == Streams::Sent { self.bookmark(true).await } else { Ok(()) }
    }

    async fn catch_up(&mut self) -> Result<(), Ended> {
        let (events, version) = self.shared.lock().store.events_after(self.place, self.kind.0, &self.selector);
        self.place = version;
        for (kind, object) in events {
            self.line(kind, &object.text).await?;
        }
        Ok(())
    }

    async fn kick(&mut self, kick: Result<Kick, broadcast::error::RecvError>) -> Result<(), Ended> {
        match kick {
            Ok(Kick::Bookmark) => self.bookmark(false).await,
            Ok(Kick::Error(code)) => self.error(code, "a fault was asked for").await,
            Ok(Kick::Cut) => self.writer.cut().await,
            Ok(Kick::CutWithinLine) => {
                self.writer.write(b"{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Ser".to_vec()).await?;
                self.writer.cut().await
            }
            Ok(Kick::Garbage) => self.writer.write(b"no JSON at all\n".to_vec()).await,
            Ok(Kick::Hang) => {
                self.writer.closed().await;
                Err(Ended)
            }
            Ok(Kick::End) | Err(_) => Err(Ended),
        }
    }

    async fn bookmark(&mut self, ends_list: bool) -> Result<(), Ended> {
        let (kind, api_version) = self.kind;
        let mut metadata = json!({"resourceVersion": self.place.to_string(), "creationTimestamp": null});
        if ends_list {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "spec": {}});
        self.line("BOOKMARK", &object.to_string()).await
    }

    async fn error(&mut self, code: u16, message: &str) -> Result<(), Ended> {
        self.line("ERROR", &status(code, message)).await?;
        Err(Ended)
    }

    async fn line(&mut self, kind: &str, object: &str) -> Result<(), Ended> {
        self.writer.write(line(kind, object)).await
    }
}

/// `type` comes first, as the real server writes it.
fn line(kind: &str, object: &str) -> Vec<u8> {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into_bytes()
}

/// As many lines in each as the real server gathers before it sends what it has.
fn pieces(mut lines: impl Iterator<Item = Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let mut piece = lines.next()?;
        while piece.len() < PIECE {
            let Some(line) = lines.next() else { break };
            piece.extend(line);
        }
        Some(piece)
    })
}
