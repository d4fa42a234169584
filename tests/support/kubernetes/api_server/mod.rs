//! A small Kubernetes API server for tests: real HTTPS, lists and watches as the real one has them, and faults on
//! demand. It runs on a thread of its own, in the network namespace of whoever starts it, until it is dropped.
//!
//! What it does not do: validation, defaults, admission, RBAC (it records what was asked instead).

mod fault;
mod kubeconfig;
mod record;
mod selector;
mod serve;
mod store;
mod tls;
mod watch;

pub use fault::{Answer, Fault, Kick};
pub use kubeconfig::{Credentials, write_kubeconfig};
pub use record::{Record, Verb};
pub use tls::Certificates;

use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use store::Store;
use tokio::sync::{broadcast, watch as latest};

/// The token that is good from the start.
pub const TOKEN: &str = "first-token";

/// A server that runs.
pub struct ApiServer {
    shared: Arc<Shared>,
    certificates: Arc<Certificates>,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    stop: latest::Sender<bool>,
    thread: JoinHandle<()>,
}

/// What the test and the connections both touch.
struct Shared {
    inner: Mutex<Inner>,
    /// Counts changes of the store, for watches to wait on.
    changed: latest::Sender<u64>,
    /// Commands to all watches.
    kicks: broadcast::Sender<Kick>,
}

struct Inner {
    store: Store,
    faults: Vec<Fault>,
    records: Vec<Record>,
    /// Bearer tokens that are good.
    tokens: HashSet<String>,
    streams: Streams,
    /// Events of the API that were written, as they came.
    written: Vec<Value>,
}

/// What becomes of a request for a list as a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// It is sent.
    Sent,
    /// It is refused, as where the feature gate `WatchList` is off.
    Refused,
    /// The objects are sent and the end of the list is not marked, as before Kubernetes 1.27.
    Overlooked,
}

impl ApiServer {
    /// Starts an empty server on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into())
    }

    /// Starts an empty server on an address.
    pub fn start_at(address: SocketAddr) -> Self {
        let inner = Inner {
            store: Store::default(),
            faults: Vec::new(),
            records: Vec::new(),
            tokens: HashSet::from([TOKEN.to_owned()]),
            streams: Streams::Sent,
            written: Vec::new(),
        };
        let shared =
            Shared { inner: Mutex::new(inner), changed: latest::Sender::new(0), kicks: broadcast::Sender::new(64) };
        let certificates = Arc::new(Certificates::new(address.ip()));
        let mut server = Self { shared: Arc::new(shared), certificates, address, running: None };
        server.resume();
        server
    }

    /// Where it listens, or listened.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections and takes no more.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            stop.send_replace(true);
            thread.join().unwrap();
        }
    }

    /// Listens again, at the same address.
    pub fn resume(&mut self) {
        if self.running.is_none() {
            let listener = std::net::TcpListener::bind(self.address).unwrap();
            listener.set_nonblocking(true).unwrap();
            self.address = listener.local_addr().unwrap();
            let (stop, stopped) = latest::channel(false);
            let (shared, tls) = (Arc::clone(&self.shared), self.certificates.server());
            let serve = move || serve::run(listener, tls, shared, stopped);
            let thread = std::thread::Builder::new().name("api-server".into()).spawn(serve).unwrap();
            self.running = Some(Running { stop, thread });
        }
    }

    /// Creates or changes an object; `kind`, `metadata.name` and, but for a Node, `metadata.namespace` are needed.
    pub fn put(&self, object: Value) {
        self.change(|store| store.put(object));
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        self.change(|store| store.delete(kind, namespace, name));
    }

    /// Forgets the past, so that every watch from before now is answered with 410.
    pub fn compact(&self) {
        self.change(Store::compact);
    }

    /// The objects of a kind.
    pub fn objects(&self, kind: &str) -> Vec<Value> {
        self.lock().store.objects(kind)
    }

    /// Sets what becomes of requests for lists as streams.
    pub fn set_streams(&self, streams: Streams) {
        self.lock().streams = streams;
    }

    /// Takes these tokens and no others.
    pub fn accept_tokens(&self, tokens: &[&str]) {
        self.lock().tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
    }

    /// Answers requests wrongly from now on.
    pub fn fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Answers rightly again.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Whether every fault has been met as often as it was meant to.
    pub fn is_healed(&self) -> bool {
        self.lock().faults.is_empty()
    }

    /// Does something to all watches there are.
    pub fn kick(&self, kick: Kick) {
        _ = self.shared.kicks.send(kick);
    }

    /// How many watches there are.
    pub fn watches(&self) -> usize {
        self.shared.kicks.receiver_count()
    }

    /// Waits until there are as many watches.
    pub fn wait_for_watches(&self, count: usize) {
        while self.watches() != count {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What was asked so far.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// What was asked, each different thing once: verb, group, resource and selectors.
    pub fn kinds_of_requests(&self) -> BTreeSet<String> {
        self.records().iter().map(Record::summary).collect()
    }

    /// The Events that were written.
    pub fn written(&self) -> Vec<Value> {
        self.lock().written.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Store)) {
        change(&mut self.lock().store);
        self.shared.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}
