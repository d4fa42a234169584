//! A client that sees every byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a server answered.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    /// By their names, letter by letter.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Asks for a path, on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Answered {
    ask(address, "GET", path, "").await
}

/// Sends a request with whole `lines` of more headers, a body after an empty line, or both.
pub async fn ask(address: SocketAddr, method: &str, path: &str, lines: &str) -> Answered {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let end = if lines.contains("\r\n\r\n") { "" } else { "\r\n" };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{lines}{end}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let (first, headers) = head.split_once("\r\n").unwrap();
    let headers = headers.split("\r\n").map(|line| line.split_once(": ").unwrap());
    Answered {
        status: first.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}
