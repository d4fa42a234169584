//! How to reach the API server: a kubeconfig file, a bare URL or the pod's own service account; and an HTTP client for
//! it.
//!
//! Requests and answers are JSON: `kube` speaks nothing else, so `clientConnection.contentType` changes nothing.
//! There is no limit of requests per second either: a process makes one request for each kind of object when it starts
//! and one every few minutes after that, and retries are held back one by one (`backoff.rs`).

use super::buffered::Buffered;
use super::observe::{Observed, RequestObserver};
use super::token::Authorized;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder, ServiceExt};

/// How long a connection may take. A Node's first packet to a VIP can be lost while routes change, and is sent again
/// after 1 and 3 s.
const CONNECT: Duration = Duration::from_secs(10);
/// A watch may be quiet for a minute, and an API server that is cut off says nothing: after this long without a byte
/// the kernel asks whether it is there,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// again after each of these,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and this often before the connection counts as dead: 30 s in all.
const KEEPALIVE_PROBES: u32 = 3;

/// Where the API server is and who we are to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file (`clientConnection.kubeconfig`, `--kubeconfig`): its current context is used. Without it and
    /// `master`, the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// The API server's URL (`--master`), instead of the one in the file; alone it stands for a server that asks for
    /// no credentials.
    pub master: Option<String>,
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read or used.
    #[error("the kubeconfig file {} cannot be used", path.display())]
    Kubeconfig {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: KubeconfigError,
    },
    /// The file asks for a proxy in between.
    #[error("the kubeconfig file {} has a proxy-url, which ipvsd cannot use", .0.display())]
    Proxy(PathBuf),
    /// There is neither a file nor a pod's service account.
    #[error("there is no kubeconfig file and no service account of a pod")]
    InCluster(#[source] InClusterError),
    /// `master` is not a URL.
    #[error("{url:?} is not the URL of an API server")]
    Master {
        /// What was given.
        url: String,
        /// Why not.
        source: http::uri::InvalidUri,
    },
    /// A certificate, key or token cannot be used.
    #[error("the credentials for the API server cannot be used")]
    Credentials(#[source] kube::Error),
}

impl Access {
    /// Reads everything anew and makes a client of it. Async, as it needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// If a file is missing or wrong. Whether the server is there is not tried.
    pub async fn client(&self, observer: &RequestObserver) -> Result<Client, AccessError> {
        let config = self.config().await?;
        client(config, observer).map_err(AccessError::Credentials)
    }

    /// Where the API server is now, by address and TCP port; nowhere where that cannot be found out. Async, as it may
    /// ask the system to resolve a name.
    pub async fn servers(&self) -> BTreeSet<SocketAddr> {
        let Ok(config) = self.config().await else { return BTreeSet::new() };
        let url = &config.cluster_url;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let usual = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let found = timeout(CONNECT, lookup_host((host, url.port_u16().unwrap_or(usual)))).await;
        let without_scope = |at: SocketAddr| SocketAddr::new(at.ip(), at.port());
        found.map_or_else(|_| BTreeSet::new(), |found| found.into_iter().flatten().map(without_scope).collect())
    }

    async fn config(&self) -> Result<Config, AccessError> {
        match (&self.kubeconfig, &self.master) {
            (None, None) => Config::incluster().map_err(AccessError::InCluster),
            (None, Some(url)) => Ok(Config::new(parsed(url, "http")?)),
            (Some(path), master) => {
                let mut config = from_file(path.clone()).await?;
                if let Some(url) = master {
                    config.cluster_url = parsed(url, "https")?;
                }
                Ok(config)
            }
        }
    }
}

async fn from_file(path: PathBuf) -> Result<Config, AccessError> {
    let unusable = |source| AccessError::Kubeconfig { path: path.clone(), source };
    let file = Kubeconfig::read_from(&path).map_err(unusable)?;
    let mut clusters = file.clusters.iter().filter_map(|named| named.cluster.as_ref());
    if clusters.any(|cluster| cluster.proxy_url.as_deref().is_some_and(|url| !url.is_empty())) {
        return Err(AccessError::Proxy(path));
    }
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)
}

/// A URL; one without a scheme gets `scheme`, as in client-go.
fn parsed(url: &str, scheme: &str) -> Result<http::Uri, AccessError> {
    let whole = if url.contains("://") { url.to_owned() } else { format!("{scheme}://{url}") };
    whole.parse().map_err(|source| AccessError::Master { url: url.to_owned(), source })
}

/// `kube`'s own stack but for five things: keepalive, so that a dead server is noticed; large reads (`buffered.rs`); no
/// retries, which would hide an answer of 429 or 503 for minutes; token files (`token.rs`); and no proxy from the
/// environment.
fn client(mut config: Config, observer: &RequestObserver) -> kube::Result<Client> {
    // A token in the kubeconfig itself comes first, as in client-go.
    let token_file = config.auth_info.token_file.take().filter(|_| config.auth_info.token.is_none());
    let connector = config.rustls_https_connector_with_connector(connector().map_response(Buffered::new))?;
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let stack = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(Authorized::new(client, token_file.map(PathBuf::from)));
    let host = config.cluster_url.authority().map_or("", |authority| authority.as_str()).into();
    Ok(Client::new(Observed { client: stack, host, observer: observer.clone() }, config.default_namespace))
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE_IDLE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    connector
}
