//! The HTTP servers that kube-proxy has: health for load balancers and kubelets, metrics for everybody who looks, and
//! one small server for each Service with a `healthCheckNodePort`.
//!
//! `listener` opens sockets and `http` serves requests on them; [`healthz`], [`MetricsPages`] (with `zpages`) and
//! [`HealthCheckServers`] say what is answered; [`Server`] keeps one of the first two up. Nothing here knows Services or
//! the kernel: what is told is in [`crate::health`], [`crate::metrics`] and [`crate::inspect`]. [`Page`] is for people.
//!
//! One more is for those on the node who ask why: [`serve_inspection`] with [`inspection()`], whose client is [`ask()`]. Its
//! name stands for the place of the one daemon in a network namespace: [`claim()`].

mod answer;
mod claim;
mod client;
mod clock;
mod health_check;
mod healthz;
mod http;
mod inspection;
mod listener;
mod log;
mod page;
mod pages;
mod questions;
mod zpages;

use http::{Connections, Limits};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::sleep;

pub use claim::{ClaimError, OtherDaemon, claim};
pub use client::{AskError, ask, daemon_process, put};
pub use clock::{Clock, system_clock};
pub use health_check::{HealthCheckServers, ListenFailure};
pub use healthz::healthz;
pub use http::Handler;
pub use inspection::{NAME as INSPECTION_NAME, bind as bind_inspection, is_trusted, serve as serve_inspection};
pub use log::{LogFilter, Told};
pub use page::Page;
pub use pages::{MetricsPages, SetVerbosity, Traffic};
pub use questions::{Ask, LOG, Unanswered, handler as inspection};

/// Between two attempts to bind.
const RETRY: Duration = Duration::from_secs(5);

/// Connections that one of these servers has at most; then the oldest goes.
const CONNECTIONS: usize = 64;

/// A server at a fixed address: for health or for metrics.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it is for, for messages: `healthz`, `metrics`.
    pub name: &'static str,
    /// Where it listens. An unspecified address, of either family, is every address of both.
    pub address: SocketAddr,
    /// Whether a failure to bind ends it, or is tried again every 5 s (`bindAddressHardFail`).
    pub hard_fail: bool,
}

/// A server that could not begin to listen.
#[derive(Debug, thiserror::Error)]
#[error("the {name} server cannot listen on {address}")]
pub struct BindError {
    /// [`Server::name`].
    pub name: &'static str,
    /// [`Server::address`].
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// How binding went.
#[derive(Debug)]
pub enum Binding<'a> {
    /// It listens here; never told twice.
    Bound(SocketAddr),
    /// It does not; told of every attempt.
    Failed(&'a BindError),
}

impl Server {
    /// Serves until the future is dropped. `told` hears how binding went.
    ///
    /// Returns only with [`Server::hard_fail`], and then what `told` heard last.
    pub async fn run(self, handler: Handler, told: impl FnMut(Binding<'_>)) -> BindError {
        self.run_with_retry(handler, told, RETRY).await
    }

    async fn run_with_retry(self, handler: Handler, mut told: impl FnMut(Binding<'_>), retry: Duration) -> BindError {
        let listener = loop {
            match listener::everywhere_or_at(self.address) {
                Ok(listener) => break listener,
                Err(source) => {
                    let error = BindError { name: self.name, address: self.address, source };
                    told(Binding::Failed(&error));
                    if self.hard_fail {
                        return error;
                    }
                    sleep(retry).await;
                }
            }
        };
        told(Binding::Bound(listener.local_addr().unwrap_or(self.address)));
        match http::serve(listener, handler, Connections::within(Limits::connections(CONNECTIONS))).await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use tokio::sync::mpsc::unbounded_channel;

    fn nothing() -> Handler {
        http::at_once(|_| answer::not_found())
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_tried_until_it_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { name: "healthz", address: taken.local_addr().unwrap(), hard_fail: false };
        let (tell, mut told) = unbounded_channel();
        let text = move |binding: Binding<'_>| match binding {
            Binding::Failed(error) => tell.send(Err(error.to_string())).unwrap(),
            Binding::Bound(address) => tell.send(Ok(address)).unwrap(),
        };
        let serving = tokio::spawn(server.clone().run_with_retry(nothing(), text, Duration::from_millis(1)));
        let message = format!("the healthz server cannot listen on {}", server.address);
        for _ in 0..3 {
            assert_eq!(told.recv().await.unwrap(), Err(message.clone()));
        }
        drop(taken);
        let bound = loop {
            if let Ok(address) = told.recv().await.unwrap() {
                break address;
            }
        };
        assert_eq!(bound, server.address);
        serving.abort();
    }

    #[tokio::test]
    async fn a_hard_failure_ends_it_at_once() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { name: "metrics", address: taken.local_addr().unwrap(), hard_fail: true };
        let mut told = 0;
        let error = server.run(nothing(), |_| told += 1).await;
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(told, 1);
    }
}
