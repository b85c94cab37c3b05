//! Accepted connections: counted, and closed when they stay silent.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use super::{
    caller::Caller,
    limits::Limits,
    slots::{ConnectionSlot, ConnectionSlots, Full},
};

/// The preface of an HTTP/2 connection (RFC 9113, 3.4); none is kept open without it.
const PREFACE_BYTES: usize = 24;
/// How long the preface may take.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// Out of file descriptors: accepting again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An accepted connection. It holds one of the server's slots until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    preface: Option<Preface>,
    slot: ConnectionSlot,
}

#[derive(Debug)]
struct Preface {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

/// The connections that arrive at `listener`, as far as there are slots for them. If there is
/// none, an idle one is closed for the new one, or else the new one at once, so that its client
/// tries another server instead of waiting.
pub fn accept(
    listener: TcpListener,
    limits: &Limits,
) -> impl Stream<Item = Connection> + Send + use<> {
    let slots = ConnectionSlots::new(limits.total(), limits.of_source(), limits.when_full);
    let budget = Arc::clone(&limits.budget);
    stream::unfold((listener, slots, budget), move |(listener, slots, budget)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, addr)) => {
                    let caller = Caller::new(Some(addr.ip()), Arc::clone(&budget));
                    match slots.take(caller) {
                        Ok(slot) => {
                            let connection = Connection::new(stream, slot);
                            return Some((connection, (listener, slots, budget)));
                        }
                        Err(full) => refuse(addr, full),
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

fn refuse(addr: SocketAddr, full: Full) {
    let reason = match full {
        Full::Server => "server",
        Full::Source => "source",
    };
    metrics::counter!("shoal_connections_refused_total", "full" => reason).increment(1);
    debug!(%addr, full = reason, "connection refused: too many are open");
}

impl Connection {
    fn new(stream: TcpStream, slot: ConnectionSlot) -> Self {
        // Fails only if the other side is gone, which the first read reports as well.
        let _ = stream.set_nodelay(true);
        let preface =
            Preface { missing: PREFACE_BYTES, deadline: Box::pin(sleep(PREFACE_TIMEOUT)) };
        Self { stream, preface: Some(preface), slot }
    }

    pub(super) const fn slot(&self) -> &ConnectionSlot {
        &self.slot
    }

    /// The same connection, driven by the current runtime instead of the one that accepted it.
    pub fn adopt(self) -> io::Result<Self> {
        let stream = TcpStream::from_std(self.stream.into_std()?)?;
        let preface = self
            .preface
            .map(|preface| Preface { deadline: Box::pin(sleep(PREFACE_TIMEOUT)), ..preface });
        Ok(Self { stream, preface, ..self })
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(preface) = &mut self.preface else {
            return read;
        };
        preface.missing = preface.missing.saturating_sub(buf.filled().len() - before);
        if preface.missing == 0 {
            self.preface = None;
        } else if read.is_pending() {
            ready!(preface.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };
    use tokio_stream::StreamExt as _;

    use super::*;

    async fn listen() -> (TcpListener, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        (listener, address)
    }

    fn one() -> Limits {
        Limits { max_connections: 1, ..Limits::default() }
    }

    async fn connect(address: std::net::SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.expect("it listens")
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_silent_is_closed() {
        let (listener, address) = listen().await;
        let mut accepted = pin!(accept(listener, &one()));
        let mut client = connect(address).await;
        client.write_all(&[0; PREFACE_BYTES - 1]).await.expect("it is open");
        let mut connection = accepted.next().await.expect("one arrives");
        let error =
            connection.read_exact(&mut [0; PREFACE_BYTES]).await.expect_err("too few bytes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_begun_may_be_silent() {
        let (listener, address) = listen().await;
        let mut accepted = pin!(accept(listener, &one()));
        let mut client = connect(address).await;
        client.write_all(&[0; PREFACE_BYTES]).await.expect("it is open");
        let mut connection = accepted.next().await.expect("one arrives");
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.expect("all is there");
        let silent = timeout(PREFACE_TIMEOUT * 10, connection.read_u8()).await;
        assert!(silent.is_err(), "the connection is still open");
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_while_all_others_are_busy() {
        let (listener, address) = listen().await;
        let mut accepted = pin!(accept(listener, &one()));
        let _first = connect(address).await;
        let first = accepted.next().await.expect("one arrives");
        let call = first.slot().caller().begin();
        let mut second = connect(address).await;
        tokio::select! {
            _ = accepted.next() => panic!("there is no slot for the second"),
            read = second.read_u8() => assert!(read.is_err(), "the second is closed"),
        }
        drop((call, first));
        let _third = connect(address).await;
        accepted.next().await.expect("the slot of the first is free");
    }
}
