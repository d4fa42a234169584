//! Whether the program should start anew because its configuration changed. Nothing is reloaded piece by piece: a start
//! is the one path that every setting takes, and costs no connection.

use crate::config::Config;
use crate::metrics::Metrics;
use crate::source::manifests::Watch;
use std::future;
use std::sync::Arc;
use tracing::{info, warn};

/// Reads the configuration as it is now, from the same flags and files.
pub type Reread = Box<dyn Fn() -> anyhow::Result<Config>>;

/// The configuration in force, and its files.
pub struct Configuration {
    /// What is in force.
    config: Config,
    reread: Reread,
    files: Vec<Watch>,
    metrics: Arc<Metrics>,
    /// What was wrong with the files when they were last read, so that each fault is told once.
    fault: Option<String>,
}

impl Configuration {
    /// Begins to watch the files of a configuration.
    pub fn watch(config: Config, reread: Reread, metrics: Arc<Metrics>) -> Self {
        let files = config.files.iter().map(|file| Watch::new(file)).collect();
        Self { config, reread, files, metrics, fault: None }
    }

    /// Returns once a configuration is there that is good and means something else. Meanwhile what was read at the start
    /// stays in force, also while the files hold one that is not good. Nothing is lost if this is dropped.
    pub async fn changed(&mut self) {
        // What changed between the start's reading and the watching is told by nobody.
        while !self.means_something_else() {
            self.touched().await;
        }
    }

    async fn touched(&mut self) {
        let changes: Vec<_> = self.files.iter_mut().map(|file| Box::pin(file.changed())).collect();
        if changes.is_empty() {
            future::pending::<()>().await;
        }
        futures_util::future::select_all(changes).await;
    }

    fn means_something_else(&mut self) -> bool {
        match (self.reread)() {
            Ok(config) if config == self.config => {
                self.fault = None;
                false
            }
            Ok(_) => {
                info!("the configuration changed: starting anew with it");
                true
            }
            Err(error) => {
                let fault = format!("{error:#}");
                if self.fault.as_ref() != Some(&fault) {
                    self.metrics.config_rejected();
                    warn!(
                        "the configuration changed and is not good, what was read at the start stays in force: {fault}"
                    );
                }
                self.fault = Some(fault);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::{Request, resolve};
    use crate::config::{Config, kube_proxy::v1alpha1::KubeProxyConfiguration};
    use std::time::Duration;
    use tokio::time::timeout;

    fn config(drain: u64) -> Config {
        let [mode, detect_local_mode] = ["ipvs", "ClusterCIDR"].map(Into::into);
        let effective = KubeProxyConfiguration { mode, detect_local_mode, ..KubeProxyConfiguration::with_defaults() };
        let drain_timeout = Duration::from_secs(drain);
        resolve(Request { effective, drain_timeout, ..Request::default() }).unwrap()
    }

    /// By files that nobody touches again.
    #[tokio::test]
    async fn what_changed_before_it_is_watched_is_seen_too() {
        for (now, is_changed) in [(1, false), (2, true)] {
            let reread: Reread = Box::new(move || Ok(config(now)));
            let metrics = Arc::new(Metrics::new(&[], &[]).unwrap());
            let mut configuration = Configuration::watch(config(1), reread, metrics);
            let seen = timeout(Duration::from_millis(50), configuration.changed()).await.is_ok();
            assert_eq!(seen, is_changed, "{now}");
        }
    }
}
