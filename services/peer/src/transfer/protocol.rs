//! Requests for blocks, as both ends know them: by the call `RequestPiece`, or on a link.

use shoal_core::content::{BlockRange, Layout};
use shoal_proto::peer::v1::PieceRange;
use tonic::Status;

/// The path of the call.
pub(super) const PATH: &str = "/shoal.peer.v1.PeerService/RequestPiece";

/// Ranges of one request, at most.
pub const MAX_RANGES: usize = 64;

/// Bytes of data in a message, at most.
pub const MAX_BLOCK_LENGTH: u32 = 256 * 1024;

/// The ranges of a request, in order, if they lie within the content.
pub(crate) fn parse_ranges(
    layout: &Layout,
    ranges: &[PieceRange],
) -> Result<Vec<BlockRange>, Status> {
    if !(1..=MAX_RANGES).contains(&ranges.len()) {
        let error = format!("ranges: 1 to {MAX_RANGES} of them, not {}", ranges.len());
        return Err(Status::invalid_argument(error));
    }
    ranges
        .iter()
        .map(|range| layout.range(range.piece, range.offset, range.length))
        .collect::<Result<_, _>>()
        .map_err(|error| Status::out_of_range(format!("ranges: {error}")))
}
