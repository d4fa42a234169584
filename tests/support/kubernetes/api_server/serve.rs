//! Connections and requests: who may ask, what is asked, and the answers that are not watches.

use super::fault::{self, Answer};
use super::{Record, Shared, Streams, Verb, watch};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch as latest;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves until `stopped`, and then drops every connection.
pub fn run(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    shared: Arc<Shared>,
    mut stopped: latest::Receiver<bool>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            tokio::select! {
                _ = stopped.changed() => return,
                accepted = listener.accept() => {
                    if let Ok((connection, _)) = accepted {
                        tokio::spawn(serve(connection, tls.clone(), Arc::clone(&shared)));
                    }
                }
            }
        }
    });
}

async fn serve(connection: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    // Whoever does not finish the handshake has looked elsewhere.
    let Ok(connection) = tls.accept(connection).await else { return };
    let has_certificate = connection.get_ref().1.peer_certificates().is_some();
    let answer = service_fn(|request| answer(request, Arc::clone(&shared), has_certificate));
    _ = http1::Builder::new().serve_connection(TokioIo::new(connection), answer).await;
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    has_certificate: bool,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let record = Record::of(&head);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let fault = {
        let mut inner = shared.lock();
        inner.records.push(record.clone());
        fault::take(&mut inner.faults, &record)
    };
    Ok(match fault {
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::Status(code, retry_after)) => refuse(code, "a fault was asked for", retry_after),
        Some(Answer::Page(code)) => whole(code, "<html>\n<h1>Bad gateway</h1>\n</html>".into()),
        Some(Answer::EndAtOnce) => whole(200, String::new()),
        fault => {
            if let Some(Answer::Slow(pause)) = fault {
                sleep(pause).await;
            }
            if has_certificate || record.token.as_ref().is_some_and(|token| shared.lock().tokens.contains(token)) {
                dispatch(&record, &body, &shared, fault)
            } else {
                refuse(401, "Unauthorized", None)
            }
        }
    })
}

fn dispatch(record: &Record, body: &Bytes, shared: &Arc<Shared>, fault: Option<Answer>) -> Response<Body> {
    let Some((kind, api_version)) = kind(record) else { return refuse(404, "the server has no such thing", None) };
    match record.verb {
        Verb::Watch if record.is_stream() && shared.lock().streams == Streams::Refused => refuse(
            422,
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate \
             is enabled",
            None,
        ),
        Verb::Watch => {
            let (writer, body) = Writer::new(fault);
            let (shared, record) = (Arc::clone(shared), record.clone());
            tokio::spawn(async move { watch::run(&shared, &record, (kind, api_version), writer).await });
            respond(200, HeaderMap::new(), body)
        }
        Verb::List => list(record, (kind, api_version), shared, fault),
        Verb::Get => get(record, kind, shared),
        Verb::Create | Verb::Patch => write(record, body, shared),
        Verb::Other => refuse(405, "the server does not do that", None),
    }
}

/// Kind and API version of what is asked for.
fn kind(record: &Record) -> Option<(&'static str, &'static str)> {
    match (&*record.group, &*record.resource) {
        ("", "services") => Some(("Service", "v1")),
        ("", "nodes") => Some(("Node", "v1")),
        ("discovery.k8s.io", "endpointslices") => Some(("EndpointSlice", "discovery.k8s.io/v1")),
        ("events.k8s.io", "events") => Some(("Event", "events.k8s.io/v1")),
        _ => None,
    }
}

fn list(record: &Record, (kind, api_version): (&str, &str), shared: &Shared, fault: Option<Answer>) -> Response<Body> {
    let page = shared.lock().store.page(kind, record);
    let Ok(page) = page else {
        return refuse(410, "The provided continue parameter is too old to display a consistent list result.", None);
    };
    let mut metadata = json!({"resourceVersion": page.version.to_string()});
    if let Some(next) = page.next {
        metadata["continue"] = json!(next);
        metadata["remainingItemCount"] = json!(page.remaining);
    }
    // As the real server has it: items of a list do not say what they are.
    let items = page.objects.into_iter().map(|object| {
        let mut object = object.value();
        let fields = object.as_object_mut().unwrap();
        fields.remove("kind");
        fields.remove("apiVersion");
        object
    });
    let items: Vec<Value> = items.collect();
    let text = format!(
        "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":{}}}\n",
        Value::from(items)
    );
    let (mut writer, body) = Writer::new(fault);
    tokio::spawn(async move { writer.write(text.into_bytes()).await });
    respond(200, HeaderMap::new(), body)
}

fn get(record: &Record, kind: &str, shared: &Shared) -> Response<Body> {
    let objects = shared.lock().store.objects(kind);
    let metadata = |object: &Value, key: &str| object["metadata"][key].as_str().map(str::to_owned);
    let found = objects
        .into_iter()
        .find(|object| metadata(object, "name") == record.name && metadata(object, "namespace") == record.namespace);
    found.map_or_else(|| refuse(404, "not found", None), |object| whole(200, object.to_string()))
}

/// Events are the only thing that can be written.
fn write(record: &Record, body: &Bytes, shared: &Shared) -> Response<Body> {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut object) if record.resource == "events" => {
            object["metadata"]["namespace"] = json!(record.namespace);
            shared.lock().written.push(object.clone());
            whole(if record.verb == Verb::Create { 201 } else { 200 }, object.to_string())
        }
        _ => refuse(405, "only Events can be written", None),
    }
}

/// A Status, as text.
pub fn status(code: u16, message: &str) -> String {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": message, "reason": reason, "code": code,
    })
    .to_string()
}

fn refuse(code: u16, message: &str, retry_after: Option<u64>) -> Response<Body> {
    let mut response = whole(code, status(code, message));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn whole(code: u16, text: String) -> Response<Body> {
    respond(code, HeaderMap::new(), http_body_util::Full::from(text).map_err(|never| match never {}).boxed_unsync())
}

fn respond(code: u16, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Writes a body piece by piece, with the fault that was asked for.
pub struct Writer {
    pieces: Sender<io::Result<Bytes>>,
    fault: Option<Answer>,
    written: usize,
}

/// Nobody reads the body any more, or it was cut.
pub struct Ended;

impl Writer {
    fn new(fault: Option<Answer>) -> (Self, Body) {
        let (pieces, received) = channel(1);
        let next = |mut received: Receiver<io::Result<Bytes>>| async move {
            received.recv().await.map(|piece| (piece.map(Frame::data), received))
        };
        let body = StreamBody::new(stream::unfold(received, next)).boxed_unsync();
        (Self { pieces, fault, written: 0 }, body)
    }

    pub async fn write(&mut self, mut bytes: Vec<u8>) -> Result<(), Ended> {
        match self.fault {
            Some(Answer::Garbage) => bytes = b"no JSON at all\n".to_vec(),
            Some(Answer::Slow(pause)) => sleep(pause).await,
            Some(Answer::CutAfter(limit)) if self.written + bytes.len() > limit => {
                bytes.truncate(limit - self.written);
                self.send(bytes).await?;
                return self.cut().await;
            }
            _ => {}
        }
        self.send(bytes).await
    }

    /// Ends the body, and the connection with it, in the middle.
    pub async fn cut(&mut self) -> Result<(), Ended> {
        // Let what was written go out first.
        sleep(Duration::from_millis(1)).await;
        _ = self.pieces.send(Err(io::Error::other("cut"))).await;
        Err(Ended)
    }

    /// Returns when nobody reads any more.
    pub async fn closed(&self) {
        self.pieces.closed().await;
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Ended> {
        self.written += bytes.len();
        self.pieces.send(Ok(bytes.into())).await.map_err(|_| Ended)
    }
}
