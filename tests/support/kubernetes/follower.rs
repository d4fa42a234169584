//! The client at work: it follows a server on a thread of its own, and everything it says is folded into a State.

use super::api_server::ApiServer;
use super::objects::NODE;
use ipvsd::source::convert::{self, Context, Rules};
use ipvsd::source::kube::{Access, Kind, News, Notice, RequestObserver, Settings, Timing, Told, follow};
use ipvsd::state::{Change, EndpointSlice, ObjectName, Origin, Problem, Service, State};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// What a client should come to know.
pub trait Truth {
    /// The objects of a kind, as the API server has them.
    fn objects(&self, kind: &str) -> Vec<Value>;
}

impl Truth for ApiServer {
    fn objects(&self, kind: &str) -> Vec<Value> {
        self.objects(kind)
    }
}

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that follows.
pub struct Follower {
    seen: Arc<(Mutex<Seen>, Condvar)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: Option<TempDir>,
}

/// What a client has said so far.
#[derive(Default)]
pub struct Seen {
    pub state: State,
    /// The names that are in `state`.
    pub services: BTreeSet<ObjectName>,
    pub slices: BTreeSet<ObjectName>,
    /// Services that were withdrawn, in order.
    pub withdrawn: Vec<String>,
    /// The changes of every News, in words.
    pub news: Vec<Vec<String>>,
    pub problems: Vec<Problem>,
    pub notices: Vec<Notice>,
    pub triggers: Vec<SystemTime>,
    /// What was said of reading: the failure and its causes, or none when it was over.
    pub readings: Vec<(Kind, Option<String>)>,
}

/// Short waits, so that tests are quick; long enough for a busy machine.
pub fn timing() -> Timing {
    Timing {
        answer: Duration::from_secs(5),
        watch: Duration::from_secs(60),
        first_retry: Duration::from_millis(20),
        longest_retry: Duration::from_millis(100),
        node: Duration::from_secs(10),
    }
}

/// Settings for a kubeconfig file.
pub fn settings(kubeconfig: PathBuf) -> Settings {
    Settings {
        access: Access { kubeconfig: Some(kubeconfig), master: None },
        node: NODE.to_owned(),
        started: SystemTime::now(),
        timing: timing(),
        observer: RequestObserver::default(),
    }
}

impl Follower {
    /// Follows `server`.
    pub fn of(server: &ApiServer) -> Self {
        Self::with_timing(server, timing())
    }

    /// Follows `server` with other waits.
    pub fn with_timing(server: &ApiServer, timing: Timing) -> Self {
        let directory = TempDir::new().unwrap();
        let settings = Settings { timing, ..settings(server.kubeconfig(directory.path())) };
        let mut follower = Self::start(settings);
        follower._directory = Some(directory);
        follower
    }

    /// Follows as `settings` say.
    pub fn start(settings: Settings) -> Self {
        let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let told = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let tell = |what| {
                told.0.lock().unwrap().take(what);
                told.1.notify_all();
            };
            runtime.block_on(async {
                tokio::select! {
                    never = follow(settings, tell) => match never {},
                    _ = stopped => {}
                }
            });
        });
        Self { seen, stop: Some(stop), thread: Some(thread), _directory: None }
    }

    /// What was said so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.0.lock().unwrap()
    }

    /// Waits until `condition` holds; `what` says in words what it is.
    pub fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let latest = Instant::now() + PATIENCE;
        let mut seen = self.seen();
        while !condition(&seen) {
            assert!(Instant::now() < latest, "it never came about that {what}; seen: {}", seen.summary());
            // The condition may be about the server too.
            seen = self.seen.1.wait_timeout(seen, Duration::from_millis(5)).unwrap().0;
        }
    }

    /// Waits until the State has what the server has.
    pub fn until_equal_to(&self, server: &impl Truth) {
        self.until("the State equals the truth", |seen| !seen.news.is_empty() && seen.equals(server));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

impl Seen {
    fn take(&mut self, told: Told) {
        match told {
            Told::News(news) => self.take_news(news),
            Told::Reading(kind, failure) => self.readings.push((kind, failure.map(|failure| in_words(&failure)))),
        }
    }

    fn take_news(&mut self, news: News) {
        self.news.push(news.changes.iter().map(word).collect());
        for change in news.changes {
            self.note_names(&change);
            self.state.apply(change);
        }
        self.problems = news.problems.unwrap_or(std::mem::take(&mut self.problems));
        self.notices.extend(news.notices);
        self.triggers.extend(news.triggers);
    }

    fn note_names(&mut self, change: &Change) {
        match change {
            Change::Service(service) => _ = self.services.insert(service.name.clone()),
            Change::ServiceGone(gone) => self.withdraw(|name| name == gone),
            Change::OnlyServices(names) => self.withdraw(|name| !names.contains(name)),
            Change::EndpointSlice(slice) => _ = self.slices.insert(slice.name.clone()),
            Change::EndpointSliceGone(name) => _ = self.slices.remove(name),
            Change::OnlyEndpointSlices(names) => self.slices.retain(|name| names.contains(name)),
            _ => {}
        }
    }

    fn withdraw(&mut self, is_gone: impl Fn(&ObjectName) -> bool) {
        let gone = self.services.extract_if(.., |name| is_gone(name));
        self.withdrawn.extend(gone.map(|name| name.name.to_string()));
    }

    /// Whether the State has the good objects of the server that are ipvsd's, as they are, and no others.
    pub fn equals(&self, server: &impl Truth) -> bool {
        let (services, slices) = (services(server), slices(server));
        let names: BTreeSet<_> = services.iter().map(|service| service.name.clone()).collect();
        let slice_names: BTreeSet<_> = slices.iter().map(|slice| slice.name.clone()).collect();
        names == self.services
            && slice_names == self.slices
            && services.iter().all(|service| self.state.service(&service.name) == Some(service))
            && slices.iter().all(|slice| self.state.slices(&slice.service).any(|known| known == slice))
    }

    /// Whether a failure of reading `kind` was told that has `words` in it.
    pub fn was_told(&self, kind: Kind, words: &str) -> bool {
        self.readings
            .iter()
            .any(|(of, failure)| *of == kind && failure.as_ref().is_some_and(|failure| failure.contains(words)))
    }

    /// Whether reading `kind` works, as far as was told.
    pub fn is_well(&self, kind: Kind) -> bool {
        self.readings.iter().rfind(|(of, _)| *of == kind).is_none_or(|(_, failure)| failure.is_none())
    }

    fn summary(&self) -> String {
        let last = self.news.len().saturating_sub(5);
        format!(
            "services {:?}, slices {}, {} news, the last ones {:?}, readings {:?}, problems {:?}, notices {:?}",
            self.services.iter().take(20).collect::<Vec<_>>(),
            self.slices.len(),
            self.news.len(),
            &self.news[last..],
            self.readings,
            self.problems,
            self.notices
        )
    }
}

fn services(server: &impl Truth) -> Vec<Service> {
    let proxied = |object: &Value| object["spec"]["clusterIP"] != "None";
    let objects = server.objects("Service").into_iter().filter(proxied);
    let context = Context::new(Rules::Api, NODE);
    let read = |object| convert::service(&serde_json::from_value(object).unwrap(), &Origin::Api, &context).unwrap();
    objects.filter_map(read).map(|converted| converted.object).collect()
}

fn slices(server: &impl Truth) -> Vec<EndpointSlice> {
    let context = Context::new(Rules::Api, NODE);
    let read =
        |object| convert::endpoint_slice(&serde_json::from_value(object).unwrap(), &Origin::Api, &context).unwrap();
    server.objects("EndpointSlice").into_iter().filter_map(read).map(|converted| converted.object).collect()
}

fn word(change: &Change) -> String {
    let all = |names: &HashSet<ObjectName>| names.len();
    match change {
        Change::Service(service) => format!("Service {}", service.name.name),
        Change::ServiceGone(name) => format!("no Service {}", name.name),
        Change::EndpointSlice(slice) => format!("EndpointSlice {}", slice.name.name),
        Change::EndpointSliceGone(name) => format!("no EndpointSlice {}", name.name),
        Change::OnlyServices(names) => format!("{} Services", all(names)),
        Change::OnlyEndpointSlices(names) => format!("{} EndpointSlices", all(names)),
        Change::NodeObject(node) => format!("Node in {}", node.zone.as_deref().unwrap_or("no zone")),
        Change::ApiServers(addresses) => format!("{} API server", addresses.len()),
        Change::Doubt(doubt) => format!("doubt {doubt}"),
        other => format!("{other:?}"),
    }
}

/// An error with its causes.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// The name of a Service or EndpointSlice of the tests.
pub fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}
