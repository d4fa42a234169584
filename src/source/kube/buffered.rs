//! A connection that is read in large pieces. TLS asks for 4 kB at a time, so that a list of 10,000 Services would take
//! thousands of system calls.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::BufReader;
use tokio::net::TcpStream;

/// Bytes that are read at once, if they are there.
const AT_ONCE: usize = 64 << 10;

/// A TCP connection with a buffer for what comes.
#[derive(Debug)]
pub(super) struct Buffered(TokioIo<BufReader<TcpStream>>);

impl Buffered {
    /// The connection, from which nothing was read so far.
    pub(super) fn new(connection: TokioIo<TcpStream>) -> Self {
        Self(TokioIo::new(BufReader::with_capacity(AT_ONCE, connection.into_inner())))
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut TokioIo<BufReader<TcpStream>>> {
        Pin::new(&mut self.get_mut().0)
    }
}

impl Read for Buffered {
    fn poll_read(self: Pin<&mut Self>, task: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_read(task, buffer)
    }
}

impl Write for Buffered {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(task, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(task)
    }
}

impl Connection for Buffered {
    fn connected(&self) -> Connected {
        self.0.inner().get_ref().connected()
    }
}
