//! A client that reads what the daemon reads and does nothing with it: what is left when all of the daemon's own work is
//! taken away.

use http::Request;
use http_body_util::BodyExt;
use ipvsd::source::kube::{Access, RequestObserver};
use kube::Client as Connection;
use kube::client::Body;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that has read both lists and watches EndpointSlices.
pub struct Client {
    /// When each event came.
    events: Receiver<Instant>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Reads both lists. Returns how long that took, with the connection.
    pub fn start(kubeconfig: PathBuf) -> (Self, Duration) {
        let start = Instant::now();
        let (sender, events) = channel();
        let (listed_sender, listed) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let access = Access { kubeconfig: Some(kubeconfig), master: None };
                let connection = access.client(&RequestObserver::default()).await.unwrap();
                let (nobody, _) = channel();
                tokio::select! {
                    () = follow(&connection, SERVICES, &listed_sender, nobody) => panic!("a watch has ended"),
                    () = follow(&connection, SLICES, &listed_sender, sender) => panic!("a watch has ended"),
                    _ = stopped => {}
                }
            });
        });
        let ends = [(), ()].map(|()| listed.recv_timeout(PATIENCE).unwrap());
        let took = ends.into_iter().max().unwrap().duration_since(start);
        (Self { events, stop: Some(stop), thread: Some(thread) }, took)
    }

    /// When the next event came.
    pub fn event(&self) -> Instant {
        self.events.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Reads a list that goes on as a watch, and tells when the list ends and when each event after that came.
async fn follow(connection: &Connection, path: &str, listed: &Sender<Instant>, events: Sender<Instant>) {
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let request = Request::get(format!("{path}?{query}")).body(Body::empty()).unwrap();
    let mut body = connection.send(request).await.unwrap().into_body();
    let (mut line, mut is_listed) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        for part in frame.unwrap().into_data().unwrap().split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                continue;
            }
            let is_bookmark = line.starts_with(b"{\"type\":\"BOOKMARK\"");
            if is_bookmark && !is_listed {
                is_listed = true;
                listed.send(Instant::now()).unwrap();
            } else if is_listed && !is_bookmark {
                // Nobody wants those of Services.
                _ = events.send(Instant::now());
            }
            line.clear();
        }
    }
}
