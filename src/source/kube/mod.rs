//! A Kubernetes cluster: follows its Services, its EndpointSlices and this node's Node object through the API.
//!
//! | file | job |
//! |---|---|
//! | `connection`, `token`, `buffered` | kubeconfig or service account into an HTTP client |
//! | `kind` | what is followed, with which selectors |
//! | `follow` | one kind: list, watch, begin anew |
//! | `exchange`, `lines`, `wire` | requests and answers: bytes, lines, JSON around the objects |
//! | `object`, `node` | one object's JSON into what is kept of it |
//! | `fold`, `collection`, `this_node`, `triggers` | events into changes of the State (pure) |
//! | `events` | writes Events about this node and its Services |
//! | `observe` | counts requests |
//!
//! Whatever fails, nothing is withdrawn: what was said stays in force until the API says otherwise.

mod backoff;
mod buffered;
mod collection;
mod connection;
mod events;
mod exchange;
mod failure;
mod fold;
mod follow;
mod kind;
mod lines;
mod node;
mod object;
mod observe;
mod this_node;
mod token;
mod triggers;
mod wire;

pub use connection::{Access, AccessError};
pub use events::{EventWriter, Events, Occurrence};
pub use failure::Failure;
pub use kind::Kind;
pub use observe::{Exchange, RequestObserver};

use crate::source::convert::{Context, Rules};
use crate::state::{Change, Problem};
use fold::Fold;
use follow::{Follower, Heard, Shared};
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};
use tokio::select;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::sleep;

/// Events that may wait for the fold. Few, because they hold whole objects; a list then comes as fast as it is taken.
const WAITING: usize = 64;

/// How a cluster is followed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The API server.
    pub access: Access,
    /// This node's name.
    pub node: String,
    /// When this process began.
    pub started: SystemTime,
    /// How long to wait for what.
    pub timing: Timing,
    /// Is told of every request.
    pub observer: RequestObserver,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For the head of an answer, and for the next bytes of a list.
    pub answer: Duration,
    /// For the end of a watch at most; the server ends it by itself after four to five fifths of this.
    pub watch: Duration,
    /// After the first failure, at most.
    pub first_retry: Duration,
    /// After many failures.
    pub longest_retry: Duration,
    /// For a reading of the Node object, when everything else is there.
    pub node: Duration,
}

impl Default for Timing {
    /// The waits of a daemon. 30 s for the Node are kube-proxy's; load balancers in front of API servers commonly cut
    /// what is older than 5 min.
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            watch: Duration::from_secs(290),
            first_retry: Duration::from_millis(500),
            longest_retry: Duration::from_secs(30),
            node: Duration::from_secs(30),
        }
    }
}

/// What following a cluster has to say.
#[derive(Debug)]
pub enum Told {
    /// Something changed.
    News(News),
    /// How reading a kind of object goes: why it failed last, or nothing once it works again.
    Reading(Kind, Option<Failure>),
}

/// What came of events that were ready at the same time.
#[derive(Debug)]
pub struct News {
    /// To be applied in this order. The first News has everything; a complete list ends with [`Change::OnlyServices`]
    /// or [`Change::OnlyEndpointSlices`].
    pub changes: Vec<Change>,
    /// Everything that is wrong with objects now, if that may have changed.
    pub problems: Option<Vec<Problem>>,
    /// What to say to people.
    pub notices: Vec<Notice>,
    /// When the first of the events came, or the last one that the first News waited for.
    pub received: Instant,
    /// When the causes of these changes happened, as far as EndpointSlices say it and it was after the start.
    pub triggers: Vec<SystemTime>,
}

/// Something about the Node object that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is not there, has no addresses, or could not be read in time; everything else goes on.
    NodeUnknown,
    /// It was deleted. What it said stays in force.
    NodeGone,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeUnknown => {
                "the cluster has no Node object with addresses for this node: going on without its zone and addresses"
            }
            Self::NodeGone => "this node's Node object was deleted: what it said stays in force",
        })
    }
}

/// Follows the cluster until it is dropped. `tell` is called in order, and must not block for long.
pub async fn follow(settings: Settings, tell: impl FnMut(Told)) -> Infallible {
    let (heard, inbox) = channel(WAITING);
    let shared = Arc::new(Shared {
        access: settings.access,
        observer: settings.observer,
        timing: settings.timing,
        context: Context::new(Rules::Api, &settings.node),
        node: settings.node,
        streams: AtomicBool::new(true),
    });
    let follower = |kind| Follower::new(Arc::clone(&shared), kind, heard.clone()).run();
    select! {
        never = follower(Kind::Services) => never,
        never = follower(Kind::EndpointSlices) => never,
        never = follower(Kind::Node) => never,
        never = gather(inbox, Fold::new(settings.started), &shared, tell) => never,
    }
}

/// Passes on what is heard. Whatever is ready goes into one piece of news, and nothing is waited for.
async fn gather(
    mut inbox: Receiver<(Kind, Heard)>,
    mut fold: Fold,
    shared: &Shared,
    mut tell: impl FnMut(Told),
) -> Infallible {
    let mut node_wait = pin!(sleep(shared.timing.node));
    let mut access = Some(&shared.access);
    loop {
        let now = select! {
            mut next = inbox.recv() => {
                // What is ready together came together: a list has tens of thousands of events.
                let now = Instant::now();
                while let Some((kind, heard)) = next {
                    match heard {
                        Heard::Event(event) => fold.take(kind, event, now),
                        Heard::Failed(failure) => tell(Told::Reading(kind, Some(failure))),
                        Heard::Well => tell(Told::Reading(kind, None)),
                    }
                    next = inbox.try_recv().ok();
                }
                now
            }
            () = &mut node_wait, if fold.waits_for_node() => {
                let now = Instant::now();
                fold.waive_node(now);
                now
            }
        };
        if let Some(mut news) = fold.news(now) {
            // Names can be resolved now, as the server was reached.
            if let Some(access) = access.take() {
                news.changes.insert(0, Change::ApiServers(access.servers().await));
            }
            tell(Told::News(news));
        }
    }
}
