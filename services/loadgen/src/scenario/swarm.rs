//! Requests for pieces of a content, without a link to the peers. The pieces are discarded
//! unverified, so that the peers are measured and not this process.

use anyhow::{Context as _, bail};
use shoal_common::{status, text, trackers::trackers_of};
use shoal_core::{
    Address,
    content::{ContentId, Layout, Manifest},
};
use shoal_proto::{
    peer::v1::{
        GetManifestRequest, PieceRange, RequestPieceRequest, RequestPieceResponse,
        peer_service_client::PeerServiceClient,
    },
    tracker::v1::{GetSwarmRequest, tracker_service_client::TrackerServiceClient},
};
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use super::scatter;
use crate::targets::{Connected, in_turn};

const REQUEST_PIECE: &str = "/shoal.peer.v1.PeerService/RequestPiece";

/// Approximate bytes of one call: as many as a peer requests at full speed.
const CALL_BYTES: u64 = 8 << 20;
/// The most ranges of one call in the protocol.
const MAX_RANGES: u32 = 64;
/// Bytes of a message: the fastest size on fast links.
const BLOCK_BYTES: u32 = 256 << 10;

/// Peers requested from a tracker.
const MAX_PEERS: u32 = 200;
/// The most bytes of a manifest: a longer one cannot be valid.
const MAX_MANIFEST_BYTES: usize = shoal_core::content::MAX_MANIFEST_BYTES;

pub(super) struct Swarm {
    peers: Vec<Connected>,
    content: ContentId,
    layout: Layout,
    /// Pieces requested in one call.
    pieces: u32,
}

/// The seeders of a swarm that the trackers name.
pub(super) async fn complete_peers(
    trackers: &[Connected],
    content: ContentId,
) -> anyhow::Result<Vec<Address>> {
    let addresses: Vec<_> = trackers.iter().map(|tracker| tracker.address.clone()).collect();
    let responsible = trackers_of(content, &addresses);
    let mut peers = Vec::new();
    for tracker in trackers.iter().filter(|tracker| responsible.contains(&tracker.address)) {
        let request = GetSwarmRequest { content_id: content.to_string(), max_peers: MAX_PEERS };
        match TrackerServiceClient::new(tracker.channel(0)).get_swarm(request).await {
            Ok(answer) => peers.extend(answer.into_inner().peers),
            Err(refusal) => {
                eprintln!("shoal-loadgen: {}: {}", tracker.address, status::words(&refusal));
            }
        }
    }
    let complete = peers.into_iter().filter(|peer| peer.complete);
    let addresses: Vec<_> = complete.filter_map(|peer| peer.address.parse().ok()).collect();
    if addresses.is_empty() {
        bail!("the trackers know no seeder of {content}");
    }
    Ok(addresses)
}

impl Swarm {
    /// Skips peers that do not have the content.
    pub(super) async fn prepare(peers: Vec<Connected>, content: ContentId) -> anyhow::Result<Self> {
        let mut layout = None;
        let mut holders = Vec::new();
        for peer in peers {
            match manifest(&peer, content).await {
                Ok(manifest) => {
                    layout = Some(manifest.layout().clone());
                    holders.push(peer);
                }
                Err(error) => {
                    let message = format!("{}: {error:#}", peer.address);
                    eprintln!("shoal-loadgen: {}", text::printable(&message));
                }
            }
        }
        let layout = layout.with_context(|| format!("no peer has {content}"))?;
        let Some(first) = layout.piece(0) else { bail!("{content} is empty") };
        let piece_bytes = u64::from(layout.length_of(first)).max(1);
        let pieces = (CALL_BYTES / piece_bytes).clamp(1, MAX_RANGES.into()) as u32;
        let pieces = pieces.min(layout.piece_count());
        Ok(Self { peers: holders, content, layout, pieces })
    }

    pub(super) async fn call(&self, number: u64) -> Result<u64, Status> {
        let count = self.layout.piece_count();
        let first = (scatter(number) % u64::from(count)) as u32;
        let pieces = (0..self.pieces).map(|step| (first + step) % count);
        let request = RequestPieceRequest {
            content_id: self.content.to_string(),
            ranges: pieces.map(|piece| PieceRange { piece, offset: 0, length: 0 }).collect(),
            block_length: BLOCK_BYTES,
            ..RequestPieceRequest::default()
        };
        let mut grpc = Grpc::new(in_turn(&self.peers, number));
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<RequestPieceRequest, RequestPieceResponse>::default();
        let path = PathAndQuery::from_static(REQUEST_PIECE);
        let mut blocks =
            grpc.server_streaming(Request::new(request), path, codec).await?.into_inner();
        let mut bytes = 0;
        while let Some(block) = blocks.message().await? {
            bytes += block.data.len() as u64;
        }
        Ok(bytes)
    }
}

/// The manifest of a content, from a peer.
async fn manifest(peer: &Connected, content: ContentId) -> anyhow::Result<Manifest> {
    let words = |refusal: Status| anyhow::anyhow!(status::words(&refusal));
    let request = GetManifestRequest { content_id: content.to_string() };
    let mut client = PeerServiceClient::new(peer.channel(0));
    let mut chunks = client.get_manifest(request).await.map_err(words)?.into_inner();
    let mut encoded = Vec::new();
    while let Some(chunk) = chunks.message().await.map_err(words)? {
        encoded.extend_from_slice(&chunk.chunk);
        if encoded.len() > MAX_MANIFEST_BYTES {
            bail!("its manifest is too long");
        }
    }
    if ContentId::of_manifest(&encoded) != content {
        bail!("its manifest is of another content");
    }
    Ok(Manifest::decode(&encoded)?)
}
