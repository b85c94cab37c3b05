//! The threads that bulk runs on, and the connections served there.
//!
//! Each lane is an OS thread with a runtime of its own; hashing and file I/O happen inline on it.
//! Two lanes moved 1.5 times as much as one runtime with two workers, and `spawn_blocking` for each
//! piece cost a third.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use futures_util::StreamExt as _;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use shoal_common::server::{Connection, Limits, accept};
use socket2::SockRef;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{codegen::Service as _, service::Routes, transport::server::Connected as _};
use tracing::{debug, warn};

/// Bytes that a response may have buffered before it is asked for no more. Less than a block, so
/// that no more than one waits while one is written; hyper's 400 KiB would let go of two too early.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// The threads. Dropping them ends all that runs on them.
#[derive(Debug)]
pub struct Lanes {
    lanes: Vec<Handle>,
    /// Which lane's turn it is, counted round.
    next: AtomicUsize,
    _stop: DropGuard,
}

/// How the sockets that blocks leave by are set up.
#[derive(Clone, Debug)]
pub struct SocketTuning {
    /// The congestion control, if the system has it; empty leaves the system's. Bbr, some systems'
    /// default, halves the rate on loopback and costs on local networks.
    pub congestion_control: String,
    /// Bytes that may wait in a socket before they are sent: what a slow uplink lets pile up.
    pub not_sent_bytes: u32,
}

impl Default for SocketTuning {
    fn default() -> Self {
        Self { congestion_control: "cubic".to_owned(), not_sent_bytes: 128 * 1024 }
    }
}

impl Lanes {
    /// Starts `count` threads. Two are best on two cores; a third needs one of its own.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let lanes = (0..count.get())
            .map(|number| start_lane(number, stop.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self { lanes, next: AtomicUsize::new(0), _stop: stop.drop_guard() })
    }

    /// Serves what arrives at `listener`, the connections spread over the lanes in turns, until
    /// `shutdown` and the drain time after it.
    pub async fn serve(
        &self,
        listener: TcpListener,
        routes: Routes,
        limits: &Limits,
        tuning: &SocketTuning,
        shutdown: CancellationToken,
    ) {
        tuning.apply(&listener);
        let routes = routes.prepare();
        let http2 = http2_server(limits);
        let mut incoming = std::pin::pin!(accept(listener, limits.max_connections));
        let mut open = JoinSet::new();
        loop {
            let connection = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = open.join_next() => continue,
                Some(connection) = incoming.next() => connection,
            };
            let serving =
                serve_connection(http2.clone(), connection, routes.clone(), shutdown.clone());
            let lane = self.in_turn().next().expect("there is a lane");
            open.spawn_on(serving, lane);
        }
        let drained = timeout(limits.drain, async { while open.join_next().await.is_some() {} });
        if drained.await.is_err() {
            debug!("calls still open after the drain time are cut off");
        }
    }

    /// Runs a task on the lane whose turn it is, until the lanes end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(lane) = self.in_turn().next() {
            lane.spawn(task);
        }
    }

    /// What runs tasks on them: each lane once, from the one on whose turn it is.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Handle> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        self.lanes.iter().cycle().skip(first).take(self.lanes.len())
    }
}

impl SocketTuning {
    /// Sets up a socket, as far as the system lets us. Those accepted from one that listens inherit
    /// what it has.
    pub fn apply(&self, socket: &impl AsFd) {
        let socket = SockRef::from(socket);
        if !self.congestion_control.is_empty()
            && let Err(error) = socket.set_tcp_congestion(self.congestion_control.as_bytes())
        {
            let congestion_control = &self.congestion_control;
            warn!(%error, congestion_control, "cannot choose the congestion control");
        }
        if let Err(error) = socket.set_tcp_notsent_lowat(self.not_sent_bytes) {
            warn!(%error, "cannot limit what waits in a socket");
        }
    }
}

fn start_lane(number: usize, stop: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("bulk-{number}")).spawn(move || {
        runtime.block_on(stop.cancelled());
        // A name that is still being resolved holds up nobody.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

fn http2_server(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(limits.max_streams)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .initial_stream_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_frame_size(limits.http2.max_frame_size);
    builder
}

async fn serve_connection(
    http2: http2::Builder<TokioExecutor>,
    connection: Connection,
    routes: Routes,
    shutdown: CancellationToken,
) {
    let Ok(connection) = connection.adopt() else { return };
    let info = connection.connect_info();
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(info.clone());
        routes.clone().call(request)
    });
    let mut serving = std::pin::pin!(http2.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection broke");
    }
}
