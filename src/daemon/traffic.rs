//! What goes through virtual servers, whenever metrics are asked for: reads the kernel's counters off the threads that
//! balance and serve, one reading at a time, and gives up on what takes too long.

use super::trouble::Trouble;
use crate::config::ServiceMetrics;
use crate::inspect::{Answer, Owner, Question};
use crate::kernel::ObserveError;
use crate::kernel::ipvs::handle::{Ipvs, OpenError};
use crate::metrics::Metrics;
use crate::metrics::traffic::{Entry, Names, ServicePort, traffic};
use crate::model::{DestinationKey, Protocol};
use crate::server::{self, Ask, Unanswered};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout};

/// How long a scrape waits for it: half of what Prometheus waits if nobody says.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long of that it waits for names, while the reconciler is in a pass. Those of before do then.
const PATIENCE_FOR_NAMES: Duration = Duration::from_secs(1);

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("IPVS cannot be opened")]
    Unopened(#[from] OpenError),
    #[error("IPVS cannot be read")]
    Unread(#[from] ObserveError),
    #[error("no names are known yet")]
    Nameless,
    #[error("it takes longer than {} s", PATIENCE.as_secs())]
    Late,
    #[error("it ended in a panic")]
    Panicked(#[from] JoinError),
}

/// Reads virtual servers, with destinations or without.
type Read = Arc<dyn Fn() -> Result<Vec<Entry>, Failure> + Send + Sync>;

/// Tells what goes through virtual servers.
struct Teller {
    what: ServiceMetrics,
    ask: Ask,
    read: Read,
    metrics: Arc<Metrics>,
    /// Held by who reads, to the end of the reading.
    last: Arc<Mutex<Last>>,
    trouble: StdMutex<Trouble>,
}

/// What came of the last reading.
#[derive(Default)]
struct Last {
    /// When it began; none before the first.
    began: Option<Instant>,
    /// Kept by those who are answered with it, and by nobody else: it may be large.
    text: Weak<String>,
    names: Option<Arc<Names>>,
}

/// What the metrics server adds to its metrics.
pub fn teller(what: ServiceMetrics, ask: Ask, metrics: &Arc<Metrics>) -> server::Traffic {
    with(what, ask, metrics, Arc::new(move || read(what)))
}

fn with(what: ServiceMetrics, ask: Ask, metrics: &Arc<Metrics>, read: Read) -> server::Traffic {
    let trouble = StdMutex::new(Trouble::with("what goes through Services", "the metrics do without it"));
    let teller = Teller { what, ask, read, metrics: Arc::clone(metrics), last: Arc::default(), trouble };
    let teller = Arc::new(teller);
    Arc::new(move || {
        let teller = Arc::clone(&teller);
        Box::pin(async move { teller.told().await })
    })
}

fn read(what: ServiceMetrics) -> Result<Vec<Entry>, Failure> {
    let mut ipvs = Ipvs::open_as_is()?;
    let table = if what.destinations { ipvs.table() } else { ipvs.table_without_destinations() };
    Ok(table?.virtual_servers)
}

impl Teller {
    /// The text; none where it cannot be had, which is counted, and logged once.
    async fn told(&self) -> Option<Arc<String>> {
        let told = timeout(PATIENCE, self.since(Instant::now())).await.unwrap_or(Err(Failure::Late));
        if told.is_err() {
            self.metrics.traffic_failed();
        }
        // Nothing can panic while it is held.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).note(told)
    }

    /// What a reading came to that did not begin before this.
    async fn since(&self, asked: Instant) -> Result<Arc<String>, Failure> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        // Whoever waited while another one read for a later question.
        let is_news = last.began.is_some_and(|began| began >= asked);
        if let Some(text) = last.text.upgrade().filter(|_| is_news) {
            return Ok(text);
        }
        if let Ok(Ok(names)) = timeout(PATIENCE_FOR_NAMES, self.names()).await {
            last.names = Some(Arc::new(names));
        }
        let names = last.names.clone().ok_or(Failure::Nameless)?;
        let (read, metrics, limit) = (Arc::clone(&self.read), Arc::clone(&self.metrics), self.what.limit.get());
        // The lock goes along, so that no other reading begins before this one is over, whoever has stopped waiting.
        let reading = spawn_blocking(move || {
            let began = Instant::now();
            let told = traffic(&read()?, &names, limit);
            metrics.traffic_left_out(told.left_out);
            last.began = Some(began);
            let text = Arc::new(told.text);
            last.text = Arc::downgrade(&text);
            Ok(text)
        });
        reading.await?
    }

    async fn names(&self) -> Result<Names, Unanswered> {
        let mut names = Names::default();
        if let Answer::Owners(owners) = (self.ask)(Question::Owners).await? {
            names.ports = owners.into_iter().map(|owner| (owner.server.into(), port(owner))).collect();
        }
        if self.what.destinations
            && let Answer::Endpoints(endpoints) = (self.ask)(Question::Endpoints).await?
        {
            let key = |address, port| DestinationKey { address, port };
            let name = |pod: &str| pod.split_once('/').map_or(pod, |(_, name)| name).to_owned();
            names.pods = endpoints.into_iter().map(|one| (key(one.address, one.port), name(&one.pod))).collect();
        }
        Ok(names)
    }
}

fn port(owner: Owner) -> ServicePort {
    let (namespace, service) = owner.service.split_once('/').unwrap_or(("", &owner.service));
    let protocol = Protocol::from(owner.port_protocol).name();
    ServicePort { namespace: namespace.to_owned(), service: service.to_owned(), name: owner.port_name, protocol }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Errno;
    use crate::model::Family;
    use std::num::NonZeroUsize;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    const WHAT: ServiceMetrics = ServiceMetrics { destinations: true, limit: NonZeroUsize::MAX };

    fn metrics() -> Arc<Metrics> {
        Arc::new(Metrics::new(&[Family::Ipv4], &[]).unwrap())
    }

    fn failures(metrics: &Metrics) -> usize {
        let text = metrics.render(Duration::ZERO).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix("ipvsd_service_metrics_failures_total "));
        value.unwrap().parse().unwrap()
    }

    /// Knows no names, but says so.
    fn informed() -> Ask {
        Arc::new(|question| {
            Box::pin(async move {
                match question {
                    Question::Owners => Ok(Answer::Owners(Vec::new())),
                    _ => Ok(Answer::Endpoints(Vec::new())),
                }
            })
        })
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_readings_which_do_not_overlap() {
        let (reading, readings) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = (Arc::clone(&reading), Arc::clone(&readings));
        let read = move || {
            assert_eq!(counted.0.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            thread::sleep(Duration::from_millis(20));
            counted.1.fetch_add(1, Ordering::SeqCst);
            counted.0.fetch_sub(1, Ordering::SeqCst);
            Ok(Vec::new())
        };
        let metrics = metrics();
        let told = with(WHAT, informed(), &metrics, Arc::new(read));
        let all = futures_util::future::join_all((0..50).map(|_| told())).await;
        assert!(all.iter().all(Option::is_some));
        assert!(readings.load(Ordering::SeqCst) <= 2);
        assert!(told().await.is_some());
        assert!((2..=3).contains(&readings.load(Ordering::SeqCst)), "who asks later is told what is so later");
        assert_eq!((reading.load(Ordering::SeqCst), failures(&metrics)), (0, 0));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_counted() {
        let refused = || Err(ObserveError::Refused { what: "virtual servers", errno: Errno::EPERM }.into());
        let metrics = metrics();
        let told = with(WHAT, informed(), &metrics, Arc::new(refused));
        assert_eq!((told().await, told().await), (None, None));
        assert_eq!(failures(&metrics), 2);
        let panicking = with(WHAT, informed(), &metrics, Arc::new(|| panic!("this is a test")));
        assert_eq!((panicking().await, failures(&metrics)), (None, 3));
    }

    #[tokio::test]
    async fn names_of_before_do_while_the_reconciler_is_busy_and_without_any_nothing_is_told() {
        let answers = Arc::new(StdMutex::new(vec![Err(Unanswered::Busy), Ok(()), Err(Unanswered::Busy)].into_iter()));
        let ask: Ask = Arc::new(move |question| {
            let now = if question == Question::Owners { answers.lock().unwrap().next().unwrap() } else { Ok(()) };
            let informed = informed();
            Box::pin(async move {
                now?;
                informed(question).await
            })
        });
        let told = with(WHAT, ask, &metrics(), Arc::new(|| Ok(Vec::new())));
        assert_eq!([told().await, told().await, told().await].map(|told| told.is_some()), [false, true, true]);
    }

    #[tokio::test]
    async fn nobody_waits_for_long() {
        let metrics = metrics();
        let never: Ask = Arc::new(|_| Box::pin(std::future::pending()));
        let told = with(WHAT, never, &metrics, Arc::new(|| Ok(Vec::new())));
        let before = Instant::now();
        assert_eq!(told().await, None);
        assert!(before.elapsed() < PATIENCE);
        assert_eq!(failures(&metrics), 1);
    }
}
