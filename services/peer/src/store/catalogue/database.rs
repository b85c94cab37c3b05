//! The catalogue on disk, in one `redb` file.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use redb::{
    Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};
use rustix::fs::Advice;
use shoal_common::lock::RwLock;
use shoal_core::{
    Address, PeerId,
    content::{ContentId, Descriptor, ManifestHashes, Metadata},
    swarm::Priority,
};
use uuid::Uuid;

use super::{index::Entry, rows::Checked};
use crate::{
    options::Options,
    store::{
        StoreError, Stored,
        hash::Fingerprints,
        probe::{Step, reach},
    },
};

/// The default of redb is 1 GiB.
const CACHE_BYTES: usize = 8 << 20;

/// The key of this peer's id in [`IDENTITY`].
const PEER_ID: &str = "peer_id";

const IDENTITY: TableDefinition<&str, &[u8; 16]> = TableDefinition::new("identity");
const CONTENTS: TableDefinition<&[u8; 32], Checked<Row>> = TableDefinition::new("contents");
const DESCRIPTORS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("descriptors");
/// The hashes of the pieces of the manifests.
const HASHES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("manifest_hashes");
/// For contents whose files others can change.
const FINGERPRINTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("fingerprints");
const OPTIONS: TableDefinition<&[u8; 32], Checked<OptionsRow>> = TableDefinition::new("options");
/// The ring nodes of the options.
const RING_NODES: TableDefinition<&[u8; 32], Checked<Texts>> = TableDefinition::new("ring_nodes");

/// Paths to which a content is to be exported once it is complete.
const EXPORTS: TableDefinition<&[u8; 32], Checked<PathsRow>> = TableDefinition::new("exports");

/// Trackers, whether sequential, whether super-seeding, paths and their priorities.
pub(in crate::store) type OptionsRow = (Vec<&'static str>, bool, bool, Vec<(&'static str, u8)>);

/// The same, as it is read.
type OptionsOf<'a> = (Vec<&'a str>, bool, bool, Vec<(&'a str, u8)>);

/// Addresses.
pub(in crate::store) type Texts = Vec<&'static str>;

pub(in crate::store) type PathsRow = Vec<&'static [u8]>;

/// Name, bytes of the blobs and on disk, pieces, pinned, milliseconds since 1970 when added and when
/// last used, path if in place.
pub(in crate::store) type Row =
    (&'static [u8], u64, u64, u32, bool, u64, u64, Option<&'static [u8]>);

/// The encoded descriptor, the hashes of the manifest's pieces, and the fingerprints of a content.
pub(in crate::store) struct ContentRecord {
    pub(in crate::store) descriptor: Vec<u8>,
    pub(in crate::store) hashes: Vec<u8>,
    pub(in crate::store) fingerprints: Option<Vec<u8>>,
}

impl ContentRecord {
    pub(super) fn new(stored: &Stored, fingerprints: Option<&Fingerprints>) -> Self {
        Self {
            descriptor: stored.descriptor().encode(),
            hashes: stored.manifest_hashes().as_bytes().to_vec(),
            fingerprints: fingerprints.map(Fingerprints::encode),
        }
    }

    /// Decodes the record, and checks that it was added under this id. The fingerprints can be
    /// decoded once the manifest is known.
    pub(in crate::store) fn decode(
        self,
        id: ContentId,
    ) -> Result<(Metadata, Option<Vec<u8>>), StoreError> {
        let damaged = |what| StoreError::Damaged { what, id };
        if ContentId::of_descriptor(&self.descriptor) != id {
            return Err(damaged("the descriptor"));
        }
        let descriptor = Descriptor::decode(&self.descriptor)?;
        let hashes = ManifestHashes::verify(&descriptor, &self.hashes)
            .map_err(|_| damaged("the list of the manifest's hashes"))?;
        Ok((Metadata::Descriptor(descriptor, hashes), self.fingerprints))
    }
}

/// redb closes itself after an error of the disk. The next transaction then opens it again.
pub(in crate::store) struct Database {
    redb: RwLock<Option<redb::Database>>,
    path: PathBuf,
}

impl Database {
    /// Opens or creates the file, with all of its tables.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let redb = open(path).map_err(|error| StoreError::database(path, error))?;
        let database = Self { redb: RwLock::new(Some(redb)), path: path.to_owned() };
        // EXPORTS is the newest table. Tables are not created at each start, because a database on
        // a full disk could not be opened then.
        let is_whole = database.read(|transaction| match transaction.open_table(EXPORTS) {
            Err(TableError::TableDoesNotExist(_)) => Ok(false),
            table => Ok(table.map(|_| true)?),
        })?;
        if !is_whole {
            database.create_tables()?;
        }
        Ok(database)
    }

    fn create_tables(&self) -> Result<(), StoreError> {
        let peer_id = Uuid::new_v4().into_bytes();
        self.write(Durability::Immediate, |transaction| {
            transaction.open_table(CONTENTS)?;
            transaction.open_table(DESCRIPTORS)?;
            transaction.open_table(HASHES)?;
            transaction.open_table(FINGERPRINTS)?;
            transaction.open_table(OPTIONS)?;
            transaction.open_table(RING_NODES)?;
            transaction.open_table(EXPORTS)?;
            let mut table = transaction.open_table(IDENTITY)?;
            if table.get(PEER_ID)?.is_none() {
                table.insert(PEER_ID, &peer_id)?;
            }
            Ok(())
        })
    }

    /// This peer's id, chosen at random when the file was created.
    pub(super) fn peer_id(&self) -> Result<PeerId, StoreError> {
        self.read(|transaction| {
            let bytes = transaction.open_table(IDENTITY)?.get(PEER_ID)?.ok_or_else(damaged)?;
            Ok(PeerId::new(Uuid::from_bytes(*bytes.value())))
        })
    }

    pub(super) fn entries(&self) -> Result<Vec<(ContentId, Entry)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(CONTENTS)?;
            let entries = table.iter()?.map(|row| {
                let (id, row) = row?;
                let (
                    name,
                    total_bytes,
                    stored_bytes,
                    piece_count,
                    pinned,
                    added_unix_ms,
                    last_used_unix_ms,
                    path,
                ) = row.value().ok_or_else(damaged)?;
                let entry = Entry {
                    name: name.to_vec(),
                    total_bytes,
                    stored_bytes,
                    piece_count,
                    pinned,
                    added_unix_ms,
                    last_used_unix_ms,
                    in_place: path.map(|path| PathBuf::from(OsStr::from_bytes(path))),
                };
                Ok((ContentId::from_bytes(*id.value()), entry))
            });
            entries.collect()
        })
    }

    pub(super) fn record(&self, id: ContentId) -> Result<ContentRecord, StoreError> {
        let found = self.read(|transaction| {
            let descriptor = transaction.open_table(DESCRIPTORS)?.get(id.as_bytes())?;
            let hashes = transaction.open_table(HASHES)?.get(id.as_bytes())?;
            let fingerprints = transaction.open_table(FINGERPRINTS)?.get(id.as_bytes())?;
            Ok(descriptor.zip(hashes).map(|(descriptor, hashes)| ContentRecord {
                descriptor: descriptor.value().to_vec(),
                hashes: hashes.value().to_vec(),
                fingerprints: fingerprints.map(|list| list.value().to_vec()),
            }))
        })?;
        found.ok_or(StoreError::Unknown(id))
    }

    pub(in crate::store) fn add(
        &self,
        id: ContentId,
        entry: &Entry,
        record: &ContentRecord,
    ) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            transaction.open_table(DESCRIPTORS)?.insert(id.as_bytes(), &*record.descriptor)?;
            transaction.open_table(HASHES)?.insert(id.as_bytes(), &*record.hashes)?;
            insert_fingerprints(transaction, id, record.fingerprints.as_deref())?;
            insert_entry(transaction, id, entry)
        })
    }

    /// Replaces the entry of a content. `durability` tells whether the change must survive a power
    /// cut: the time of last use need not.
    pub(super) fn update(
        &self,
        id: ContentId,
        entry: &Entry,
        durability: Durability,
    ) -> Result<(), StoreError> {
        self.write(durability, |transaction| insert_entry(transaction, id, entry))
    }

    /// Stores the fingerprints of a content whose files others can change.
    pub(super) fn guard(&self, id: ContentId, fingerprints: &[u8]) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            insert_fingerprints(transaction, id, Some(fingerprints))
        })
    }

    /// The options given with a content; the defaults if none were.
    pub(super) fn options(&self, id: ContentId) -> Result<Options, StoreError> {
        self.read(|transaction| {
            let ring_nodes = match transaction.open_table(RING_NODES)?.get(id.as_bytes())? {
                Some(row) => addresses(&row.value().ok_or_else(damaged)?),
                None => Vec::new(),
            };
            Ok(match transaction.open_table(OPTIONS)?.get(id.as_bytes())? {
                Some(row) => decode_options(row.value().ok_or_else(damaged)?, ring_nodes),
                None => Options::default(),
            })
        })
    }

    pub(super) fn set_options(&self, id: ContentId, options: &Options) -> Result<(), StoreError> {
        let trackers: Vec<_> = options.trackers.iter().map(ToString::to_string).collect();
        let ring_nodes: Vec<_> = options.ring_nodes.iter().map(ToString::to_string).collect();
        let ring_nodes: Vec<_> = ring_nodes.iter().map(String::as_str).collect();
        let priorities = options.priorities.iter();
        let row = Some((
            trackers.iter().map(String::as_str).collect(),
            options.sequential,
            options.super_seeding,
            priorities.map(|(path, priority)| (path.as_str(), number_of(*priority))).collect(),
        ));
        self.write(Durability::Immediate, |transaction| {
            transaction.open_table(OPTIONS)?.insert(id.as_bytes(), &row)?;
            transaction.open_table(RING_NODES)?.insert(id.as_bytes(), &Some(ring_nodes))?;
            Ok(())
        })
    }

    /// The paths to which a content is to be exported.
    pub(super) fn exports(&self, id: ContentId) -> Result<Vec<PathBuf>, StoreError> {
        self.read(|transaction| {
            Ok(match transaction.open_table(EXPORTS)?.get(id.as_bytes())? {
                Some(row) => {
                    let paths = row.value().ok_or_else(damaged)?;
                    paths.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
                }
                None => Vec::new(),
            })
        })
    }

    pub(super) fn set_exports(&self, id: ContentId, paths: &[PathBuf]) -> Result<(), StoreError> {
        let paths: Vec<_> = paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
        let is_empty = paths.is_empty();
        self.write(Durability::Immediate, |transaction| {
            let mut table = transaction.open_table(EXPORTS)?;
            if is_empty {
                table.remove(id.as_bytes())?;
            } else {
                table.insert(id.as_bytes(), &Some(paths))?;
            }
            Ok(())
        })
    }

    pub(super) fn remove(&self, id: ContentId) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |transaction| {
            transaction.open_table(CONTENTS)?.remove(id.as_bytes())?;
            transaction.open_table(OPTIONS)?.remove(id.as_bytes())?;
            transaction.open_table(RING_NODES)?.remove(id.as_bytes())?;
            transaction.open_table(EXPORTS)?.remove(id.as_bytes())?;
            for table in [DESCRIPTORS, HASHES, FINGERPRINTS] {
                transaction.open_table(table)?.remove(id.as_bytes())?;
            }
            Ok(())
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.begin(|redb| Ok(redb.begin_read()?))
            .and_then(|transaction| read(&transaction))
            .map_err(|error| StoreError::database(&self.path, error))
    }

    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let attempt = || {
            let mut transaction = self.begin(|redb| Ok(redb.begin_write()?))?;
            transaction.set_durability(durability)?;
            change(&transaction)?;
            reach(Step::Commit).map_err(redb::Error::Io)?;
            Ok(transaction.commit()?)
        };
        attempt().map_err(|error: redb::Error| StoreError::database(&self.path, error))
    }

    /// Begins a transaction. First opens redb again if an error of the disk has closed it.
    fn begin<T>(
        &self,
        begin: impl Fn(&redb::Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let begin_if_open = |redb: &Option<redb::Database>| match begin(redb.as_ref()?) {
            Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed) => None,
            begun => Some(begun),
        };
        if let Some(begun) = begin_if_open(&self.redb.read()) {
            return begun;
        }
        let mut redb = self.redb.write();
        // Another thread may have opened it meanwhile.
        if let Some(begun) = begin_if_open(&redb) {
            return begun;
        }
        *redb = None;
        forget_cached(&self.path);
        begin(redb.insert(open(&self.path)?))
    }
}

fn open(path: &Path) -> Result<redb::Database, redb::Error> {
    Ok(redb::Builder::new().set_cache_size(CACHE_BYTES).create(path)?)
}

/// Makes the next reads come from the disk. After a failed fsync the page cache may hold bytes as
/// written that never reached the disk (Rebello et al., "Can Applications Recover from fsync
/// Failures?", ATC 2020).
fn forget_cached(path: &Path) {
    // Best effort: where it is not supported, reads come from the page cache.
    let _ = File::open(path).map(|file| rustix::fs::fadvise(file, 0, None, Advice::DontNeed));
}

fn insert_entry(
    transaction: &WriteTransaction,
    id: ContentId,
    entry: &Entry,
) -> Result<(), redb::Error> {
    let row = Some((
        entry.name.as_slice(),
        entry.total_bytes,
        entry.stored_bytes,
        entry.piece_count,
        entry.pinned,
        entry.added_unix_ms,
        entry.last_used_unix_ms,
        entry.in_place.as_deref().map(|path| path.as_os_str().as_bytes()),
    ));
    transaction.open_table(CONTENTS)?.insert(id.as_bytes(), row)?;
    Ok(())
}

fn insert_fingerprints(
    transaction: &WriteTransaction,
    id: ContentId,
    fingerprints: Option<&[u8]>,
) -> Result<(), redb::Error> {
    let Some(fingerprints) = fingerprints else { return Ok(()) };
    transaction.open_table(FINGERPRINTS)?.insert(id.as_bytes(), fingerprints)?;
    Ok(())
}

fn damaged() -> redb::Error {
    redb::Error::Corrupted("it holds a damaged row".to_owned())
}

/// The options of a row, without those that this version does not know.
fn decode_options(
    (trackers, sequential, super_seeding, priorities): OptionsOf<'_>,
    ring_nodes: Vec<Address>,
) -> Options {
    let known = |(path, number): (&str, u8)| Some((path.to_owned(), priority_of(number)?));
    Options {
        trackers: addresses(&trackers),
        ring_nodes,
        sequential,
        super_seeding,
        priorities: priorities.into_iter().filter_map(known).collect(),
    }
}

fn addresses(texts: &[&str]) -> Vec<Address> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

const fn number_of(priority: Priority) -> u8 {
    match priority {
        Priority::Skip => 0,
        Priority::Low => 1,
        Priority::Normal => 2,
        Priority::High => 3,
    }
}

fn priority_of(number: u8) -> Option<Priority> {
    let all = [Priority::Skip, Priority::Low, Priority::Normal, Priority::High];
    all.into_iter().find(|priority| number_of(*priority) == number)
}
