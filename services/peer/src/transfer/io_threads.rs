//! The I/O threads of the data plane, and the connections served on them.
//!
//! Each is an OS thread with a runtime of its own; hashing and file I/O happen inline on it. Two
//! moved 1.5 times as much as one runtime with two workers, and `spawn_blocking` for each piece cost
//! a third.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use futures_util::StreamExt as _;
use shoal_common::{
    memory,
    server::{Limits, accept, observed, serve_connection},
};
use socket2::SockRef;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tracing::{debug, warn};

/// The threads. Dropping them ends everything that runs on them.
#[derive(Debug)]
pub struct IoThreads {
    threads: Vec<Handle>,
    /// The next one in turn.
    next: AtomicUsize,
    /// Cancelled when a thread has ended.
    gone: CancellationToken,
    _stop: DropGuard,
}

/// The default number of threads: one per processor; more than eight move no more than a network
/// can. Two even on one processor, so that a slow disk does not delay all connections.
pub fn default_io_threads() -> NonZeroUsize {
    const LEAST: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");
    const MOST: NonZeroUsize = NonZeroUsize::new(8).expect("eight is not zero");
    thread::available_parallelism().unwrap_or(LEAST).clamp(LEAST, MOST)
}

/// Options of the sockets that blocks are sent on.
#[derive(Clone, Debug)]
pub struct SocketTuning {
    /// Congestion controls by name: the first that the system allows, or else its default. Bbr,
    /// which is the default of some systems, costs 40 % on loopback and 10 % on shaped links; cubic
    /// and reno are alike.
    pub congestion_control: String,
    /// Bytes that may wait in a socket before they are sent: a slow uplink accumulates as many.
    pub not_sent_bytes: u32,
}

impl Default for SocketTuning {
    fn default() -> Self {
        Self { congestion_control: "cubic reno".to_owned(), not_sent_bytes: 128 * 1024 }
    }
}

impl IoThreads {
    /// Starts `count` threads.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        memory::keep_some();
        let (stop, gone) = (CancellationToken::new(), CancellationToken::new());
        let threads = (0..count.get())
            .map(|number| start_thread(number, stop.clone(), gone.clone().drop_guard()))
            .collect::<io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0), gone, _stop: stop.drop_guard() })
    }

    /// Cancelled when a thread has ended: the state of its tasks is lost.
    pub(crate) const fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Serves the connections of `listener`, assigned to the threads in turn, until `shutdown` and
    /// the drain time after it. Only HTTP/2 is accepted, and calls have no time limit.
    pub async fn serve(
        &self,
        listener: TcpListener,
        routes: Routes,
        limits: &Limits,
        tuning: &SocketTuning,
        shutdown: CancellationToken,
    ) {
        tuning.apply(&listener);
        let service = observed(routes);
        let mut incoming = std::pin::pin!(accept(listener, limits));
        let limits = Arc::new(limits.clone());
        let mut open = JoinSet::new();
        loop {
            let connection = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = open.join_next() => continue,
                Some(connection) = incoming.next() => connection,
            };
            let serving =
                serve_connection(connection, service.clone(), limits.clone(), shutdown.clone());
            let thread = self.in_turn().next().expect("there is a thread");
            open.spawn_on(serving, thread);
        }
        let drained = timeout(limits.drain, async { while open.join_next().await.is_some() {} });
        if drained.await.is_err() {
            debug!("calls still open after the drain time are cut off");
        }
    }

    /// Runs a task on the next thread in turn, until the threads end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.in_turn().next().expect("there is a thread").spawn(task)
    }

    /// The runtimes of the threads, each once, from the next in turn on.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Handle> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        self.threads.iter().cycle().skip(first).take(self.threads.len())
    }
}

impl SocketTuning {
    /// Sets the options of a socket, as far as the system allows. Sockets accepted from a listening
    /// one inherit its options.
    pub fn apply(&self, socket: &impl AsFd) {
        let socket = SockRef::from(socket);
        let names = &self.congestion_control;
        let chosen =
            names.split_whitespace().any(|name| socket.set_tcp_congestion(name.as_bytes()).is_ok());
        if !chosen && !names.is_empty() {
            warn!(names, "the system lets us have none of these congestion controls");
        }
        if let Err(error) = socket.set_tcp_notsent_lowat(self.not_sent_bytes) {
            warn!(%error, "cannot limit what waits in a socket");
        }
    }
}

fn start_thread(number: usize, stop: CancellationToken, gone: DropGuard) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name(format!("io-{number}")).spawn(move || {
        runtime.block_on(stop.cancelled());
        // Resolving a name delays nothing else.
        runtime.shutdown_background();
        drop(gone);
    })?;
    Ok(handle)
}
