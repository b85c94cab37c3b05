//! Tests with a slow or failing disk.

use std::{
    cell::RefCell,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use rustix::io::Errno;
use shoal_core::{
    content::{Bitfield, ContentId, Metadata, PieceIndex, PieceLength},
    swarm::{Attempt, LinkKey},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    Accepted, HashOptions, Hashed, Import, OneShot, Store, StoreError, Stored,
    catalogue::database::ContentRecord,
    content::held_log,
    hash,
    probe::{Step, watch},
};

const PIECE: usize = PieceLength::MIN.get() as usize;

/// A tree of files of one piece each, at a neighbour, and a store that downloads it.
struct Bench {
    directory: TempDir,
    source: Arc<Stored>,
    store: Arc<Store>,
    download: Arc<Stored>,
}

impl Bench {
    fn new(files: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for number in 0..files {
            // A piece of zeros would be a hole.
            fs::write(tree.join(number.to_string()), vec![number + 1; PIECE]).unwrap();
        }
        let source = Stored::in_place(hashed(&tree));
        let store = Arc::new(Store::open(&directory.path().join("store"), None).unwrap());
        let download = add(&source, &store);
        Self { directory, source, store, download }
    }

    fn id(&self) -> ContentId {
        self.source.id()
    }

    fn send(&self, piece: u32) -> Result<Accepted, StoreError> {
        send(&self.source, &self.download, piece)
    }

    fn held(&self) -> Vec<u32> {
        numbers(&self.download.held())
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.directory.path().join("store/contents").join(self.id().to_string()).join(name)
    }

    /// The pieces that a checkpoint covers: those held after a power cut.
    fn checkpointed(&self) -> Vec<u32> {
        let bytes = fs::read(self.inside("held.log")).unwrap();
        let logged = held_log::parse(&bytes, self.source.layout().piece_count(), &[0; 16]);
        numbers(&logged.held)
    }

    /// Kills the process and starts it again, without a reboot.
    fn kill(self) -> Self {
        let Self { directory, source, store, download } = self;
        drop((store, download));
        let store = Arc::new(Store::open(&directory.path().join("store"), None).unwrap());
        let download = add(&source, &store);
        Self { directory, source, store, download }
    }
}

fn hashed(path: &Path) -> Hashed {
    let options = HashOptions { piece_length: Some(PieceLength::MIN), ..HashOptions::default() };
    hash(path, &options, |_| {}).unwrap()
}

fn metadata(source: &Stored) -> Metadata {
    Metadata::Manifest(source.manifest().unwrap().clone())
}

fn add(source: &Stored, store: &Store) -> Arc<Stored> {
    store.add(metadata(source)).unwrap()
}

/// The pieces of a set that follow the only one of the manifest, counted from 0.
fn numbers(pieces: &Bitfield) -> Vec<u32> {
    assert!(pieces.has(PieceIndex::new(0)));
    pieces.iter().skip(1).map(|piece| piece.get() - 1).collect()
}

/// Sends a piece, counted from 0 after that of the manifest.
fn send(source: &Stored, to: &Stored, piece: u32) -> Result<Accepted, StoreError> {
    let block = source.layout().whole(PieceIndex::new(1 + piece));
    let mut bytes = vec![0; block.length as usize];
    source.read(block, &mut bytes).unwrap();
    to.accept(LinkKey(1), Attempt(1), block, bytes.into())
}

/// Does some work, and returns its steps as well.
fn steps_of<T>(work: impl FnOnce() -> T) -> (Vec<Step>, T) {
    let steps = Rc::new(RefCell::new(Vec::new()));
    let seen = steps.clone();
    let see = move |step| {
        seen.borrow_mut().push(step);
        Ok(())
    };
    let done = watch(see, work);
    (steps.take(), done)
}

/// Makes one kind of step fail.
fn breaking(at: Step) -> impl FnMut(Step) -> io::Result<()> {
    move |step| if step == at { Err(io::Error::other("a broken disk")) } else { Ok(()) }
}

#[test]
fn a_piece_written_during_a_checkpoint_is_covered_only_after_its_own_sync() {
    let bench = Bench::new(1);
    let file = bench.directory.path().join("file");
    fs::write(&file, vec![7; 2 * PIECE]).unwrap();
    let source = Stored::in_place(hashed(&file));
    let download = add(&source, &bench.store);
    let bench = Bench { source, download, ..bench };

    bench.send(0).unwrap();
    let download = bench.download.clone();
    let checkpoint_between = move |step| {
        if step == Step::Write {
            download.checkpoint().unwrap();
        }
        Ok(())
    };
    watch(checkpoint_between, || bench.send(1)).unwrap();
    assert_eq!(bench.checkpointed(), [0]);
    let (steps, done) = steps_of(|| bench.download.checkpoint());
    done.unwrap();
    assert_eq!(steps, [Step::SyncData, Step::SyncLog]);
    assert_eq!(bench.checkpointed(), [0, 1]);
    let (steps, _) = steps_of(|| bench.download.checkpoint());
    assert_eq!(steps, [], "nothing was written since");
}

#[test]
fn a_checkpoint_covers_no_piece_that_arrives_during_its_sync_and_excludes_other_checkpoints() {
    let bench = Bench::new(2);
    bench.send(0).unwrap();
    let (source, download) = (bench.source.clone(), bench.download.clone());
    let piece_between = move |step| {
        if step == Step::SyncData {
            send(&source, &download, 1).unwrap();
            assert!(!download.checkpointing.is_free());
        }
        Ok(())
    };
    watch(piece_between, || bench.download.checkpoint()).unwrap();
    assert_eq!(bench.checkpointed(), [0]);
    bench.download.checkpoint().unwrap();
    assert_eq!(bench.checkpointed(), [0, 1]);
}

#[test]
fn pieces_of_a_killed_process_are_synced_before_a_checkpoint_covers_them() {
    let bench = Bench::new(3);
    bench.send(0).unwrap();
    bench.send(1).unwrap();
    let bench = bench.kill();
    assert_eq!((bench.held(), bench.checkpointed()), (vec![0, 1], vec![]));
    bench.send(2).unwrap();
    let (steps, done) = steps_of(|| bench.download.checkpoint());
    done.unwrap();
    let synced = steps.iter().filter(|step| **step == Step::SyncData).count();
    assert_eq!((synced, bench.checkpointed()), (3, vec![0, 1, 2]));
}

#[test]
fn pieces_that_failed_to_sync_are_never_covered_and_are_fetched_again() {
    let bench = Bench::new(3);
    bench.send(0).unwrap();
    bench.download.checkpoint().unwrap();
    bench.send(1).unwrap();
    let error = watch(breaking(Step::SyncData), || bench.download.checkpoint()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("blobs/2: a broken disk"), "{message}");
    // The system reports such an error once: a second sync would succeed.
    bench.download.checkpoint().unwrap();
    assert_eq!((bench.held(), bench.checkpointed()), (vec![0], vec![0]));
    assert!(matches!(bench.send(2), Err(StoreError::NotSynced(_))));

    // Opened again, although it is still open elsewhere, the download continues.
    let reopened = add(&bench.source, &bench.store);
    assert_eq!(numbers(&reopened.held()), [0]);
    for piece in [1, 2] {
        send(&bench.source, &reopened, piece).unwrap();
    }
    reopened.checkpoint().unwrap();
    assert_eq!(bench.checkpointed(), [0, 1, 2]);
}

#[test]
fn no_lock_that_async_tasks_take_is_held_while_the_disk_works() {
    let bench = Bench::new(3);
    bench.send(0).unwrap();
    let (store, download) = (bench.store.clone(), bench.download.clone());
    let look = move |step| {
        // The locks that the engine, the I/O threads and the local API take meanwhile.
        assert!(store.index.is_free(), "{step:?}");
        assert!(download.progress.is_free(), "{step:?}");
        let owned = download.owned.as_ref().unwrap();
        assert!(owned.log.is_free(), "{step:?}");
        Ok(())
    };
    let other = bench.directory.path().join("other");
    fs::write(&other, "other").unwrap();
    let (id, store) = (bench.id(), &bench.store);
    watch(look, || {
        bench.send(1).unwrap();
        bench.download.checkpoint().unwrap();
        store.pin(id, true).unwrap();
        store.touch(id).unwrap();
        let in_place = store.add_in_place(hashed(&other)).unwrap();
        store.remove(in_place.id()).unwrap();
        import(store, &other);
        store.remove(id).unwrap();
        add(&bench.source, store);
    });
    let (steps, removed) = steps_of(|| store.remove(id));
    removed.unwrap();
    assert_eq!(steps, [Step::Commit, Step::Delete], "the steps are watched");
}

fn import(store: &Arc<Store>, path: &Path) -> Arc<Stored> {
    let mut import = Import::start(store, hashed(path).manifest).unwrap();
    import.chunk(&fs::read(path).unwrap()).unwrap();
    import.finish().unwrap()
}

#[test]
fn the_rest_of_a_failed_deletion_is_not_a_content() {
    let bench = Bench::new(2);
    bench.send(0).unwrap();
    let error = watch(breaking(Step::Delete), || bench.store.remove(bench.id())).unwrap_err();
    assert!(error.to_string().contains("a broken disk"), "{error}");
    assert!(!bench.inside("").exists());
    let reopened = add(&bench.source, &bench.store);
    assert_eq!(reopened.held_bytes(), 0);
    for piece in [0, 1] {
        send(&bench.source, &reopened, piece).unwrap();
    }
    let import = bench.directory.path().join("store/import");
    assert_eq!(fs::read_dir(&import).unwrap().count(), 1);
    drop(reopened);
    let bench = bench.kill();
    assert_eq!(fs::read_dir(&import).unwrap().count(), 0, "deleted when the store is opened");
    assert!(bench.download.is_complete());
}

#[test]
fn a_failed_commit_changes_nothing() {
    let bench = Bench::new(1);
    let id = bench.id();
    let fails = |work: &dyn Fn() -> Result<(), StoreError>| {
        watch(breaking(Step::Commit), work).unwrap_err();
    };
    fails(&|| bench.store.pin(id, true));
    fails(&|| bench.store.remove(id));
    assert!(!bench.store.contents()[0].1.pinned);
    bench.send(0).unwrap();
    assert!(bench.download.is_complete());
    bench.store.remove(id).unwrap();
    fails(&|| bench.store.add(metadata(&bench.source)).map(drop));
    assert!(bench.store.contents().is_empty() && !bench.inside("").exists());
}

#[test]
fn a_damaged_record_is_reported_and_its_content_can_be_removed_and_added_again() {
    let Bench { directory: _directory, source, store, download } = Bench::new(1);
    drop(download);
    let id = source.id();
    let entry = store.contents().remove(0).1;
    let sound = || ContentRecord {
        descriptor: source.descriptor().encode(),
        hashes: source.manifest_hashes().as_bytes().to_vec(),
        fingerprints: None,
    };
    let cut = sound().descriptor.split_last().unwrap().1.to_vec();
    let hashes = "the list of the manifest's hashes";
    let damaged = [
        (ContentRecord { descriptor: Vec::new(), ..sound() }, "the descriptor"),
        (ContentRecord { descriptor: cut, ..sound() }, "the descriptor"),
        (ContentRecord { hashes: vec![7; 32], ..sound() }, hashes),
        (ContentRecord { hashes: vec![7; 31], ..sound() }, hashes),
        (ContentRecord { fingerprints: Some(Vec::new()), ..sound() }, "the record of the files"),
    ];
    for (record, what) in damaged {
        store.database.add(id, &entry, &record).unwrap();
        let message = store.load(id).err().unwrap().to_string();
        assert!(message.starts_with(what) && message.contains(&id.to_string()), "{message}");
        store.remove(id).unwrap();
        drop(add(&source, &store));
    }
}

/// A complete download of the tree of a bench to `copy` in its directory, by a process that has
/// opened none of its blobs.
fn complete_download(bench: &Bench, source: &Stored) -> OneShot {
    let destination = bench.directory.path().join("copy");
    let download = OneShot::begin(&destination, metadata(source)).unwrap();
    for piece in 0..source.layout().piece_count() - 1 {
        send(source, download.stored(), piece).unwrap();
    }
    drop(download);
    OneShot::resume(&destination, source.id()).unwrap().unwrap()
}

#[test]
fn a_download_is_served_while_it_is_moved_to_its_destination() {
    // More than the files that are kept open.
    const FILES: u16 = 300;
    let bench = Bench::new(1);
    let tree = bench.directory.path().join("large");
    fs::create_dir(&tree).unwrap();
    for number in 0..FILES {
        let mut bytes = vec![1; PIECE];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        fs::write(tree.join(number.to_string()), bytes).unwrap();
    }
    let source = Stored::in_place(hashed(&tree));
    let download = complete_download(&bench, &source);
    let (stored, served) = (download.stored().clone(), Rc::new(RefCell::new(0)));
    let seen = served.clone();
    let read_between = move |step| {
        if step == Step::SyncTree {
            for piece in stored.layout().pieces().skip(1) {
                let block = stored.layout().whole(piece);
                let mut both = [vec![0; PIECE], vec![0; PIECE]];
                stored.read(block, &mut both[0]).unwrap();
                source.read(block, &mut both[1]).unwrap();
                assert!(both[0] == both[1]);
                *seen.borrow_mut() += 1;
            }
        }
        Ok(())
    };
    watch(read_between, || download.finish(&CancellationToken::new())).unwrap();
    assert_eq!(served.take(), FILES);
}

#[test]
fn a_file_system_that_keeps_no_modes_and_times_gets_the_files() {
    let bench = Bench::new(2);
    let tree = bench.directory.path().join("tree");
    let options = HashOptions { preserve: true, ..HashOptions::default() };
    let source = Stored::in_place(hash(&tree, &options, |_| {}).unwrap());
    let refusing =
        |error: Errno| move |step| if step == Step::Restore { Err(error.into()) } else { Ok(()) };
    let stop = CancellationToken::new();
    let download = complete_download(&bench, &source);
    watch(refusing(Errno::IO), || download.finish(&stop)).map(drop).unwrap_err();
    let destination = bench.directory.path().join("copy");
    let download = OneShot::resume(&destination, source.id()).unwrap().unwrap();
    watch(refusing(Errno::PERM), || download.finish(&stop)).unwrap();
    assert_eq!(fs::read(destination.join("1")).unwrap(), vec![2; PIECE]);

    // An export as well.
    let download = add(&source, &bench.store);
    for piece in 0..source.layout().piece_count() - 1 {
        send(&source, &download, piece).unwrap();
    }
    let exported = bench.directory.path().join("exported");
    watch(refusing(Errno::OPNOTSUPP), || bench.store.export(&download, &exported)).unwrap();
    assert_eq!(fs::read(exported.join("1")).unwrap(), vec![2; PIECE]);
}
