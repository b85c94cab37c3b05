//! What is distributed: ids, manifest, piece geometry, bitfield.

mod bitfield;
mod id;
mod layout;

pub use bitfield::{Bitfield, BitfieldError};
pub use id::{ContentId, ContentIdError};
pub use layout::{
    BLOCK_UNIT, BlockRange, FileSpan, Layout, LayoutError, MAX_PIECE_COUNT, PieceIndex, PieceLength,
};
