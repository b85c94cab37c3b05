//! What a fetch is to bring.

use std::sync::Arc;

use bytes::Bytes;
use shoal_core::swarm::{ContentKey, FetchKey, FetchRange, LinkKey};
use shoal_proto::peer::v1::PieceRange;

use crate::store::Stored;

/// One fetch, as the state machine requests it.
#[derive(Clone)]
pub struct FetchSpec {
    /// Its key.
    pub fetch: FetchKey,
    /// Its link.
    pub link: LinkKey,
    /// The content.
    pub content: ContentKey,
    /// Where its bytes are stored.
    pub stored: Arc<Stored>,
    /// The ranges, in this order.
    pub ranges: Vec<FetchRange>,
    /// Bytes of a block, as in `RequestPiece`.
    pub block_length: u32,
    /// From the neighbour's Hello; empty for a stranger.
    pub link_token: Bytes,
}

impl FetchSpec {
    /// The ranges of the request.
    pub(super) fn requested(&self) -> Vec<PieceRange> {
        let range = |FetchRange { range, .. }: &FetchRange| PieceRange {
            piece: range.piece.get(),
            offset: range.offset,
            length: range.length,
        };
        self.ranges.iter().map(range).collect()
    }
}
