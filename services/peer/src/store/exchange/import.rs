//! Imports a content as a stream: each piece is verified and written, and the content is added when
//! it is complete.

use std::sync::Arc;

use shoal_core::content::{Manifest, Metadata, PieceIndex};

use crate::store::{
    StoreError,
    catalogue::{Need, Reservation, Store},
    content::{ContentDirectory, Stored},
};

/// A running import. If it is dropped before [`Import::finish`], its files are deleted.
pub struct Import {
    store: Arc<Store>,
    /// None once the content is in the store.
    room: Option<Reservation>,
    /// A directory of its own in the store's `import`.
    directory: ContentDirectory,
    stored: Arc<Stored>,
    /// The pieces whose bytes are missing, in order.
    missing: std::vec::IntoIter<PieceIndex>,
    /// The next piece, as far as its bytes have arrived.
    next: Option<PieceIndex>,
    bytes: Vec<u8>,
}

impl Import {
    /// Starts an import, if there is room for it.
    pub fn start(store: &Arc<Store>, manifest: Manifest) -> Result<Self, StoreError> {
        let room = store.reserve(Need::all(manifest.descriptor().disk_bytes()))?;
        Self::start_within(room, store, manifest)
    }

    /// Like [`Import::start`], in room that [`Store::make_room`] has reserved.
    pub fn start_within(
        room: Reservation,
        store: &Arc<Store>,
        manifest: Manifest,
    ) -> Result<Self, StoreError> {
        let directory = ContentDirectory::new(store.staging());
        let stored = Stored::resume(Metadata::Manifest(manifest), &directory, Arc::default())?;
        let held = stored.held();
        let missing: Vec<_> = stored.layout().pieces().filter(|piece| !held.has(*piece)).collect();
        let (store, room) = (store.clone(), Some(room));
        let (mut missing, bytes) = (missing.into_iter(), Vec::new());
        let next = missing.next();
        Ok(Self { store, room, directory, stored, missing, next, bytes })
    }

    /// Adds the next bytes: those of all pieces in order, without the manifest and the holes.
    pub fn chunk(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let next = self.next.ok_or(StoreError::Import("more bytes arrived than it has"))?;
            let lacks = self.stored.layout().length_of(next) as usize - self.bytes.len();
            let (part, rest) = bytes.split_at(bytes.len().min(lacks));
            self.bytes.extend_from_slice(part);
            bytes = rest;
            if part.len() == lacks {
                let bytes = std::mem::take(&mut self.bytes);
                let written = bytes.len() as u64;
                self.stored.store_whole(next, bytes)?;
                if let Some(room) = &mut self.room {
                    room.wrote(written);
                }
                self.next = self.missing.next();
            }
        }
        Ok(())
    }

    /// Adds the content to the store, after all its bytes.
    pub fn finish(mut self) -> Result<Arc<Stored>, StoreError> {
        if self.next.is_some() {
            return Err(StoreError::Import("it ends before all bytes have arrived"));
        }
        self.stored.sync()?;
        let manifest = self.stored.complete_manifest()?.clone();
        let room = self.room.take().expect("an import is finished once");
        self.store.add_complete(room, Metadata::Manifest(manifest), self.directory.path())
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        // Fails if the import was finished. What remains is deleted when the store is next opened.
        let _ = self.directory.delete();
    }
}
