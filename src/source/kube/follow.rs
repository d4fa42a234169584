//! Follows one kind of object for ever: lists it, watches it from there, and begins anew where that is lost.
//!
//! `kube`'s own watcher is not used, because it repeats a watch that is answered with HTTP 410 for ever, does not fall
//! back from streaming lists, waits without bound for a list from a server that hangs, takes a watch that ends at once
//! up again at once, and fails a whole list for one object that it cannot decode.
//!
//! A list is read from the state of now, never from a cache that may be behind: what was known must not be undone by a
//! server that knows less.

use super::Timing;
use super::backoff::{Backoff, chance};
use super::connection::Access;
use super::exchange::{Answer, send};
use super::failure::Failure;
use super::kind::Kind;
use super::lines::Lines;
use super::object::{Event, Object};
use super::observe::RequestObserver;
use super::wire::{Identity, Line, Page};
use crate::source::convert::Context;
use bytes::Bytes;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep};
use tracing::debug;

/// Objects in a page of a list, as in client-go.
const PAGE: u32 = 500;
/// As the place where a watch begins: with a list of what is there now.
const NOW: &str = "";
/// A watch that has lived for so long has worked: when it breaks, it is taken up again soon and without a word.
const WORKED: Duration = Duration::from_secs(1);

/// News of one kind.
#[derive(Debug)]
pub(super) enum Heard {
    /// Of the objects.
    Event(Event),
    /// Reading failed and will be tried again.
    Failed(Failure),
    /// Reading works again.
    Well,
}

/// What all followers of a cluster have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub access: Access,
    pub observer: RequestObserver,
    pub timing: Timing,
    /// This node's name.
    pub node: String,
    /// What objects are converted with.
    pub context: Context,
    /// Whether lists are asked for as streams; false for good once the server did not know what that is.
    pub streams: AtomicBool,
}

/// Follows one kind.
pub(super) struct Follower {
    shared: Arc<Shared>,
    kind: Kind,
    heard: Sender<(Kind, Heard)>,
    /// Made anew after failures that new credentials may mend.
    client: Option<Client>,
    /// Up to where everything was told. None before the first complete list, and when the server forgot the place.
    place: Option<String>,
    backoff: Backoff,
    /// Since when the present watch is known to work.
    works_since: Option<Instant>,
    /// Whether a failure was told that is not over.
    is_in_trouble: bool,
    /// Whether the place was lost since a watch last worked. Listing anew for that once more needs a pause.
    was_lost: bool,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, kind: Kind, heard: Sender<(Kind, Heard)>) -> Self {
        let backoff = Backoff::new(shared.timing.first_retry, shared.timing.longest_retry);
        Self {
            shared,
            kind,
            heard,
            client: None,
            place: None,
            backoff,
            works_since: None,
            is_in_trouble: false,
            was_lost: false,
        }
    }

    /// Follows until it is dropped.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            self.works_since = None;
            let outcome = self.list_or_watch().await;
            self.settle(outcome).await;
        }
    }

    /// One list, one watch, or a list that goes on as a watch. Ok where it came to its regular end.
    async fn list_or_watch(&mut self) -> Result<(), Failure> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(self.shared.access.client(&self.shared.observer).await?).clone(),
        };
        match self.place.clone() {
            Some(place) => self.watch(&client, &place).await,
            None => self.stream_or_list(&client).await,
        }
    }

    async fn stream_or_list(&mut self, client: &Client) -> Result<(), Failure> {
        if self.shared.streams.load(Ordering::Relaxed) {
            match self.stream(client).await {
                Err(failure) if self.place.is_none() && failure.refuses_streams() => {
                    debug!("lists are asked for in pages from now on: {failure}");
                    self.shared.streams.store(false, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        self.list(client).await
    }

    /// What to make of how it ended: whether to list anew, whether to say something, how long to wait.
    async fn settle(&mut self, outcome: Result<(), Failure>) {
        if self.has_worked() {
            self.backoff.succeed();
            self.was_lost = false;
        }
        match outcome {
            // A watch that ends at once would otherwise be asked for again without a pause.
            Ok(()) if self.works_since.is_some() && !self.has_worked() => self.wait(None).await,
            Ok(()) => {}
            Err(failure) => self.settle_failure(failure).await,
        }
    }

    /// Whether the watch went well for long enough to count.
    fn has_worked(&self) -> bool {
        self.works_since.is_some_and(|since| since.elapsed() >= WORKED)
    }

    async fn settle_failure(&mut self, failure: Failure) {
        debug!("reading {} failed: {failure:?}", self.kind);
        if failure.asks_for_new_credentials() {
            self.client = None;
        }
        let is_lost = self.place.is_some() && failure.has_expired();
        if failure.needs_a_list() {
            self.place = None;
        }
        // As after every long absence of the server, which has cost enough time.
        if is_lost && !mem::replace(&mut self.was_lost, true) {
            return;
        }
        let retry_after = failure.retry_after();
        if !self.has_worked() && !is_lost {
            self.is_in_trouble = true;
            self.tell(Heard::Failed(failure)).await;
        }
        self.wait(retry_after).await;
    }

    async fn wait(&mut self, retry_after: Option<Duration>) {
        sleep(self.backoff.fail(retry_after, chance())).await;
    }

    /// All pages of a list.
    async fn list(&mut self, client: &Client) -> Result<(), Failure> {
        let mut params = ListParams {
            label_selector: self.kind.labels(),
            field_selector: self.kind.fields(&self.shared.node),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        self.tell(Heard::Event(Event::ListBegins)).await;
        loop {
            let request = Request::new(self.kind.path()).list(&params).map_err(unsendable)?;
            let patience = self.shared.timing.answer;
            let text = send(client, request, patience).await?.whole(patience).await?;
            let page: Page<'_> = serde_json::from_slice(&text)?;
            for item in page.items.unwrap_or_default() {
                self.tell(Heard::Event(Event::Listed(Object::read(self.kind, item, &self.shared.context)))).await;
            }
            if page.metadata.next.is_empty() {
                self.complete(page.metadata.resource_version).await;
                return Ok(());
            }
            params.continue_token = Some(page.metadata.next);
        }
    }

    async fn complete(&mut self, place: String) {
        self.place = Some(place);
        self.tell(Heard::Event(Event::ListEnds)).await;
        self.is_well().await;
    }

    /// A list that is sent as the beginning of a watch, which spares the server from holding all of it at once.
    async fn stream(&mut self, client: &Client) -> Result<(), Failure> {
        let answer = self.ask_for_watch(client, None).await?;
        self.tell(Heard::Event(Event::ListBegins)).await;
        self.read(answer).await
    }

    async fn watch(&mut self, client: &Client, place: &str) -> Result<(), Failure> {
        let answer = self.ask_for_watch(client, Some(place)).await?;
        self.works_since = Some(Instant::now());
        self.is_well().await;
        self.read(answer).await
    }

    /// Asks for a watch from a place on, or for one that begins with a list.
    async fn ask_for_watch(&self, client: &Client, place: Option<&str>) -> Result<Answer, Failure> {
        let timing = &self.shared.timing;
        // Watches that began together, when the server did, must not all end together.
        let length = timing.watch - timing.watch / 5 * chance() / 1000;
        let params = WatchParams {
            label_selector: self.kind.labels(),
            field_selector: self.kind.fields(&self.shared.node),
            timeout: Some(u32::try_from(length.as_secs().max(1)).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: place.is_none(),
        };
        let request = Request::new(self.kind.path()).watch(&params, place.unwrap_or(NOW)).map_err(unsendable)?;
        send(client, request, timing.answer).await
    }

    /// Reads a watch to its end.
    async fn read(&mut self, mut answer: Answer) -> Result<(), Failure> {
        let mut lines = Lines::default();
        while let Some(bytes) = self.next(&mut answer).await? {
            lines.push(&bytes);
            while let Some(line) = lines.next() {
                self.take(&serde_json::from_slice(&line)?).await?;
            }
        }
        if self.place.is_some() { Ok(()) } else { Err(Failure::Broken(None)) }
    }

    /// The next bytes of a watch. The server ends a quiet one by itself; in a list something must come.
    async fn next(&self, answer: &mut Answer) -> Result<Option<Bytes>, Failure> {
        let timing = &self.shared.timing;
        match self.place {
            Some(_) => answer.next(timing.watch + timing.answer).await,
            None => answer.next(timing.answer).await.map_err(|failure| match failure {
                Failure::Silent(_) => Failure::Endless,
                other => other,
            }),
        }
    }

    /// Takes in one line of a watch.
    async fn take(&mut self, line: &Line<'_>) -> Result<(), Failure> {
        let object = |kind| Object::read(kind, line.object, &self.shared.context);
        let is_list = self.place.is_none();
        let event = match &*line.kind {
            "ADDED" | "MODIFIED" if is_list => Event::Listed(object(self.kind)),
            "ADDED" | "MODIFIED" => Event::Changed(object(self.kind)),
            "DELETED" => Event::Gone(object(self.kind)),
            "BOOKMARK" => {
                if is_list {
                    self.bookmark(line.object).await;
                } else {
                    self.advance(line.object);
                }
                return Ok(());
            }
            "ERROR" => return Err(error(line.object)),
            other => {
                debug!("an event of type {other:?} is skipped");
                return Ok(());
            }
        };
        self.tell(Heard::Event(event)).await;
        if !is_list {
            self.advance(line.object);
        }
        Ok(())
    }

    /// A bookmark within a list may be its end, from where the watch goes on.
    async fn bookmark(&mut self, json: &RawValue) {
        let identity = Identity::of(json);
        if let Some(place) = identity.version().filter(|_| identity.ends_the_list()) {
            self.complete(place.into_owned()).await;
            self.works_since = Some(Instant::now());
        }
    }

    fn advance(&mut self, json: &RawValue) {
        if let Some(version) = Identity::of(json).version() {
            self.place = Some(version.into_owned());
        }
    }

    async fn is_well(&mut self) {
        if mem::take(&mut self.is_in_trouble) {
            self.tell(Heard::Well).await;
        }
    }

    /// Nobody listens any more only when this is about to be dropped.
    async fn tell(&self, heard: Heard) {
        _ = self.heard.send((self.kind, heard)).await;
    }
}

/// The Status in a watch that says why it ends.
fn error(json: &RawValue) -> Failure {
    match serde_json::from_str::<Status>(json.get()) {
        Ok(status) => Failure::refused(status.code, &status.message, None),
        Err(error) => Failure::Garbled(error),
    }
}

fn unsendable(error: kube::core::request::Error) -> Failure {
    Failure::Unreachable(Box::new(error))
}
