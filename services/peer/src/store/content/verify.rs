//! Reads a content again, and compares it with its hashes.

use std::collections::BTreeMap;

use shoal_common::lock::Mutex;
use shoal_core::content::{PieceIndex, Span};
use tokio_util::sync::CancellationToken;

use super::Stored;
use crate::store::{
    StoreError,
    error::check_stop,
    hash::{hash_piece, on_all_cores},
};

/// What [`Stored::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Pieces that were read.
    pub pieces: u32,
    /// Of these, pieces that cannot be read or have wrong bytes.
    pub damaged: Vec<PieceIndex>,
    /// Paths in the content of the files with bytes of these pieces.
    pub files: Vec<Vec<u8>>,
}

impl Stored {
    /// Reads and hashes all pieces that are held, on all cores. Changes nothing.
    pub fn verify(&self, stop: &CancellationToken) -> Result<Verified, StoreError> {
        let held: Vec<_> = self.held().iter().collect();
        let damaged = Mutex::new(Vec::new());
        on_all_cores(&held, |piece, buffer| {
            check_stop(stop, &self.path())?;
            let span = self.layout().span(*piece);
            let read = |at, buffer: &mut [u8]| self.files.read(span.blob, at, buffer);
            let hash = hash_piece(self.layout(), span, buffer, read);
            if hash.ok() != self.hash_of(*piece) {
                damaged.lock().push(*piece);
            }
            Ok(())
        })?;
        let mut damaged = std::mem::take(&mut *damaged.lock());
        damaged.sort_unstable();
        let files = self.files_with(&damaged);
        Ok(Verified { pieces: held.len() as u32, damaged, files })
    }

    /// Paths of all files with bytes of these pieces; none if the manifest is not known.
    fn files_with(&self, pieces: &[PieceIndex]) -> Vec<Vec<u8>> {
        let Some(manifest) = self.manifest().filter(|_| !pieces.is_empty()) else {
            return Vec::new();
        };
        let mut spans: BTreeMap<_, Vec<Span>> = BTreeMap::new();
        for piece in pieces {
            let span = self.layout().span(*piece);
            spans.entry(span.blob).or_default().push(span);
        }
        let is_damaged = |blob, offset, size| {
            let spans = spans.get(&blob).map_or(&[][..], Vec::as_slice);
            // The spans of a blob ascend: the first that ends behind the start decides.
            let first = spans.partition_point(|at| at.offset + u64::from(at.length) <= offset);
            spans.get(first).is_some_and(|span| span.offset < offset + size)
        };
        let files = manifest.entries().filter(|(_, entry)| {
            let part = entry.part();
            part.is_some_and(|part| {
                part.blob.is_some_and(|blob| is_damaged(blob, part.offset, part.size))
            })
        });
        files.map(|(number, _)| manifest.path_of(number)).collect()
    }
}
