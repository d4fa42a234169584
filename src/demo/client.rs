//! A client: asks an address who answers there, each time on a new connection; or keeps one open.

use super::socket;
use crate::model::Protocol;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long each step of a request may take: a network in one kernel answers in less than a millisecond.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Whom to ask, and how. Use it on a thread in the client's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// HTTP over TCP or SCTP, or one UDP datagram.
    pub protocol: Protocol,
    /// The frontend.
    pub target: SocketAddr,
    /// The address and port to ask from. If not given, or with port 0, the port is one that no request had before.
    pub source: Option<SocketAddr>,
}

/// Who answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The backend's name.
    pub name: String,
    /// Where the backend saw the request come from.
    pub source: IpAddr,
}

impl Request {
    /// A request from any address, and from a port that no request had before.
    pub fn new(protocol: Protocol, target: SocketAddr) -> Self {
        Self { protocol, target, source: None }
    }

    /// Asks once, on a connection of its own.
    ///
    /// # Errors
    /// What the kernel says (`ConnectionRefused` where nobody listens, `WouldBlock` where nobody answers in time), or
    /// `InvalidData` for an answer that is none of a backend's.
    pub fn send(&self) -> io::Result<Answer> {
        let socket = socket::connected(self.protocol, self.target, self.source, PATIENCE)?;
        let answer = match self.protocol {
            Protocol::Udp => ask_by_datagram(&socket.into())?,
            Protocol::Tcp | Protocol::Sctp => ask_by_http(socket.into(), self.target)?,
        };
        parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("strange answer: {answer:?}")))
    }

    /// Asks `count` times and counts the answers by name.
    ///
    /// # Errors
    /// The first failure.
    pub fn spread(&self, count: usize) -> io::Result<BTreeMap<String, usize>> {
        let mut spread = BTreeMap::new();
        for _ in 0..count {
            *spread.entry(self.send()?.name).or_default() += 1;
        }
        Ok(spread)
    }
}

/// A connection that stays open, to a port that echoes lines.
#[derive(Debug)]
pub struct Conversation(BufReader<TcpStream>);

impl Conversation {
    /// Connects.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let socket = socket::connected(Protocol::Tcp, target, None, PATIENCE)?;
        Ok(Self(BufReader::new(socket.into())))
    }

    /// Says a line and returns the name of the backend that echoed it.
    ///
    /// # Errors
    /// What the kernel says, or `UnexpectedEof` if the backend has hung up.
    pub fn say(&mut self, line: &str) -> io::Result<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut echo = String::new();
        self.0.read_line(&mut echo)?;
        let name = echo.trim_end().strip_suffix(line).map(|name| name.trim_end().to_owned());
        name.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, format!("no echo but {echo:?}")))
    }
}

fn ask_by_datagram(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"who\n")?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
}

fn ask_by_http(mut stream: TcpStream, host: SocketAddr) -> io::Result<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/1.1 200 "));
    Ok(body.map(|(_, body)| body.to_owned()).unwrap_or(answer))
}

fn parse(answer: &str) -> Option<Answer> {
    let (name, source) = answer.trim_end().split_once(' ')?;
    Some(Answer { name: name.to_owned(), source: source.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_name_and_a_source() {
        let answer = Answer { name: "backend-1".into(), source: "fd00::1".parse().unwrap() };
        assert_eq!(parse("backend-1 fd00::1\n"), Some(answer));
        for strange in ["", "backend-1", "backend-1 somewhere", "HTTP/1.1 404 Not Found"] {
            assert_eq!(parse(strange), None, "{strange:?}");
        }
    }
}
