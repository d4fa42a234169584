//! A way to a server that a test can close, and that leads from one network namespace into another.

use ipvsd::demo::namespace::Namespace;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Passes on what comes, until it is dropped; then all its connections end.
pub struct Relay {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens at `here` in this thread's namespace, and passes on to `there` in another one.
    pub fn start(here: SocketAddr, namespace: Namespace, there: SocketAddr) -> Self {
        let listener = TcpListener::bind(here).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let inside = || {
                serve(listener, there, stopped);
                Ok(())
            };
            namespace.run(inside).unwrap();
        };
        Self { stop: Some(stop), thread: Some(thread::spawn(run)) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.take();
        _ = self.thread.take().unwrap().join();
    }
}

fn serve(listener: TcpListener, there: SocketAddr, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let accept = async {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(pass_on(near, there));
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}

async fn pass_on(mut near: TcpStream, there: SocketAddr) {
    // Whoever finds nobody there hangs up.
    if let Ok(mut far) = TcpStream::connect(there).await {
        _ = copy_bidirectional(&mut near, &mut far).await;
    }
}
