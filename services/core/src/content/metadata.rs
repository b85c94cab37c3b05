//! What a peer learns about a content before it fetches any piece.

use super::{
    BlobNumber, ContentId, Descriptor, Layout, Manifest, PieceHash, PieceHasher, Span, root_of,
};

/// The hashes of the pieces of a manifest, proven by its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHashes(Vec<PieceHash>);

/// The list of hashes does not belong to the descriptor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hashes of the manifest's pieces do not lead to its hash in the descriptor")]
pub struct ManifestHashesError;

impl ManifestHashes {
    /// Checks hashes, 32 bytes per piece of the manifest.
    pub fn verify(descriptor: &Descriptor, bytes: &[u8]) -> Result<Self, ManifestHashesError> {
        let pieces = descriptor.manifest_bytes().div_ceil(Layout::MANIFEST_PIECE.get().into());
        match bytes.as_chunks::<32>() {
            (hashes, [])
                if hashes.len() as u64 == pieces
                    && root_of(hashes) == *descriptor.manifest_root() =>
            {
                Ok(Self(hashes.to_vec()))
            }
            _ => Err(ManifestHashesError),
        }
    }

    /// Of a manifest that is known.
    pub fn of(manifest: &Manifest) -> Self {
        let layout = manifest.layout();
        let hash = |span: Span| {
            let mut hasher = PieceHasher::new(layout, span);
            let start = span.offset as usize;
            hasher.update(&manifest.encoded()[start..start + span.length as usize]);
            hasher.finish()
        };
        let pieces = layout.pieces_of(BlobNumber::MANIFEST);
        Self(pieces.map(|piece| hash(layout.span(piece))).collect())
    }

    /// All hashes, 32 bytes per piece, in order.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// The hash of a piece of the manifest.
    pub fn get(&self, piece: u32) -> Option<&PieceHash> {
        self.0.get(piece as usize)
    }
}

/// What is known about a content: a short manifest is fetched with the descriptor, a long one in
/// pieces, from several neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Its manifest.
    Manifest(Manifest),
    /// Its descriptor, and the hashes by which the pieces of its manifest are checked.
    Descriptor(Descriptor, ManifestHashes),
}

impl Metadata {
    /// The descriptor of the content.
    pub const fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Manifest(manifest) => manifest.descriptor(),
            Self::Descriptor(descriptor, _) => descriptor,
        }
    }

    /// The id of the content.
    pub fn id(&self) -> ContentId {
        match self {
            Self::Manifest(manifest) => manifest.id(),
            Self::Descriptor(descriptor, _) => descriptor.id(),
        }
    }
}
