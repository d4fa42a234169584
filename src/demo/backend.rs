//! A backend: answers HTTP (over TCP or SCTP) and UDP datagrams with its name and the source it saw, or echoes the
//! lines of a long connection.

use super::namespace::Namespace;
use super::socket;
use crate::model::Protocol;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{io, net};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

/// What a backend does on a port, on all its addresses of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Answers an HTTP request with `NAME SOURCE`, then closes the connection.
    Http(u16),
    /// The same over SCTP.
    SctpHttp(u16),
    /// Answers each datagram with `NAME SOURCE`.
    Udp(u16),
    /// Answers each line of a TCP connection with `NAME LINE` until the client closes it.
    Lines(u16),
}

/// A running backend. It stops, connections and all, when it is dropped.
#[derive(Debug)]
pub struct Backend {
    /// Told to stop by losing its sender.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Backend {
    /// Starts to serve in `namespace` under `name`. The ports are open when this returns.
    ///
    /// # Errors
    /// If a port cannot be opened.
    pub fn start(name: &str, namespace: &Namespace, ports: &[Port]) -> Result<Self> {
        let sockets = namespace.run(|| {
            let open = |port: &Port| Socket::open(*port).with_context(|| format!("{name} cannot open {port:?}"));
            ports.iter().map(open).collect::<Result<Vec<_>>>()
        })?;
        let (stop, stopped) = oneshot::channel();
        let name = Arc::from(name);
        let thread = thread::spawn(move || serve(&name, sockets, stopped));
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // Whether it ended well no longer matters.
            let _ended = thread.join();
        }
    }
}

/// An open port.
enum Socket {
    /// Connections, and what is said on each.
    Connections(net::TcpListener, Conversation),
    Datagrams(net::UdpSocket),
}

#[derive(Clone, Copy)]
enum Conversation {
    Http,
    Lines,
}

impl Socket {
    fn open(port: Port) -> io::Result<Self> {
        let listener = |protocol, port| socket::serve(protocol, port).map(net::TcpListener::from);
        Ok(match port {
            Port::Http(port) => Self::Connections(listener(Protocol::Tcp, port)?, Conversation::Http),
            Port::SctpHttp(port) => Self::Connections(listener(Protocol::Sctp, port)?, Conversation::Http),
            Port::Lines(port) => Self::Connections(listener(Protocol::Tcp, port)?, Conversation::Lines),
            Port::Udp(port) => Self::Datagrams(socket::serve(Protocol::Udp, port)?.into()),
        })
    }
}

/// Serves all ports on this thread. What still runs at the end goes with the runtime.
fn serve(name: &Arc<str>, sockets: Vec<Socket>, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        for socket in sockets {
            let name = name.clone();
            match socket {
                Socket::Connections(listener, conversation) => {
                    tokio::spawn(accept(name, TcpListener::from_std(listener)?, conversation));
                }
                Socket::Datagrams(socket) => {
                    tokio::spawn(answer_datagrams(name, UdpSocket::from_std(socket)?));
                }
            }
        }
        let _sender_lost = stopped.await;
        Ok(())
    })
}

/// A client that hangs up costs its own conversation only.
async fn accept(name: Arc<str>, listener: TcpListener, conversation: Conversation) -> io::Result<()> {
    loop {
        let (stream, source) = listener.accept().await?;
        let name = name.clone();
        match conversation {
            Conversation::Http => tokio::spawn(answer_http(name, stream, source)),
            Conversation::Lines => tokio::spawn(echo_lines(name, stream)),
        };
    }
}

async fn answer_http(name: Arc<str>, stream: TcpStream, source: SocketAddr) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    // The request's head ends with an empty line; what it says does not matter.
    while stream.read_line(&mut line).await? > "\r\n".len() {
        line.clear();
    }
    let body = greeting(&name, source);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

async fn echo_lines(name: Arc<str>, stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        stream.write_all(format!("{name} {line}").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

async fn answer_datagrams(name: Arc<str>, socket: UdpSocket) -> io::Result<()> {
    let mut datagram = [0; 1500];
    loop {
        let (_length, source) = socket.recv_from(&mut datagram).await?;
        socket.send_to(greeting(&name, source).as_bytes(), source).await?;
    }
}

/// The name of the backend, and where it saw the request come from.
fn greeting(name: &str, source: SocketAddr) -> String {
    format!("{name} {}\n", source.ip().to_canonical())
}
