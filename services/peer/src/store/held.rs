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
    time::{Duration, Instant},
};

use shoal_core::content::{Bitfield, PieceIndex};
use uuid::Uuid;

use super::{StoreError, error::cannot, files::write_whole};

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
type Boot = [u8; 16];

/// The log, open for appending.
pub(super) struct HeldLog {
    file: File,
    path: PathBuf,
    /// Where the next record goes.
    end: u64,
    pieces: u32,
    /// Bytes of pieces since the last checkpoint, and when the first of them came.
    unsynced: Option<(u64, Instant)>,
}

/// What a log says.
pub(super) struct Contents {
    /// Pieces whose data is there.
    pub(super) held: Bitfield,
    /// Pieces whose data may have been lost in a reboot; not in `held`.
    pub(super) doubtful: Vec<PieceIndex>,
    /// The log was written since the machine started.
    is_of_this_boot: bool,
    /// Bytes of the log that make sense.
    end: u64,
    pieces: u32,
}

/// Reads a log. One that is missing or damaged from the start on lists nothing.
pub(super) fn read(path: &Path, piece_count: u32) -> Result<Contents, StoreError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(cannot("read", path))?,
    };
    Ok(parse(&bytes, piece_count, &current_boot()))
}

impl HeldLog {
    /// Opens a log to append to what was read of it, and made of its doubtful pieces.
    pub(super) fn open(path: &Path, contents: &Contents) -> Result<Self, StoreError> {
        if !contents.is_of_this_boot {
            return Self::create(path, &contents.held);
        }
        let file = OpenOptions::new().write(true).open(path).map_err(cannot("open", path))?;
        let (end, pieces) = (contents.end, contents.pieces);
        file.set_len(end).map_err(cannot("truncate", path))?;
        Ok(Self { file, path: path.to_owned(), end, pieces, unsynced: None })
    }

    /// Replaces the log by one that lists pieces which reached the disk.
    pub(super) fn create(path: &Path, held: &Bitfield) -> Result<Self, StoreError> {
        let mut bytes = [MAGIC.as_slice(), &current_boot()].concat();
        bytes.extend(held.iter().flat_map(|piece| record(piece.get())));
        bytes.extend(record(CHECKPOINT | held.held()));
        let file = write_whole(path, &bytes)?;
        let (end, pieces) = (bytes.len() as u64, held.held());
        Ok(Self { file, path: path.to_owned(), end, pieces, unsynced: None })
    }

    /// Appends pieces of `bytes` in all, whose data was written.
    pub(super) fn append(&mut self, pieces: &[PieceIndex], bytes: u64) -> Result<(), StoreError> {
        let records: Vec<u8> = pieces.iter().flat_map(|piece| record(piece.get())).collect();
        self.write(&records)?;
        self.pieces += pieces.len() as u32;
        let (before, since) = self.unsynced.unwrap_or_else(|| (0, Instant::now()));
        self.unsynced = Some((before + bytes, since));
        Ok(())
    }

    /// Starts a checkpoint: if anything was appended since the last, how many pieces the log has.
    pub(super) fn begin_checkpoint(&mut self) -> Option<u32> {
        self.unsynced.map(|_| self.pieces)
    }

    /// Notes that the data of the first `pieces` of the log reached the disk.
    pub(super) fn end_checkpoint(&mut self, pieces: u32) -> Result<(), StoreError> {
        self.write(&record(CHECKPOINT | pieces))?;
        let later = self.pieces > pieces;
        self.unsynced = later.then(|| (0, Instant::now()));
        self.file.sync_data().map_err(cannot("sync", &self.path))
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

fn record(value: u32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(&value.to_le_bytes());
    record[4..].copy_from_slice(&blake3::hash(&value.to_le_bytes()).as_bytes()[..4]);
    record
}

/// Reads records up to the first that is torn.
fn parse(bytes: &[u8], piece_count: u32, boot: &Boot) -> Contents {
    let mut contents = Contents {
        held: Bitfield::empty(piece_count),
        doubtful: Vec::new(),
        is_of_this_boot: false,
        end: 0,
        pieces: 0,
    };
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return contents };
    if header[..MAGIC.len()] != MAGIC {
        return contents;
    }
    contents.is_of_this_boot = header[MAGIC.len()..] == *boot;
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
    let trusted = if contents.is_of_this_boot { listed.len() } else { on_disk };
    contents.doubtful = listed.split_off(trusted.min(listed.len()));
    for piece in listed {
        contents.held.insert(piece);
    }
    contents.doubtful.retain(|piece| piece.get() < piece_count);
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
        let mut log = HeldLog::open(&path, &read(&path, 10).unwrap()).unwrap();
        log.append(&pieces(&[7, 2]), 2).unwrap();
        let begun = log.begin_checkpoint().unwrap();
        log.append(&pieces(&[5]), 1).unwrap();
        log.end_checkpoint(begun).unwrap();
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
    fn pieces_that_the_content_does_not_have_are_ignored() {
        let bytes = [&MAGIC[..], &current_boot(), &record(10), &record(9)].concat();
        let contents = parse(&bytes, 10, &current_boot());
        assert_eq!(contents.held.iter().collect::<Vec<_>>(), pieces(&[9]));
        assert!(parse(&bytes, 10, &[0; 16]).doubtful == pieces(&[9]));
    }
}
