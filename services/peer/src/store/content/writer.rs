//! Writes verified pieces to disk, by one thread at a time.
//!
//! Threads that write to one file at the same time wait for each other in the kernel, spinning on
//! the inode's lock. Here a thread that finds no active writer becomes the writer, and also writes
//! the pieces that other threads submit meanwhile; those return to their sockets immediately.

use bytes::Bytes;
use shoal_common::lock::{Change, Condvar, Mutex};
use shoal_core::content::{PieceIndex, Span};

use crate::store::StoreError;

/// Pieces that wait, at most; a thread that submits one more waits for room. It limits memory, and
/// is the back-pressure of a slow disk.
const MAX_WAITING: usize = 8;

/// A verified piece.
pub(super) struct VerifiedPiece {
    pub(super) piece: PieceIndex,
    pub(super) span: Span,
    /// Its bytes, in order; empty if they were written before.
    pub(super) bytes: Vec<Bytes>,
}

/// The pieces of one content that wait to be written.
#[derive(Default)]
pub(super) struct Writer {
    queue: Mutex<Queue>,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<VerifiedPiece>,
    has_writer: bool,
    /// Threads that wait for room.
    blocked: usize,
}

/// A batch could not be written.
pub(super) struct WriteFailed {
    pub(super) error: StoreError,
    /// The pieces of the batch and those that waited behind it.
    pub(super) lost: Vec<PieceIndex>,
}

impl Writer {
    /// Submits a piece. Returns the pieces that this thread wrote by `write`; none if another
    /// thread is writing, which then also writes this piece.
    pub(super) fn submit(
        &self,
        verified: VerifiedPiece,
        mut write: impl FnMut(&[VerifiedPiece]) -> Result<(), StoreError>,
    ) -> Result<Vec<PieceIndex>, WriteFailed> {
        let mut queue = self.queue.lock();
        while queue.has_writer && queue.waiting.len() >= MAX_WAITING {
            queue.blocked += 1;
            queue = self.room.wait(queue);
            queue.blocked -= 1;
        }
        queue.waiting.push(verified);
        if queue.has_writer {
            return Ok(Vec::new());
        }
        queue.has_writer = true;
        let _until_this_thread_stops_writing = Change;
        let mut written = Vec::new();
        loop {
            let batch = std::mem::take(&mut queue.waiting);
            drop(queue);
            self.room.notify_all();
            let outcome = write(&batch);
            queue = self.queue.lock();
            let pieces = batch.iter().map(|verified| verified.piece);
            if let Err(error) = outcome {
                let behind = std::mem::take(&mut queue.waiting);
                let lost = pieces.chain(behind.iter().map(|verified| verified.piece)).collect();
                queue.has_writer = false;
                self.room.notify_all();
                return Err(WriteFailed { error, lost });
            }
            written.extend(pieces);
            // A blocked thread takes over, so that no thread writes for the others forever.
            if queue.waiting.is_empty() || queue.blocked > 0 {
                queue.has_writer = false;
                self.room.notify_all();
                return Ok(written);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use shoal_core::content::BlobNumber;

    use super::*;

    fn verified(piece: u32) -> VerifiedPiece {
        let span = Span { blob: BlobNumber::new(1), offset: 0, length: 1 };
        VerifiedPiece { piece: PieceIndex::new(piece), span, bytes: Vec::new() }
    }

    #[test]
    fn each_piece_is_written_once_and_by_one_thread_at_a_time() {
        const THREADS: u32 = 2 * MAX_WAITING as u32;
        const PIECES: u32 = 200;
        let writer = Writer::default();
        let is_writing = AtomicBool::new(false);
        let write = |batch: &[VerifiedPiece]| {
            assert!(!is_writing.swap(true, Ordering::SeqCst));
            assert!(batch.len() <= MAX_WAITING + 1);
            thread::yield_now();
            is_writing.store(false, Ordering::SeqCst);
            Ok(())
        };
        let written = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for first in (0..THREADS).map(|number| number * PIECES) {
                let (writer, write, written) = (&writer, &write, &written);
                scope.spawn(move || {
                    for piece in first..first + PIECES {
                        let pieces = writer.submit(verified(piece), write).ok().unwrap();
                        written.lock().extend(pieces.into_iter().map(PieceIndex::get));
                    }
                });
            }
        });
        let mut written = written.into_inner();
        written.sort_unstable();
        assert_eq!(written, (0..THREADS * PIECES).collect::<Vec<_>>());
    }

    #[test]
    fn a_failed_batch_is_lost_with_the_pieces_that_wait_behind_it() {
        let writer = Writer::default();
        let fail = |_: &[VerifiedPiece]| {
            // As another thread would while this one writes.
            let written = writer.submit(verified(2), |_| Ok(())).ok().unwrap();
            assert!(written.is_empty());
            Err(StoreError::DiskFull { path: PathBuf::new() })
        };
        let failed = writer.submit(verified(1), fail).err().unwrap();
        assert_eq!(failed.lost, [1, 2].map(PieceIndex::new));
        assert_eq!(writer.submit(verified(1), |_| Ok(())).ok().unwrap(), [PieceIndex::new(1)]);
    }
}
