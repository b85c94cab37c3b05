//! Fetches the descriptor of a content id from any peer, with the manifest if that is short; the id
//! proves them.
//!
//! Anybody can announce peers that accept a connection and never answer. An honest peer must not
//! wait behind them: peers that were not asked yet go first, of hosts with the fewest calls, and a
//! slow call does not delay the next one for longer than [`TURN`].

mod queue;

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use shoal_common::channel::{Channel, ConnectError, Options};
use shoal_core::{
    Address,
    content::{
        ContentId, Descriptor, DescriptorError, Manifest, ManifestError, ManifestHashes,
        ManifestHashesError, Metadata,
    },
};
use shoal_proto::peer::v1::{GetManifestRequest, peer_service_client::PeerServiceClient};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::Status;
use tracing::{Instrument as _, debug};

use self::queue::Queue;

/// Calls that begin within [`TURN`], at most.
const PARALLEL: usize = 32;

/// How long a call prevents others from beginning: far more than a peer in the same network needs.
const TURN: Duration = Duration::from_secs(2);

/// Calls in progress, at most.
const MAX_CALLS: usize = 256;

/// Longest wait for one peer's answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of a manifest that is fetched with its descriptor, at most: more than that of a file of
/// 8,192 pieces. A longer one comes in pieces, from several peers.
const SHORT_MANIFEST_BYTES: u64 = 320 << 10;

#[derive(Debug, thiserror::Error)]
enum ResolveError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", .0.message())]
    Status(#[from] Status),
    #[error("the answer took longer than {PATIENCE:?}")]
    Slow,
    #[error("the peer sent the descriptor of another content")]
    OtherContent,
    #[error("the answer has no descriptor, or more bytes than the manifest")]
    Malformed,
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Hashes(#[from] ManifestHashesError),
}

/// Asks the peers that arrive, and again those that failed, until one gives what the id proves.
/// Returns its address and that, or none if the channel of peers ends before.
pub(crate) async fn resolve(
    id: ContentId,
    peers: mpsc::Receiver<Address>,
) -> Option<(Address, Metadata)> {
    let ask_one = move |peer: Address| async move {
        let answer = timeout(PATIENCE, ask(id, &peer)).await.unwrap_or(Err(ResolveError::Slow));
        answer.inspect_err(|error| {
            debug!(content_id = %id, addr = %peer, %error, "no manifest here");
        })
    };
    first_answer(peers, ask_one).await
}

/// The first good answer of the peers that arrive; failed ones are asked again.
async fn first_answer<T, E, F>(
    mut peers: mpsc::Receiver<Address>,
    ask: impl Fn(Address) -> F,
) -> Option<(Address, T)>
where
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(PARALLEL));
    let mut queue = Queue::default();
    let mut calls = JoinSet::new();
    loop {
        let due = queue.due().filter(|_| calls.len() < MAX_CALLS);
        let turn = async {
            sleep_until(due.unwrap_or_else(Instant::now)).await;
            turns.clone().acquire_owned().await.expect("the semaphore is never closed")
        };
        tokio::select! {
            peer = peers.recv() => queue.insert(peer?, Instant::now()),
            Some(ended) = calls.join_next() => {
                // A call that panicked is not repeated.
                let Ok((peer, answer)) = ended else { continue };
                match answer {
                    Ok(answer) => return Some((peer, answer)),
                    Err(_) => queue.failed(&peer, Instant::now(), &mut rand::rng()),
                }
            }
            turn = turn, if due.is_some() => {
                let Some(peer) = queue.next(Instant::now()) else { continue };
                let answer = ask(peer.clone());
                let call = async move { (peer, with_turn(turn, answer).await) };
                calls.spawn(call.in_current_span());
            }
        }
    }
}

/// Releases the turn when the call has ended or is slow.
async fn with_turn<T>(turn: OwnedSemaphorePermit, call: impl Future<Output = T>) -> T {
    tokio::pin!(call);
    tokio::select! {
        answer = &mut call => return answer,
        () = sleep(TURN) => drop(turn),
    }
    call.await
}

async fn ask(id: ContentId, peer: &Address) -> Result<Metadata, ResolveError> {
    let mut client = PeerServiceClient::new(Channel::connect(peer, &Options::default()).await?);
    let request =
        GetManifestRequest { content_id: id.to_string(), max_manifest_bytes: SHORT_MANIFEST_BYTES };
    let mut chunks = client.get_manifest(request).await?.into_inner();
    let first = chunks.message().await?.ok_or(ResolveError::Malformed)?;
    if ContentId::of_descriptor(&first.descriptor) != id {
        return Err(ResolveError::OtherContent);
    }
    let descriptor = Descriptor::decode(&first.descriptor)?;
    if descriptor.manifest_bytes() > SHORT_MANIFEST_BYTES {
        let hashes = ManifestHashes::verify(&descriptor, &first.piece_hashes)?;
        return Ok(Metadata::Descriptor(descriptor, hashes));
    }
    let (mut encoded, mut next) = (Vec::new(), Some(first));
    while let Some(message) = next {
        encoded.extend_from_slice(&message.chunk);
        // Never more than announced, whatever a stranger sends.
        if encoded.len() as u64 > descriptor.manifest_bytes() {
            return Err(ResolveError::Malformed);
        }
        next = chunks.message().await?;
    }
    // On a thread for that: the engine shares this one (ADR 12).
    let decoding = spawn_blocking(move || Manifest::decode(descriptor, encoded));
    let manifest = decoding.await.unwrap_or_else(|panicked| resume_unwind(panicked.into_panic()));
    Ok(Metadata::Manifest(manifest?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: usize) -> Address {
        format!("10.0.{}.{}:7072", host / 256, host % 256).parse().expect("an address")
    }

    /// Names peers in this order; the one with the content answers after a while, the others are
    /// slow and then fail. Returns how long it takes.
    async fn time_to_find(tarpits: usize, honest: Address) -> Duration {
        let (name, named) = mpsc::channel(1024);
        for host in 0..tarpits {
            name.send(peer(host)).await.expect("it listens");
        }
        name.send(honest.clone()).await.expect("it listens");
        let ask = move |peer: Address| {
            let is_honest = peer == honest;
            async move {
                if is_honest {
                    sleep(Duration::from_millis(50)).await;
                    return Ok(());
                }
                sleep(PATIENCE).await;
                Err(())
            }
        };
        let started = Instant::now();
        first_answer(named, ask).await.expect("one answers");
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn peers_that_never_answer_do_not_delay_an_honest_one() {
        let took = time_to_find(200, peer(60_000)).await;
        assert!(took < Duration::from_secs(15), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_with_many_tarpits_does_not_delay_another() {
        let (name, named) = mpsc::channel(1024);
        for port in 1..=200 {
            name.send(peer(1).with_port(port)).await.expect("it listens");
        }
        name.send(peer(2)).await.expect("it listens");
        let ask = |it: Address| async move {
            if it != peer(2) {
                sleep(PATIENCE).await;
                return Err(());
            }
            Ok(())
        };
        let started = Instant::now();
        first_answer(named, ask).await.expect("one answers");
        assert!(started.elapsed() < 2 * TURN, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_fails_is_asked_again() {
        let (name, named) = mpsc::channel(1);
        name.send(peer(1)).await.expect("it listens");
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = calls.clone();
        let ask = move |_: Address| {
            let call = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move { if call < 3 { Err(()) } else { Ok(call) } }
        };
        assert_eq!(first_answer(named, ask).await, Some((peer(1), 3)));
    }

    #[tokio::test]
    async fn without_further_peers_there_is_no_answer() {
        let (name, named) = mpsc::channel::<Address>(1);
        drop(name);
        let ask = |_: Address| async { Ok::<(), ()>(()) };
        assert_eq!(first_answer(named, ask).await, None);
    }
}
