//! Contents: ids, descriptor, manifest, piece geometry, bitfield.

mod bitfield;
mod descriptor;
mod file_name;
mod hash;
mod id;
mod layout;
mod link;
mod manifest;
mod metadata;
#[cfg(test)]
mod vectors;
mod wanted;
mod wire;

pub use bitfield::{Bitfield, BitfieldError};
pub use descriptor::{Descriptor, DescriptorError, MAX_DESCRIPTOR_BYTES, MAX_MANIFEST_BYTES};
pub use file_name::{Escaped, is_inner_target};
pub use hash::{PieceHash, PieceHasher, root_of};
pub use id::{ContentId, ContentIdError};
pub use layout::{
    BLOCK_UNIT, BlobNumber, BlockRange, Layout, LayoutError, MAX_PIECE_COUNT, PieceIndex,
    PieceLength, Span,
};
pub use link::{Link, LinkError};
pub use manifest::{
    Attributes, Entry, EntryNumber, Kind, MAX_ENTRIES, Manifest, ManifestError, NewBlob, Part,
};
pub use metadata::{ManifestHashes, ManifestHashesError, Metadata};
pub use wanted::{Name, NameError, Wanted, WantedError};
pub use wire::Malformed;
