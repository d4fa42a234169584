//! Serves HTTP/1 on one listening socket, so that no client can keep the others out or use up file descriptors.
//!
//! Heads and bodies of requests are small and must come soon; when there are too many connections the oldest goes, so
//! that one more health check always gets through.

use super::answer::{self, Answer};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Answers a request. It must not block: all servers share one thread.
pub type Handler = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Answers without waiting for anything.
pub fn at_once(answer: impl Fn(&Request<Bytes>) -> Answer + Send + Sync + 'static) -> Handler {
    Arc::new(move |request| Box::pin(ready(answer(&request))))
}

/// How much clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open at one time.
    pub connections: usize,
    /// For the head of a request, and for the next request on the same connection.
    pub head: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// A connection's whole life: whoever does not read answers holds it no longer.
    pub life: Duration,
}

impl Limits {
    /// The usual ones, with so many connections.
    pub const fn connections(connections: usize) -> Self {
        let seconds = Duration::from_secs;
        Self { connections, head: seconds(10), body: seconds(5), life: seconds(300) }
    }
}

/// What hyper may buffer of one connection; its smallest is 8 KiB.
const BUFFER: usize = 16 * 1024;
/// The longest body of a request. All that is ever sent is a number.
const LONGEST_BODY: usize = 1024;
/// After a connection could not be accepted, which is most likely for want of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of one listener, or of several that share a budget; clones are the same.
#[derive(Clone, Debug)]
pub struct Connections {
    limits: Limits,
    /// Oldest first; some may have ended.
    tasks: Arc<Mutex<VecDeque<AbortHandle>>>,
}

impl Connections {
    /// None yet, within these limits.
    pub fn within(limits: Limits) -> Self {
        Self { limits, tasks: Arc::default() }
    }

    /// How much each of them may use.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Adds one, and ends the oldest if it is one too many.
    pub fn add(&self, task: AbortHandle) {
        // Nothing can panic while it is held.
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push_back(task);
        if tasks.len() > self.limits.connections
            && let Some(oldest) = tasks.pop_front()
        {
            oldest.abort();
        }
    }
}

/// Serves for ever. When the future is dropped the socket and all its connections are closed.
pub async fn serve(listener: TcpListener, handler: Handler, connections: Connections) -> Infallible {
    let mut tasks = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while tasks.try_join_next().is_some() {}
                connections.add(tasks.spawn(converse(stream, Arc::clone(&handler), connections.limits)));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Answers the requests on one connection until it ends, in whatever way.
pub async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send, handler: Handler, limits: Limits) {
    let respond = async |request| Ok::<_, Infallible>(respond(request, &handler, limits.body).await);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // As Go writes them, for those that look for `X-Load-Balancing-Endpoint-Weight` letter by letter.
        .title_case_headers(true)
        .header_read_timeout(limits.head)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service_fn(respond));
    // What a client does wrong is told to the client, as far as it can be told, and to nobody else.
    let _ = timeout(limits.life, connection).await;
}

async fn respond(request: Request<Incoming>, handler: &Handler, patience: Duration) -> Answer {
    const TOO_LONG: &str = "the body is too long, or ended early\n";
    let (head, body) = request.into_parts();
    if body.size_hint().lower() > LONGEST_BODY as u64 {
        return answer::text(StatusCode::PAYLOAD_TOO_LARGE, TOO_LONG);
    }
    match timeout(patience, Limited::new(body, LONGEST_BODY).collect()).await {
        Ok(Ok(body)) => handler(Request::from_parts(head, body.to_bytes())).await,
        Ok(Err(_)) => answer::text(StatusCode::PAYLOAD_TOO_LARGE, TOO_LONG),
        Err(_) => answer::text(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(3600);
    const PATIENT: Limits = Limits { connections: 4, head: LONG, body: LONG, life: LONG };
    const HEAD: &str = "GET / HTTP/1.1\r\nHost: node\r\n";

    /// Where a server listens that answers with as many bytes as the path has characters times a thousand.
    async fn server(limits: Limits) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handler = at_once(|request| {
            answer::text(StatusCode::OK, "x".repeat(1000 * request.uri().path().len() + request.body().len()))
        });
        tokio::spawn(serve(listener, handler, Connections::within(limits)));
        address
    }

    /// A connection on which this was sent.
    async fn sent(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until the server closes the connection.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8(text).unwrap()
    }

    async fn answers(address: std::net::SocketAddr) -> bool {
        let asked = sent(address, &format!("{HEAD}Connection: close\r\n\r\n")).await;
        rest(asked).await.starts_with("HTTP/1.1 200 OK\r\n")
    }

    #[tokio::test]
    async fn a_head_must_come_soon() {
        let address = server(Limits { head: SHORT, ..PATIENT }).await;
        for start in ["", "GET / HT", HEAD] {
            assert!(!rest(sent(address, start).await).await.contains(" 200 "), "{start:?}");
        }
        let idle = sent(address, &format!("{HEAD}\r\n")).await;
        assert!(rest(idle).await.contains(" 200 "), "and then it is closed");
        assert!(answers(address).await);
    }

    #[tokio::test]
    async fn a_body_must_come_soon_and_be_short() {
        let address = server(Limits { body: SHORT, ..PATIENT }).await;
        for (rest_of_request, wanted) in [
            ("Content-Length: 5\r\n\r\n12", "HTTP/1.1 408 "),
            ("Content-Length: 2000000\r\n\r\n12", "HTTP/1.1 413 "),
            ("Transfer-Encoding: chunked\r\n\r\nffff\r\n{long}", "HTTP/1.1 413 "),
            ("Content-Length: 5\r\nConnection: close\r\n\r\n12345", "HTTP/1.1 200 "),
        ] {
            let rest_of_request = rest_of_request.replace("{long}", &"1".repeat(LONGEST_BODY + 1));
            let answer = rest(sent(address, &format!("{HEAD}{rest_of_request}")).await).await;
            assert!(answer.starts_with(wanted), "{rest_of_request:?}: {answer:.40}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_not_read_ends() {
        let address = server(Limits { life: SHORT, ..PATIENT }).await;
        let mut deaf = sent(address, &format!("GET /{} HTTP/1.1\r\nHost: node\r\n\r\n", "y".repeat(8000))).await;
        // The server has given up when nothing can be sent to it any more.
        while deaf.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(answers(address).await);
    }

    #[tokio::test]
    async fn the_oldest_connection_makes_place() {
        let address = server(PATIENT).await;
        let mut slow = Vec::new();
        for _ in 0..PATIENT.connections {
            slow.push(sent(address, HEAD).await);
        }
        assert!(answers(address).await);
        assert_eq!(rest(slow.remove(0)).await, "", "closed without an answer");
        for stream in &mut slow {
            stream.write_all(b"Connection: close\r\n\r\n").await.unwrap();
        }
        for stream in slow {
            assert!(rest(stream).await.contains(" 200 "), "those that came later go on");
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_harms_nobody() {
        let address = server(PATIENT).await;
        for nonsense in
            ["\r\n\r\nhello\r\n\r\n", "\0\0\0\0\r\n\r\n", "GET http:// HTTP/9.9\r\n\r\n", &"A".repeat(100_000)]
        {
            assert!(!rest(sent(address, nonsense).await).await.contains(" 200 "), "{nonsense:.20}");
        }
        assert!(answers(address).await);
    }
}
