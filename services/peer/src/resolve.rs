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
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Status;
use tracing::{Instrument as _, debug};

/// Peers asked at a time.
const PARALLEL: usize = 4;

/// Longest wait for one peer's manifest and hashes.
const PATIENCE: Duration = Duration::from_secs(20);

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
    while let Some(message) = chunks.message().await? {
        extend(&mut encoded, &message.chunk, MAX_MANIFEST_BYTES)?;
    }
    if ContentId::of_manifest(&encoded) != id {
        return Err(ResolveError::OtherContent);
    }
    let manifest = Manifest::decode(&encoded)?;

    let mut chunks =
        client.get_piece_hashes(GetPieceHashesRequest { content_id }).await?.into_inner();
    let expected = manifest.layout().piece_count() as usize * 32;
    let mut hashes = Vec::new();
    while let Some(message) = chunks.message().await? {
        extend(&mut hashes, &message.hashes, expected)?;
    }
    let hashes = PieceHashes::verify(&manifest, &hashes)?;
    Ok((manifest, hashes))
}

/// Appends what came, which is never more than `limit` bytes in sum, whatever a stranger sends.
fn extend(all: &mut Vec<u8>, chunk: &[u8], limit: usize) -> Result<(), ResolveError> {
    if all.len() + chunk.len() > limit {
        return Err(ResolveError::TooLong(limit));
    }
    all.extend_from_slice(chunk);
    Ok(())
}
