//! From a content id to its manifest and piece hashes, fetched from any peer and proven by the id.

use std::{collections::HashSet, sync::Arc, time::Duration};

use shoal_common::{
    Address,
    backoff::Backoff,
    channel::{Channel, ConnectError, Options},
};
use shoal_core::content::{
    ContentId, MAX_MANIFEST_BYTES, Manifest, ManifestError, PieceHashes, PieceHashesError,
};
use shoal_proto::peer::v1::{
    GetManifestRequest, GetPieceHashesRequest, peer_service_client::PeerServiceClient,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Status;
use tracing::{Instrument as _, debug};

/// Peers asked at a time.
const PARALLEL: usize = 4;

/// Longest wait for one peer's manifest and hashes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of long manifests and lists of hashes that are received at a time, by the whole process.
const LONG_LISTS_BYTES: usize = MAX_MANIFEST_BYTES;

/// A list up to here is short.
const SHORT_LIST_BYTES: usize = 1 << 20;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum ResolveError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", .0.message())]
    Status(#[from] Status),
    #[error("the answer took longer than {PATIENCE:?}")]
    Slow,
    #[error("the manifest there is another content's")]
    OtherContent,
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Hashes(#[from] PieceHashesError),
}

/// Asks the peers that come in, some at a time and those that fail again later, until one gives
/// what the id proves. None if the channel of peers ends before.
pub(crate) async fn resolve(
    id: ContentId,
    mut peers: mpsc::Receiver<Address>,
) -> Option<(Manifest, PieceHashes)> {
    let turns = Arc::new(Semaphore::new(PARALLEL));
    let mut known = HashSet::new();
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            peer = peers.recv() => {
                let peer = peer?;
                if known.insert(peer.clone()) {
                    asking.spawn(ask_until_answered(id, peer, turns.clone()).in_current_span());
                }
            }
            Some(Ok(found)) = asking.join_next() => return Some(found),
        }
    }
}

async fn ask_until_answered(
    id: ContentId,
    peer: Address,
    turns: Arc<Semaphore>,
) -> (Manifest, PieceHashes) {
    let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
    loop {
        {
            let _turn = turns.acquire().await.expect("the semaphore is never closed");
            match timeout(PATIENCE, ask(id, &peer)).await.unwrap_or(Err(ResolveError::Slow)) {
                Ok(found) => return found,
                Err(error) => debug!(content_id = %id, addr = %peer, %error, "no manifest here"),
            }
        }
        let pause = backoff.next(&mut rand::rng());
        sleep(pause).await;
    }
}

async fn ask(id: ContentId, peer: &Address) -> Result<(Manifest, PieceHashes), ResolveError> {
    let mut client = PeerServiceClient::new(Channel::connect(peer, &Options::default()).await?);
    let content_id = id.to_string();

    let request = GetManifestRequest { content_id: content_id.clone() };
    let mut chunks = client.get_manifest(request).await?.into_inner();
    let mut encoded = Vec::new();
    // The first chunk tells how long the manifest is, which has to be true.
    let (mut limit, mut room) = (None, None);
    while let Some(message) = chunks.message().await? {
        if limit.is_none() {
            let told = usize::try_from(message.total_bytes).unwrap_or(usize::MAX);
            if told > MAX_MANIFEST_BYTES {
                return Err(ResolveError::TooLong(MAX_MANIFEST_BYTES));
            }
            room = room_for(told).await;
            limit = Some(told);
        }
        extend(&mut encoded, &message.chunk, limit.unwrap_or(0))?;
    }
    if ContentId::of_manifest(&encoded) != id {
        return Err(ResolveError::OtherContent);
    }
    let manifest = Manifest::decode(&encoded)?;
    drop((encoded, room));

    let mut chunks =
        client.get_piece_hashes(GetPieceHashesRequest { content_id }).await?.into_inner();
    let expected = manifest.layout().piece_count() as usize * 32;
    let _room = room_for(expected).await;
    let mut hashes = Vec::new();
    while let Some(message) = chunks.message().await? {
        extend(&mut hashes, &message.hashes, expected)?;
    }
    let hashes = PieceHashes::verify(&manifest, &hashes)?;
    Ok((manifest, hashes))
}

/// Waits until there is room for a list of so many bytes. A short one needs none, so that it need not
/// wait for long ones, which may be strangers' that come slowly.
async fn room_for(bytes: usize) -> Option<SemaphorePermit<'static>> {
    static ROOM: Semaphore = Semaphore::const_new(LONG_LISTS_BYTES);
    if bytes <= SHORT_LIST_BYTES {
        return None;
    }
    let bytes = bytes.min(LONG_LISTS_BYTES) as u32;
    Some(ROOM.acquire_many(bytes).await.expect("the semaphore is never closed"))
}

/// Appends what came, which is never more than `limit` bytes in sum, whatever a stranger sends.
fn extend(all: &mut Vec<u8>, chunk: &[u8], limit: usize) -> Result<(), ResolveError> {
    if all.len() + chunk.len() > limit {
        return Err(ResolveError::TooLong(limit));
    }
    all.extend_from_slice(chunk);
    Ok(())
}
