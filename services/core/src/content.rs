//! Contents: ids, manifest, piece geometry, bitfield.

mod bitfield;
mod hash;
mod id;
mod layout;
mod link;
mod manifest;
mod wanted;

pub use bitfield::{Bitfield, BitfieldError};
pub use hash::{PieceHash, PieceHasher, PieceHashes, PieceHashesError, file_root};
pub use id::{ContentId, ContentIdError};
pub use layout::{
    BLOCK_UNIT, BlockRange, FileSpan, Layout, LayoutError, MAX_PIECE_COUNT, PieceIndex, PieceLength,
};
pub use link::{Link, LinkError};
pub use manifest::{FileEntry, MAX_MANIFEST_BYTES, Manifest, ManifestError};
pub use wanted::{Name, NameError, Wanted, WantedError};
