//! What a disk that is slow, or fails, must not spoil.

use std::{cell::RefCell, fs, io, path::PathBuf, rc::Rc, sync::Arc};

use shoal_core::{
    content::{ContentId, PieceIndex, PieceLength},
    swarm::{Attempt, LinkKey},
};
use tempfile::TempDir;

use super::{
    Accepted, Import, ImportPlan, Store, StoreError, Stored,
    database::Described,
    hash, held,
    probe::{Step, watch},
};

const PIECE: usize = PieceLength::MIN.get() as usize;

/// A tree of files of one piece each at a neighbour, and a store to download it into.
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
            fs::write(tree.join(number.to_string()), vec![number; PIECE]).unwrap();
        }
        let source = Stored::in_place(hash(&tree, Some(PieceLength::MIN), |_| {}).unwrap());
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
        self.download.held().iter().map(PieceIndex::get).collect()
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.directory.path().join("store/contents").join(self.id().to_string()).join(name)
    }

    /// The pieces that are trusted after a power cut.
    fn vouched_for(&self) -> Vec<u32> {
        let bytes = fs::read(self.inside("held.log")).unwrap();
        let contents = held::parse(&bytes, self.source.layout().piece_count(), &[0; 16]);
        contents.held.iter().map(PieceIndex::get).collect()
    }

    /// The process is killed and started again; the machine runs on.
    fn kill(self) -> Self {
        let Self { directory, source, store, download } = self;
        drop((store, download));
        let store = Arc::new(Store::open(&directory.path().join("store"), None).unwrap());
        let download = add(&source, &store);
        Self { directory, source, store, download }
    }
}

fn add(source: &Stored, store: &Store) -> Arc<Stored> {
    store.add(source.manifest().clone(), source.hashes().clone()).unwrap()
}

fn send(source: &Stored, to: &Stored, piece: u32) -> Result<Accepted, StoreError> {
    let block = source.layout().whole(PieceIndex::new(piece));
    let mut bytes = vec![0; block.length as usize];
    source.read(block, &mut bytes).unwrap();
    to.accept(LinkKey(1), Attempt(1), block, bytes.into())
}

/// Does some work, and tells which of its steps it went through.
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

/// Has one kind of step fail as a broken disk does.
fn breaking(at: Step) -> impl FnMut(Step) -> io::Result<()> {
    move |step| if step == at { Err(io::Error::other("a broken disk")) } else { Ok(()) }
}

#[test]
fn a_piece_that_is_written_during_a_checkpoint_is_synced_before_it_is_vouched_for() {
    let bench = Bench::new(1);
    let file = bench.directory.path().join("file");
    fs::write(&file, vec![7; 2 * PIECE]).unwrap();
    let source = Stored::in_place(hash(&file, Some(PieceLength::MIN), |_| {}).unwrap());
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
    assert_eq!(bench.vouched_for(), [0]);
    let (steps, done) = steps_of(|| bench.download.checkpoint());
    done.unwrap();
    assert_eq!(steps, [Step::SyncData, Step::SyncLog]);
    assert_eq!(bench.vouched_for(), [0, 1]);
    let (steps, _) = steps_of(|| bench.download.checkpoint());
    assert_eq!(steps, [], "nothing was written since");
}

#[test]
fn a_checkpoint_vouches_for_no_piece_that_comes_while_it_syncs_and_no_other_is_made_meanwhile() {
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
    assert_eq!(bench.vouched_for(), [0]);
    bench.download.checkpoint().unwrap();
    assert_eq!(bench.vouched_for(), [0, 1]);
}

#[test]
fn what_a_killed_process_wrote_is_synced_before_it_is_vouched_for() {
    let bench = Bench::new(3);
    bench.send(0).unwrap();
    bench.send(1).unwrap();
    let bench = bench.kill();
    assert_eq!((bench.held(), bench.vouched_for()), (vec![0, 1], vec![]));
    bench.send(2).unwrap();
    let (steps, done) = steps_of(|| bench.download.checkpoint());
    done.unwrap();
    let synced = steps.iter().filter(|step| **step == Step::SyncData).count();
    assert_eq!((synced, bench.vouched_for()), (3, vec![0, 1, 2]));
}

#[test]
fn what_the_disk_failed_to_sync_is_never_vouched_for_and_fetched_again() {
    let bench = Bench::new(3);
    bench.send(0).unwrap();
    bench.download.checkpoint().unwrap();
    bench.send(1).unwrap();
    let error = watch(breaking(Step::SyncData), || bench.download.checkpoint()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("data/1: a broken disk"), "{message}");
    // The system reports such an error once: a second sync would seem to succeed.
    bench.download.checkpoint().unwrap();
    assert_eq!((bench.held(), bench.vouched_for()), (vec![0], vec![0]));
    assert!(matches!(bench.send(2), Err(StoreError::NotSynced(_))));

    // Opened anew, although somebody still has it open, it goes on.
    let anew = add(&bench.source, &bench.store);
    assert_eq!(anew.held().iter().map(PieceIndex::get).collect::<Vec<_>>(), [0]);
    for piece in [1, 2] {
        send(&bench.source, &anew, piece).unwrap();
    }
    anew.checkpoint().unwrap();
    assert_eq!(bench.vouched_for(), [0, 1, 2]);
}

#[test]
fn no_lock_that_async_tasks_take_is_held_while_the_disk_works() {
    let bench = Bench::new(3);
    bench.send(0).unwrap();
    let (store, download) = (bench.store.clone(), bench.download.clone());
    let look = move |step| {
        // What the engine, the lanes and the local API ask for meanwhile.
        assert!(store.index.is_free(), "{step:?}");
        assert!(download.progress.is_free(), "{step:?}");
        let log = download.log.as_ref().unwrap();
        assert!(log.is_free(), "{step:?}");
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
        let in_place = store.add_in_place(hash(&other, None, |_| {}).unwrap()).unwrap();
        store.remove(in_place.id()).unwrap();
        import(store);
        store.remove(id).unwrap();
        add(&bench.source, store);
    });
    let (steps, removed) = steps_of(|| store.remove(id));
    removed.unwrap();
    assert_eq!(steps, [Step::Commit, Step::Delete], "the steps are watched");
}

fn import(store: &Arc<Store>) -> Arc<Stored> {
    let name = "imported".to_owned();
    let plan = ImportPlan { name, is_directory: false, total_bytes: 3, piece_length: None };
    let mut import = Import::start(store, plan).unwrap();
    import.file("imported".to_owned(), 3, false).unwrap();
    import.chunk(b"abc").unwrap();
    import.finish().unwrap()
}

#[test]
fn what_is_left_of_a_content_that_was_not_deleted_is_no_content() {
    let bench = Bench::new(2);
    bench.send(0).unwrap();
    let error = watch(breaking(Step::Delete), || bench.store.remove(bench.id())).unwrap_err();
    assert!(error.to_string().contains("a broken disk"), "{error}");
    assert!(!bench.inside("").exists());
    let anew = add(&bench.source, &bench.store);
    assert_eq!(anew.held_bytes(), 0);
    for piece in [0, 1] {
        send(&bench.source, &anew, piece).unwrap();
    }
    let import = bench.directory.path().join("store/import");
    assert_eq!(fs::read_dir(&import).unwrap().count(), 1);
    drop(anew);
    let bench = bench.kill();
    assert_eq!(fs::read_dir(&import).unwrap().count(), 0, "it is deleted when opened");
    assert!(bench.download.is_complete());
}

#[test]
fn a_commit_that_fails_leaves_the_store_as_it_was() {
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
    fails(&|| {
        let (manifest, hashes) = (bench.source.manifest(), bench.source.hashes());
        bench.store.add(manifest.clone(), hashes.clone()).map(drop)
    });
    assert!(bench.store.contents().is_empty() && !bench.inside("").exists());
}

#[test]
fn a_record_that_is_damaged_is_told_and_its_content_can_be_removed_and_added_again() {
    let Bench { directory: _directory, source, store, download } = Bench::new(1);
    drop(download);
    let id = source.id();
    let entry = store.contents().remove(0).1;
    let sound = || Described {
        manifest: source.manifest().encode(),
        hashes: source.hashes().as_bytes().to_vec(),
        fingerprints: None,
    };
    let cut = sound().manifest.split_last().unwrap().1.to_vec();
    let damaged = [
        (Described { manifest: Vec::new(), ..sound() }, "the manifest"),
        (Described { manifest: cut, ..sound() }, "the manifest"),
        (Described { hashes: vec![7; 32], ..sound() }, "the list of piece hashes"),
        (Described { hashes: vec![7; 31], ..sound() }, "the list of piece hashes"),
        (Described { fingerprints: Some(Vec::new()), ..sound() }, "the record of the files"),
    ];
    for (record, what) in damaged {
        store.database.add(id, &entry, &record).unwrap();
        let message = store.load(id).err().unwrap().to_string();
        assert!(message.starts_with(what) && message.contains(&id.to_string()), "{message}");
        store.remove(id).unwrap();
        drop(add(&source, &store));
    }
}
