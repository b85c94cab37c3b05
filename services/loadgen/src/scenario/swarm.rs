//! Requests for pieces of a content, without a link to the peers. The pieces are discarded
//! unverified, so that the peers are measured and not this process.

use std::ops::Range;

use anyhow::{Context as _, bail};
use shoal_common::{status, text, trackers::trackers_of};
use shoal_core::{
    Address,
    content::{ContentId, Descriptor},
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

pub(super) struct Swarm {
    peers: Vec<Connected>,
    content: ContentId,
    /// All pieces but those of the manifest.
    blob_pieces: Range<u32>,
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
        let mut found = None;
        let mut holders = Vec::new();
        for peer in peers {
            match descriptor(&peer, content).await {
                Ok(descriptor) => {
                    found = Some(descriptor);
                    holders.push(peer);
                }
                Err(error) => {
                    let message = format!("{}: {error:#}", peer.address);
                    eprintln!("shoal-loadgen: {}", text::printable(&message));
                }
            }
        }
        let descriptor = found.with_context(|| format!("no peer has {content}"))?;
        let blob_pieces = descriptor.layout()?.known_pieces()..descriptor.piece_count();
        if blob_pieces.is_empty() {
            bail!("{content} is empty");
        }
        let pieces = CALL_BYTES / u64::from(descriptor.piece_length().get());
        let pieces = pieces.clamp(1, MAX_RANGES.into()) as u32;
        let pieces = pieces.min(blob_pieces.len() as u32);
        Ok(Self { peers: holders, content, blob_pieces, pieces })
    }

    pub(super) async fn call(&self, number: u64) -> Result<u64, Status> {
        let count = self.blob_pieces.end - self.blob_pieces.start;
        let first = (scatter(number) % u64::from(count)) as u32;
        let pieces = (0..self.pieces).map(|step| self.blob_pieces.start + (first + step) % count);
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

/// The descriptor of a content, from a peer.
async fn descriptor(peer: &Connected, content: ContentId) -> anyhow::Result<Descriptor> {
    let words = |refusal: Status| anyhow::anyhow!(status::words(&refusal));
    let request = GetManifestRequest { content_id: content.to_string(), max_manifest_bytes: 0 };
    let mut client = PeerServiceClient::new(peer.channel(0));
    let mut messages = client.get_manifest(request).await.map_err(words)?.into_inner();
    let first = messages.message().await.map_err(words)?.context("it sent no descriptor")?;
    if ContentId::of_descriptor(&first.descriptor) != content {
        bail!("its descriptor is of another content");
    }
    Ok(Descriptor::decode(&first.descriptor)?)
}
