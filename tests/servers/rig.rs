//! Servers with a clock that the test sets.

use crate::cluster::Cluster;
use crate::objects::NODE;
use ipvsd::health::{Health, SharedHealth, Time};
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::metrics::{Feature, Metrics};
use ipvsd::model::Family::{Ipv4, Ipv6};
use ipvsd::server::{Ask, Binding, Clock, Handler, MetricsPages, Page, Server, Traffic, healthz};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// 2026-11-25T10:00:00Z.
const BEGINNING: u64 = 1_795_600_800;

/// What the servers of a daemon share.
pub struct Rig {
    pub health: SharedHealth,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub verbosity: Arc<AtomicI32>,
    ask: Ask,
    pub traffic: Option<Traffic>,
    seconds: Arc<AtomicU64>,
}

impl Rig {
    /// As kube-proxy starts: with both families, waiting for its Node.
    pub fn new() -> Self {
        Self::about(Cluster::new(FakeKernel::default()).ask())
    }

    /// The same with a reconciler that is asked.
    pub fn about(ask: Ask) -> Self {
        let seconds = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&seconds);
        let clock: Clock = Arc::new(move || at(read.load(Ordering::Relaxed)));
        let health = Health::new([Ipv4, Ipv6], Duration::from_secs(60), false, clock());
        let features = [Feature { name: "AllowServiceExternalIPs", stage: "", enabled: true }];
        let metrics = Arc::new(Metrics::new(&[Ipv4, Ipv6], &features).unwrap());
        let verbosity = Arc::default();
        Self { health: SharedHealth::new(health), metrics, clock, verbosity, ask, traffic: None, seconds }
    }

    /// Sets the clock, in seconds from the beginning.
    pub fn advance_to(&self, second: u64) {
        self.seconds.store(second, Ordering::Relaxed);
    }

    pub fn now(&self) -> Time {
        (self.clock)()
    }

    /// Where the health server listens.
    pub async fn healthz(&self) -> SocketAddr {
        serve(healthz(self.health.clone(), Arc::clone(&self.metrics), Arc::clone(&self.clock))).await
    }

    /// Where the metrics server listens.
    pub async fn metrics_server(&self, profiling: bool) -> SocketAddr {
        let verbosity = Arc::clone(&self.verbosity);
        let pages = MetricsPages {
            metrics: Arc::clone(&self.metrics),
            traffic: self.traffic.clone(),
            health: self.health.clone(),
            clock: Arc::clone(&self.clock),
            started: at(0),
            mode: "ipvs",
            page: Page::new(NODE.into(), "as asked".into(), Arc::clone(&self.ask)),
            configz: Arc::new(|| r#"{"kubeproxy.config.k8s.io":{}}"#.to_owned()),
            flags: [("v", "2"), ("config", "/var/lib/kube-proxy/config.conf")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            set_verbosity: profiling.then(|| {
                Arc::new(move |level| verbosity.store(level, Ordering::Relaxed)) as Arc<dyn Fn(i32) + Send + Sync>
            }),
        };
        serve(pages.handler()).await
    }

    /// The value of a series, as it is written.
    pub fn series(&self, series: &str) -> String {
        let text = self.metrics.render(Duration::ZERO).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in\n{text}")).to_owned()
    }
}

fn at(second: u64) -> Time {
    let monotonic = Duration::from_secs(second);
    Time { monotonic, since_unix_epoch: Duration::from_secs(BEGINNING) + monotonic }
}

/// Serves until the test's runtime ends.
pub async fn serve(handler: Handler) -> SocketAddr {
    let server = Server { name: "test", address: "127.0.0.1:0".parse().unwrap(), hard_fail: true };
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    tokio::spawn(server.run(handler, move |binding| {
        if let (Binding::Bound(address), Some(tell)) = (binding, tell.take()) {
            tell.send(address).unwrap();
        }
    }));
    told.await.unwrap()
}
