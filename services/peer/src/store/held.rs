//! The log of the pieces held: `held.log` beside a content's files.
//!
//! It starts with the boot that it was written in. Each piece is appended after its data was
//! written, so what it lists is there as long as the machine runs: the page cache outlives the
//! process. A checkpoint says how many of the pieces reached the disk; after a reboot the others
//! are hashed again.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_core::content::{Bitfield, PieceIndex};
use uuid::Uuid;

use super::{
    StoreError,
    error::cannot,
    files::write_whole,
    probe::{Step, reach},
};

const MAGIC: [u8; 8] = *b"shoalhl1";
const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 8;

/// In a record's value: not a piece, but the count of pieces that reached the disk.
const CHECKPOINT: u32 = 1 << 31;

/// What may be lost with the power: 64 MiB are hashed again in a blink.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// And on slow links, what came in 5 s.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// One run of the machine's kernel.
pub(super) type Boot = [u8; 16];

/// The log, open for appending.
pub(super) struct HeldLog {
    file: Arc<File>,
    path: PathBuf,
    /// Where the next record goes.
    end: u64,
    pieces: u32,
    /// Of these, how many the last checkpoint vouches for.
    on_disk: u32,
    /// Bytes of pieces since the last checkpoint, and when the first of them came.
    unsynced: Option<(u64, Instant)>,
    /// A checkpoint failed: nothing is appended any more.
    has_failed: bool,
}

/// What a log says.
pub(super) struct Contents {
    /// Pieces whose data is there.
    pub(super) held: Bitfield,
    /// Pieces whose data may have been lost in a reboot; not in `held`.
    pub(super) doubtful: Vec<PieceIndex>,
    /// Pieces of `held` that no checkpoint vouches for: written since the machine started.
    pub(super) unsynced: Vec<PieceIndex>,
    /// The log was written since the machine started, and lists what is held.
    is_valid: bool,
    /// Bytes of the log that make sense.
    end: u64,
    pieces: u32,
    on_disk: u32,
}

impl Contents {
    /// Has pieces hashed before they count as held again.
    pub(super) fn doubt(&mut self, pieces: impl IntoIterator<Item = PieceIndex>) {
        let doubtful: Vec<_> =
            pieces.into_iter().filter(|piece| self.held.remove(*piece)).collect();
        self.is_valid &= doubtful.is_empty();
        self.doubtful.extend(doubtful);
    }
}

/// Reads a log. One that is missing or damaged from the start on lists nothing.
pub(super) fn read(path: &Path, piece_count: u32) -> Result<Contents, StoreError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(cannot("read", path))?,
    };
    Ok(parse(&bytes, piece_count, &current_boot()))
}

/// Deletes a log, if there is one.
pub(super) fn delete(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        deleted => deleted.map_err(cannot("delete", path)),
    }
}

impl HeldLog {
    /// Opens a log to append to what was read of it, and made of its doubtful pieces. If it has to be
    /// written anew, `sync` first has all that is held reach the disk.
    pub(super) fn open(
        path: &Path,
        contents: &Contents,
        sync: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        if !contents.is_valid {
            sync()?;
            return Self::create(path, &contents.held);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(path).map_err(cannot("open", path))?;
        file.set_len(contents.end).map_err(cannot("truncate", path))?;
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            end: contents.end,
            pieces: contents.pieces,
            on_disk: contents.on_disk,
            unsynced: (contents.pieces > contents.on_disk).then(|| (0, Instant::now())),
            has_failed: false,
        })
    }

    /// Replaces the log by one that lists pieces which reached the disk.
    pub(super) fn create(path: &Path, held: &Bitfield) -> Result<Self, StoreError> {
        let mut bytes = header(&current_boot());
        bytes.extend(held.iter().flat_map(|piece| record(piece.get())));
        bytes.extend(record(CHECKPOINT | held.held()));
        let file = write_whole(path, &bytes)?;
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

    /// Appends pieces of `bytes` in all, whose data was written.
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

    /// Starts a checkpoint: if anything was appended since the last, how many pieces the log has.
    pub(super) fn begin_checkpoint(&mut self) -> Option<u32> {
        self.unsynced.map(|_| self.pieces)
    }

    /// Notes that the data of the first `pieces` of the log reached the disk. The log itself is to be
    /// synced by [`Unsynced::sync`], once the caller has given back the lock.
    pub(super) fn end_checkpoint(&mut self, pieces: u32) -> Result<Unsynced, StoreError> {
        self.write(&record(CHECKPOINT | pieces))?;
        self.on_disk = pieces;
        let later = self.pieces > pieces;
        self.unsynced = later.then(|| (0, Instant::now()));
        Ok(Unsynced { file: self.file.clone(), path: self.path.clone() })
    }

    /// The data of some pieces since the last checkpoint did not reach the disk, and nobody can tell
    /// which: none of them is listed any more, and no other will be. Returns them.
    pub(super) fn fail_checkpoint(&mut self) -> Result<Vec<PieceIndex>, StoreError> {
        self.has_failed = true;
        self.unsynced = None;
        let mut bytes = vec![0; self.end as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(cannot("read", &self.path))?;
        let mut on_disk = bytes[..HEADER_BYTES].to_vec();
        let mut listed = pieces_of(&bytes[HEADER_BYTES..]);
        on_disk.extend(listed.by_ref().take(self.on_disk as usize).flat_map(record));
        on_disk.extend(record(CHECKPOINT | self.on_disk));
        // Shorter than what is there, or as long: no room is needed.
        self.file
            .write_all_at(&on_disk, 0)
            .and_then(|()| self.file.set_len(on_disk.len() as u64))
            .map_err(cannot("write", &self.path))?;
        (self.end, self.pieces) = (on_disk.len() as u64, self.on_disk);
        Ok(listed.map(PieceIndex::new).collect())
    }

    /// A checkpoint failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Enough was appended since the last checkpoint.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        self.unsynced.is_some_and(|(bytes, since)| {
            bytes >= CHECKPOINT_BYTES || since.elapsed() >= CHECKPOINT_INTERVAL
        })
    }

    /// A write that fails half-way is overwritten by the next.
    fn write(&mut self, records: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(records, self.end).map_err(cannot("write", &self.path))?;
        self.end += records.len() as u64;
        Ok(())
    }
}

/// A log with a checkpoint that has not reached the disk.
#[must_use]
pub(super) struct Unsynced {
    file: Arc<File>,
    path: PathBuf,
}

impl Unsynced {
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

/// What a log begins with.
pub(super) fn header(boot: &Boot) -> Vec<u8> {
    [MAGIC.as_slice(), boot].concat()
}

pub(super) fn record(value: u32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&value.to_le_bytes());
    record[4..].copy_from_slice(&blake3::hash(&value.to_le_bytes()).as_bytes()[..4]);
    record
}

/// Reads records up to the first that is torn.
pub(super) fn parse(bytes: &[u8], piece_count: u32, boot: &Boot) -> Contents {
    let mut contents = Contents {
        held: Bitfield::empty(piece_count),
        doubtful: Vec::new(),
        unsynced: Vec::new(),
        is_valid: false,
        end: 0,
        pieces: 0,
        on_disk: 0,
    };
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return contents };
    if header[..MAGIC.len()] != MAGIC {
        return contents;
    }
    contents.is_valid = header[MAGIC.len()..] == *boot;
    contents.end = HEADER_BYTES as u64;
    let mut listed = Vec::new();
    let mut on_disk = 0;
    for bytes in rest.as_chunks::<RECORD_BYTES>().0 {
        let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if *bytes != record(value) {
            break;
        }
        contents.end += RECORD_BYTES as u64;
        match value & CHECKPOINT {
            0 => listed.push(PieceIndex::new(value)),
            _ => on_disk = (value & !CHECKPOINT) as usize,
        }
    }
    contents.pieces = listed.len() as u32;
    let later = listed.split_off(on_disk.min(listed.len()));
    contents.on_disk = listed.len() as u32;
    let mut later_once = Bitfield::empty(piece_count);
    let later = later.into_iter().filter(|piece| later_once.insert(*piece)).collect();
    if contents.is_valid {
        contents.unsynced = later;
    } else {
        contents.doubtful = later;
    }
    for piece in listed.iter().chain(&contents.unsynced) {
        contents.held.insert(*piece);
    }
    // One that was written again since is as it was then, or not.
    for piece in &contents.doubtful {
        contents.held.remove(*piece);
    }
    contents
}

/// Where the system does not tell, every start of the process counts as one of the machine.
fn current_boot() -> Boot {
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
    fn a_checkpoint_vouches_only_for_what_was_there_when_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("held.log");
        let mut log = HeldLog::open(&path, &read(&path, 10).unwrap(), || Ok(())).unwrap();
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
        // The third piece is still to be vouched for.
        assert_eq!(log.begin_checkpoint(), Some(3));
    }

    #[test]
    fn a_piece_that_was_written_again_after_a_checkpoint_is_in_doubt_after_a_reboot() {
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
        let contents = parse(&bytes, 10, &current_boot());
        assert_eq!(contents.held.iter().collect::<Vec<_>>(), pieces(&[9]));
        assert!(parse(&bytes, 10, &[0; 16]).doubtful == pieces(&[9]));
    }
}
