//! The socket: who may ask, who is believed, and what slow or hostile clients cost.

use futures_util::future::join_all;
use ipvsd::inspect::{Answer, Question, Status, Wanted};
use ipvsd::server::{
    Ask, AskError, ClaimError, LOG, LogFilter, OtherDaemon, Told, Unanswered, ask, bind_inspection, claim, inspection,
    put, serve_inspection,
};
use nix::sys::socket::{Backlog, listen};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Barrier;
use tokio::task::AbortHandle;

/// A name of its own for each test.
fn fresh_name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("ipvsd/test/{}/{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Answers what is wanted, and nothing else.
fn answers() -> Ask {
    Arc::new(|question| {
        Box::pin(async move {
            match question {
                Question::Wanted => Ok(Answer::Wanted(Box::default())),
                Question::Status => Err(Unanswered::Busy),
                _ => Err(Unanswered::Unknown),
            }
        })
    })
}

/// Takes any filter but an empty one.
fn log() -> LogFilter {
    LogFilter::new("info".into(), |text| if text.is_empty() { Err("nothing is no filter".into()) } else { Ok(()) })
}

/// Serves at a name until it is told to end.
fn serve(name: &str, ask: Ask) -> AbortHandle {
    let listener = bind_inspection(name).unwrap();
    tokio::spawn(serve_inspection(listener, inspection(ask, log()))).abort_handle()
}

async fn connected(name: &str) -> UnixStream {
    let stream = std::os::unix::net::UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

#[tokio::test]
async fn a_question_is_answered_or_refused_with_the_reason() {
    let name = fresh_name();
    assert!(matches!(ask::<Wanted>(&name, "/v1/wanted").await, Err(AskError::NoDaemon)));
    let _server = serve(&name, answers());
    assert_eq!(ask::<Wanted>(&name, "/v1/wanted").await.unwrap(), Wanted::default());
    for (path, reason) in [
        ("/v1/status", "ipvsd answers with 503 Service Unavailable: the reconciler is in the middle of a pass"),
        ("/v1/services/shop/web", "there is no such Service"),
        ("/v2/wanted", "there is no such question"),
    ] {
        let error = ask::<Status>(&name, path).await.unwrap_err().to_string();
        assert!(error.starts_with(reason), "{path}: {error}");
    }
    let error = ask::<Status>(&name, "/v1/wanted").await.unwrap_err();
    assert!(matches!(error, AskError::NotUnderstood(_)), "{error}");
}

#[tokio::test]
async fn the_logs_filter_is_told_and_changed_unless_it_is_none() {
    let name = fresh_name();
    let _server = serve(&name, answers());
    let filter = async || ask::<Told>(&name, LOG).await.unwrap().filter;
    assert_eq!(filter().await, "info");
    let wanted = "info,ipvsd::source=debug";
    assert_eq!(put::<Told>(&name, LOG, &format!(" {wanted}\n")).await.unwrap().filter, wanted);
    let error = put::<Told>(&name, LOG, " ").await.unwrap_err();
    assert!(matches!(&error, AskError::NotTaken(why) if why == "nothing is no filter"), "{error}");
    assert_eq!(filter().await, wanted);
    for path in ["/v1/status", "/v1/wanted"] {
        let error = put::<Told>(&name, path, "debug").await.unwrap_err();
        assert!(error.to_string().ends_with("405 Method Not Allowed: only GET is answered"), "{path}: {error}");
    }
}

/// Longer than any step of these tests takes.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_living_daemon_keeps_the_name_and_the_next_one_has_it_after_its_death() {
    let name = fresh_name();
    let first = serve(&name, answers());
    for _ in 0..3 {
        let error = claim(&name, LONG).await.unwrap_err();
        let other = OtherDaemon { process: Some(std::process::id()) };
        assert!(matches!(error, ClaimError::OtherDaemon(found) if found == other), "{error}");
    }
    first.abort();
    while bind_inspection(&name).is_err() {
        tokio::task::yield_now().await;
    }
    let second = claim(&name, LONG).await.unwrap();
    let busy = inspection(Arc::new(|_| Box::pin(async { Err(Unanswered::Busy) })), log());
    tokio::spawn(serve_inspection(second, busy));
    assert!(matches!(ask::<Wanted>(&name, "/v1/wanted").await, Err(AskError::Refused(..))), "the second one does");
}

#[tokio::test]
async fn of_many_who_start_at_the_same_moment_one_has_the_name_and_the_others_hear_of_it() {
    let name = fresh_name();
    let claims = join_all((0..10).map(|_| async {
        match claim(&name, LONG).await {
            Ok(listener) => {
                // It is not asked before it listens, and answers late.
                tokio::time::sleep(SHORT).await;
                tokio::spawn(serve_inspection(listener, inspection(answers(), log())));
                true
            }
            Err(ClaimError::OtherDaemon(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }));
    assert_eq!(claims.await.into_iter().filter(|is_first| *is_first).count(), 1);
}

/// Nothing that such a holder does may keep a proxy from working.
#[tokio::test]
async fn who_has_the_name_and_does_not_answer_as_a_daemon_does_is_none() {
    let is_silent = async |name: &str| matches!(claim(name, SHORT).await, Err(ClaimError::Silent));
    let name = fresh_name();
    let silent = bind_inspection(&name).unwrap();
    assert!(is_silent(&name).await, "it accepts nobody");
    // Whoever is not accepted stays in line, which is short here.
    listen(&silent, Backlog::new(1).unwrap()).unwrap();
    let mut line = Vec::new();
    let full = loop {
        match UnixStream::connect(format!("\0{name}")).await {
            Ok(stream) => line.push(stream),
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(full, io::ErrorKind::WouldBlock);
    assert!(is_silent(&name).await, "the line is full");
    drop((silent, line));

    let closing = claim(&name, LONG).await.unwrap();
    let closing = UnixListener::from_std(closing).unwrap();
    let closes = tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    assert!(is_silent(&name).await, "it says nothing");
    closes.abort();
    assert!(closes.await.is_err());

    let web = UnixListener::from_std(claim(&name, LONG).await.unwrap()).unwrap();
    let _task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let mut request = [0; 1024];
            _ = stream.read(&mut request).await;
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        }
    });
    assert!(is_silent(&name).await, "it answers something else");
}

/// One that listens, but not yet.
#[tokio::test]
async fn who_has_the_name_may_take_its_time_to_answer_and_may_end_meanwhile() {
    let name = fresh_name();
    let starting = bind_inspection(&name).unwrap();
    let second = tokio::spawn({
        let name = name.clone();
        async move { claim(&name, LONG).await }
    });
    tokio::time::sleep(SHORT).await;
    assert!(!second.is_finished());
    drop(starting);
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn those_who_ask_nothing_or_nonsense_keep_nobody_out() {
    let name = fresh_name();
    let _server = serve(&name, answers());
    let mut silent = Vec::new();
    for start in
        ["", "GET /v1/wan", "\r\n\r\nhello\r\n\r\n", "POST /v1/wanted HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"]
    {
        for _ in 0..32 {
            let mut stream = connected(&name).await;
            stream.write_all(start.as_bytes()).await.unwrap();
            silent.push(stream);
        }
        assert_eq!(ask::<Wanted>(&name, "/v1/wanted").await.unwrap(), Wanted::default());
    }
    // No more than these are kept.
    let mut closed = 0;
    for mut stream in silent.drain(..64) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut rest).await;
        closed += usize::from(!rest.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(closed, 64);
}

#[tokio::test]
async fn many_who_ask_at_the_same_time_are_all_answered() {
    const MANY: usize = 20;
    let name = fresh_name();
    let all_are_here = Arc::new(Barrier::new(MANY));
    let slow: Ask = Arc::new(move |_| {
        let all_are_here = Arc::clone(&all_are_here);
        Box::pin(async move {
            all_are_here.wait().await;
            Ok(Answer::Wanted(Box::default()))
        })
    });
    let _server = serve(&name, slow);
    let answers = join_all((0..MANY).map(|_| ask::<Wanted>(&name, "/v1/wanted"))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn only_questions_are_taken() {
    let name = fresh_name();
    let _server = serve(&name, answers());
    let mut stream = connected(&name).await;
    stream.write_all(b"DELETE /v1/wanted HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.ends_with(r#"{"error":"only GET is answered"}"#), "{answer}");
}

/// As another user, in a process of its own.
#[tokio::test]
async fn a_stranger_is_neither_answered_nor_believed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("NOT CHECKED: it takes root to be somebody else");
        return;
    }
    let name = fresh_name();
    let server = serve(&name, answers());
    let as_nobody = |command: &str| {
        let script = command.replace("NAME", &name);
        let mut process = Command::new("setpriv");
        process.args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-MSocket", "-e", &script]);
        process
    };
    // Also one that waits before it asks: an answer that comes before is none to an HTTP client.
    let ask_late = r#"socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, pack("Sa*", AF_UNIX, "\0NAME")) or die; $| = 1;
        vec($r, fileno(S), 1) = 1; print "early\n" if select($r, undef, undef, 0.3);
        syswrite(S, "GET /v1/wanted HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); print <S>;"#;
    let mut process = as_nobody(ask_late);
    let output = tokio::task::spawn_blocking(move || process.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("HTTP/1.1 403 ") && said.ends_with("{\"error\":\"only root may ask\"}"), "{said}");
    server.abort();

    let listen = r#"socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack("Sa*", AF_UNIX, "\0NAME/liar")) or die;
        listen(S, 5); $| = 1; print "ready\n"; accept(C, S); sleep 60;"#;
    let mut process = as_nobody(listen);
    let mut liar = process.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    io::Read::read_exact(liar.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let asked = ask::<Wanted>(&format!("{name}/liar"), "/v1/wanted").await;
    assert!(matches!(asked, Err(AskError::Stranger(65_534))), "{asked:?}");
    let claimed = claim(&format!("{name}/liar"), LONG).await;
    assert!(matches!(claimed, Err(ClaimError::Stranger(65_534))), "{claimed:?}");
    liar.kill().and_then(|()| liar.wait()).unwrap();
}
