//! The log of the pieces held: `held.log` beside the files of a content.
//!
//! It starts with the id of the boot during which it was written. A piece is appended after its
//! data was written, and the page cache outlives the process: so until the next reboot all listed
//! pieces are held. A checkpoint tells how many of them reached the disk; after a reboot the others
//! are hashed again.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::durable_files::{read_if_exists, write_whole};
use shoal_core::content::{Bitfield, PieceIndex};
use uuid::Uuid;

use crate::store::{
    StoreError,
    error::cannot,
    file_system::sync_parent,
    probe::{Step, reach},
};

const MAGIC: [u8; 8] = *b"shoalhl1";
const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 8;

/// Flag of a record whose value is not a piece, but the number of pieces that reached the disk.
const CHECKPOINT: u32 = 1 << 31;

/// Bytes that a power cut may put in doubt: hashing 64 MiB again takes a fraction of a second.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// The same limit in time, for slow links.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Identifies a run of the kernel.
type BootId = [u8; 16];

/// A log that is open for appending.
pub(in crate::store) struct HeldLog {
    file: Arc<File>,
    path: PathBuf,
    /// The offset of the next record.
    end: u64,
    pieces: u32,
    /// How many of these the last checkpoint covers.
    on_disk: u32,
    /// Bytes of the pieces since the last checkpoint, and when the first of these was appended.
    unsynced: Option<(u64, Instant)>,
    /// A checkpoint failed, so that nothing is appended any more.
    has_failed: bool,
}

/// The pieces that a log lists.
pub(in crate::store) struct LoggedPieces {
    /// Pieces whose data is on disk or in the page cache.
    pub(in crate::store) held: Bitfield,
    /// Pieces whose data may have been lost in a reboot; not in `held`.
    pub(in crate::store) doubtful: Vec<PieceIndex>,
    /// Pieces of `held` that no checkpoint covers: written since the machine started.
    pub(in crate::store) unsynced: Vec<PieceIndex>,
    /// The log was written since the machine started, and lists exactly the pieces held.
    is_valid: bool,
    /// Bytes of the intact part of the log.
    end: u64,
    pieces: u32,
    on_disk: u32,
}

impl LoggedPieces {
    /// Those of the pieces that were never held.
    pub(super) fn unknown(&self, pieces: impl IntoIterator<Item = PieceIndex>) -> Vec<PieceIndex> {
        let mut pieces: Vec<_> =
            pieces.into_iter().filter(|piece| !self.held.has(*piece)).collect();
        if !pieces.is_empty() {
            let doubtful: HashSet<_> = self.doubtful.iter().collect();
            pieces.retain(|piece| !doubtful.contains(piece));
        }
        pieces
    }

    /// Adds pieces that are known to be there.
    pub(super) fn hold(&mut self, pieces: impl IntoIterator<Item = PieceIndex>) {
        for piece in pieces {
            self.is_valid &= !self.held.insert(piece);
        }
        self.doubtful.retain(|piece| !self.held.has(*piece));
    }

    /// Moves pieces from `held` to `doubtful`.
    pub(super) fn doubt(&mut self, pieces: impl IntoIterator<Item = PieceIndex>) {
        let doubtful: Vec<_> =
            pieces.into_iter().filter(|piece| self.held.remove(*piece)).collect();
        self.is_valid &= doubtful.is_empty();
        self.unsynced.retain(|piece| self.held.has(*piece));
        self.doubtful.extend(doubtful);
    }
}

/// Reads a log. A log that does not exist or has a damaged header lists nothing.
pub(in crate::store) fn read(path: &Path, piece_count: u32) -> Result<LoggedPieces, StoreError> {
    let bytes = read_if_exists(path)?.unwrap_or_default();
    Ok(parse(&bytes, piece_count, &current_boot()))
}

/// Deletes a log if it exists.
pub(in crate::store) fn delete(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        deleted => deleted.map_err(cannot("delete", path)),
    }
}

impl HeldLog {
    /// Opens a log for appending. `logged` was read from it, and `held` are its pieces after the
    /// doubtful ones were checked. If the log has to be replaced, `sync` first makes the data of all
    /// held pieces reach the disk.
    pub(super) fn open(
        path: &Path,
        logged: &LoggedPieces,
        held: &Bitfield,
        sync: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        if !logged.is_valid {
            sync()?;
            return Self::create(path, held);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(path).map_err(cannot("open", path))?;
        file.set_len(logged.end).map_err(cannot("truncate", path))?;
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            end: logged.end,
            pieces: logged.pieces,
            on_disk: logged.on_disk,
            unsynced: (logged.pieces > logged.on_disk).then(|| (0, Instant::now())),
            has_failed: false,
        })
    }

    /// Replaces the log by one that lists these pieces, which reached the disk.
    pub(in crate::store) fn create(path: &Path, held: &Bitfield) -> Result<Self, StoreError> {
        let mut bytes = header(&current_boot());
        bytes.extend(held.iter().flat_map(|piece| record(piece.get())));
        bytes.extend(record(CHECKPOINT | held.held()));
        let file = write_whole(path, &bytes, sync_parent)?;
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            end: bytes.len() as u64,
            pieces: held.held(),
            on_disk: held.held(),
            unsynced: None,
            has_failed: false,
        })
    }

    /// Appends pieces whose data, `bytes` in total, was written.
    pub(super) fn append(&mut self, pieces: &[PieceIndex], bytes: u64) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::NotSynced(self.path.clone()));
        }
        let records: Vec<u8> = pieces.iter().flat_map(|piece| record(piece.get())).collect();
        self.write(&records)?;
        self.pieces += pieces.len() as u32;
        let (before, since) = self.unsynced.unwrap_or_else(|| (0, Instant::now()));
        self.unsynced = Some((before.saturating_add(bytes), since));
        Ok(())
    }

    /// Begins a checkpoint: the number of pieces in the log, if any were appended since the last
    /// one.
    pub(super) fn begin_checkpoint(&mut self) -> Option<u32> {
        self.unsynced.map(|_| self.pieces)
    }

    /// Records that the data of the first `pieces` of the log reached the disk. The caller syncs
    /// the log itself by [`UnsyncedLog::sync`] after it has released the lock.
    pub(super) fn end_checkpoint(&mut self, pieces: u32) -> Result<UnsyncedLog, StoreError> {
        self.write(&record(CHECKPOINT | pieces))?;
        self.on_disk = pieces;
        let later = self.pieces > pieces;
        self.unsynced = later.then(|| (0, Instant::now()));
        Ok(UnsyncedLog { file: self.file.clone(), path: self.path.clone() })
    }

    /// Data of some pieces since the last checkpoint did not reach the disk, and it is unknown of
    /// which. Removes all of these from the log, which accepts no others, and returns them.
    pub(super) fn fail_checkpoint(&mut self) -> Result<Vec<PieceIndex>, StoreError> {
        self.has_failed = true;
        self.unsynced = None;
        let mut bytes = vec![0; self.end as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(cannot("read", &self.path))?;
        let mut on_disk = bytes[..HEADER_BYTES].to_vec();
        let mut listed = pieces_of(&bytes[HEADER_BYTES..]);
        on_disk.extend(listed.by_ref().take(self.on_disk as usize).flat_map(record));
        on_disk.extend(record(CHECKPOINT | self.on_disk));
        // Not longer than the log: this needs no free space.
        self.file
            .write_all_at(&on_disk, 0)
            .and_then(|()| self.file.set_len(on_disk.len() as u64))
            .map_err(cannot("write", &self.path))?;
        (self.end, self.pieces) = (on_disk.len() as u64, self.on_disk);
        Ok(listed.map(PieceIndex::new).collect())
    }

    /// A checkpoint has failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Enough was appended since the last checkpoint, or long enough ago.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        self.unsynced.is_some_and(|(bytes, since)| {
            bytes >= CHECKPOINT_BYTES || since.elapsed() >= CHECKPOINT_INTERVAL
        })
    }

    /// A write that fails half-way is overwritten by the next one.
    fn write(&mut self, records: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(records, self.end).map_err(cannot("write", &self.path))?;
        self.end += records.len() as u64;
        Ok(())
    }
}

/// A log whose last checkpoint has not reached the disk.
#[must_use]
pub(super) struct UnsyncedLog {
    file: Arc<File>,
    path: PathBuf,
}

impl UnsyncedLog {
    pub(super) fn sync(self) -> Result<(), StoreError> {
        reach(Step::SyncLog)
            .and_then(|()| self.file.sync_data())
            .map_err(cannot("sync", &self.path))
    }
}

/// The pieces that the records of a log list, in order.
fn pieces_of(records: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let records = records.as_chunks::<RECORD_BYTES>().0.iter();
    let values =
        records.map(|record| u32::from_le_bytes([record[0], record[1], record[2], record[3]]));
    values.filter(|value| value & CHECKPOINT == 0)
}

/// The first bytes of a log.
pub(in crate::store) fn header(boot: &BootId) -> Vec<u8> {
    [MAGIC.as_slice(), boot].concat()
}

pub(in crate::store) fn record(value: u32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&value.to_le_bytes());
    record[4..].copy_from_slice(&blake3::hash(&value.to_le_bytes()).as_bytes()[..4]);
    record
}

/// Reads the records before the first that is damaged or incomplete.
pub(in crate::store) fn parse(bytes: &[u8], piece_count: u32, boot: &BootId) -> LoggedPieces {
    let mut logged = LoggedPieces {
        held: Bitfield::empty(piece_count),
        doubtful: Vec::new(),
        unsynced: Vec::new(),
        is_valid: false,
        end: 0,
        pieces: 0,
        on_disk: 0,
    };
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return logged };
    if header[..MAGIC.len()] != MAGIC {
        return logged;
    }
    logged.is_valid = header[MAGIC.len()..] == *boot;
    logged.end = HEADER_BYTES as u64;
    let mut listed = Vec::new();
    let mut on_disk = 0;
    for bytes in rest.as_chunks::<RECORD_BYTES>().0 {
        let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if *bytes != record(value) {
            break;
        }
        logged.end += RECORD_BYTES as u64;
        match value & CHECKPOINT {
            0 => listed.push(PieceIndex::new(value)),
            _ => on_disk = (value & !CHECKPOINT) as usize,
        }
    }
    logged.pieces = listed.len() as u32;
    let later = listed.split_off(on_disk.min(listed.len()));
    logged.on_disk = listed.len() as u32;
    let mut later_once = Bitfield::empty(piece_count);
    let later = later.into_iter().filter(|piece| later_once.insert(*piece)).collect();
    if logged.is_valid {
        logged.unsynced = later;
    } else {
        logged.doubtful = later;
    }
    for piece in listed.iter().chain(&logged.unsynced) {
        logged.held.insert(*piece);
    }
    // A piece that was written again after a checkpoint has its old bytes or its new ones.
    for piece in &logged.doubtful {
        logged.held.remove(*piece);
    }
    logged
}

/// If the system does not tell, every start of the process counts as a boot.
fn current_boot() -> BootId {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| Uuid::try_parse(text.trim()).ok())
        .unwrap_or_else(Uuid::new_v4)
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(numbers: &[u32]) -> Vec<PieceIndex> {
        numbers.iter().copied().map(PieceIndex::new).collect()
    }

    #[test]
    fn a_checkpoint_covers_only_the_pieces_listed_when_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("held.log");
        let mut log =
            HeldLog::open(&path, &read(&path, 10).unwrap(), &Bitfield::empty(10), || Ok(()))
                .unwrap();
        log.append(&pieces(&[7, 2]), 2).unwrap();
        let begun = log.begin_checkpoint().unwrap();
        log.append(&pieces(&[5]), 1).unwrap();
        log.end_checkpoint(begun).unwrap().sync().unwrap();
        let bytes = fs::read(&path).unwrap();
        let here = parse(&bytes, 10, &current_boot());
        assert_eq!(here.held.iter().collect::<Vec<_>>(), pieces(&[2, 5, 7]));
        let elsewhere = parse(&bytes, 10, &[0; 16]);
        assert_eq!(elsewhere.held.iter().collect::<Vec<_>>(), pieces(&[2, 7]));
        assert_eq!(elsewhere.doubtful, pieces(&[5]));
        // No checkpoint covers the third piece yet.
        assert_eq!(log.begin_checkpoint(), Some(3));
    }

    #[test]
    fn a_piece_written_again_after_a_checkpoint_is_doubtful_after_a_reboot() {
        let values = [4, 5, CHECKPOINT | 2, 5, 5];
        let bytes = [header(&current_boot()), values.map(record).concat()].concat();
        let here = parse(&bytes, 10, &current_boot());
        assert_eq!(here.held.iter().collect::<Vec<_>>(), pieces(&[4, 5]));
        assert_eq!(here.unsynced, pieces(&[5]));
        let elsewhere = parse(&bytes, 10, &[0; 16]);
        assert_eq!(elsewhere.held.iter().collect::<Vec<_>>(), pieces(&[4]));
        assert_eq!(elsewhere.doubtful, pieces(&[5]));
    }

    #[test]
    fn pieces_that_the_content_does_not_have_are_ignored() {
        let bytes = [&MAGIC[..], &current_boot(), &record(10), &record(9)].concat();
        let logged = parse(&bytes, 10, &current_boot());
        assert_eq!(logged.held.iter().collect::<Vec<_>>(), pieces(&[9]));
        assert!(parse(&bytes, 10, &[0; 16]).doubtful == pieces(&[9]));
    }
}
