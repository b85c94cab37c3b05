use std::{
    fs,
    path::{Path, PathBuf},
};

use redb::TableDefinition;
use shoal_common::durable_files::DirectoryError;
use shoal_core::ring::{
    Ballot, Configurations, Contact, KeyRange, Lineage, NodeId, Position, Proposal, ReplicaSet,
};
use shoal_dht_node::storage::{DataDir, Record, StoreError};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{digest, everywhere, fresh, key, merge, open, record, tombstone, version};

/// A directory with one record, and its files.
async fn used() -> (TempDir, [PathBuf; 3]) {
    let (directory, store) = fresh();
    merge(&store, record("name", b"value", 5)).await.unwrap();
    let files = ["format", "node-id", "ring.redb"].map(|file| directory.path().join(file));
    (directory, files)
}

fn refused(directory: &Path) -> String {
    open(directory).err().unwrap().to_string()
}

#[test]
fn a_second_process_in_the_directory_is_refused() {
    let (directory, store) = fresh();
    let error = DataDir::open(directory.path()).err().unwrap();
    assert!(
        matches!(&error, StoreError::Directory(DirectoryError::InUse(path)) if path == directory.path()),
        "{error}"
    );
    let other = store.clone();
    drop(store);
    DataDir::open(directory.path()).err().unwrap();
    drop(other);
    open(directory.path()).unwrap();
}

#[test]
fn the_node_id_survives_a_restart() {
    let (directory, store) = fresh();
    let id = store.node_id();
    drop(store);
    assert_eq!(open(directory.path()).unwrap().node_id(), id);
    assert_ne!(fresh().1.node_id(), id);
    let file = fs::read_to_string(directory.path().join("node-id")).unwrap();
    assert_eq!(file, format!("{id}\n"));
}

#[tokio::test]
async fn records_survive_a_restart() {
    let (directory, store) = fresh();
    let records = [record("a", b"1", 5), record("b", b"2", 6), tombstone("c", 7)];
    for record in records.clone() {
        merge(&store, record).await.unwrap();
    }
    store.write(|txn| txn.put_meta("clock", b"12")).await.unwrap();
    drop(store);
    let store = open(directory.path()).unwrap();
    for record in &records {
        assert_eq!(store.get(&record.key).unwrap().as_ref(), Some(record));
    }
    assert_eq!(store.record_count(), 3);
    assert_eq!(store.digest(everywhere()).unwrap(), digest(&records));
    assert_eq!(store.meta("clock").unwrap().as_deref(), Some(&b"12"[..]));
    assert_eq!(store.meta("custody").unwrap(), None);
}

#[tokio::test]
async fn a_killed_store_has_all_acknowledged_writes() {
    let (directory, store) = fresh();
    let mut records = Vec::new();
    for wall_ms in 1..30 {
        let written = record(format!("{}", wall_ms % 7), &[1; 3_000], wall_ms);
        merge(&store, written.clone()).await.unwrap();
        records.retain(|other: &Record| other.key != written.key);
        records.push(written);
        // A copy of the files, as a new process would find them after a kill.
        let left = tempfile::tempdir().unwrap();
        for file in ["format", "node-id", "ring.redb"] {
            fs::copy(directory.path().join(file), left.path().join(file)).unwrap();
        }
        let left = open(left.path()).unwrap();
        assert_eq!(left.digest(everywhere()).unwrap(), digest(&records));
        assert_eq!(left.get(&key("1")).unwrap(), store.get(&key("1")).unwrap());
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_with_the_reason() {
    let (directory, [format, ..]) = used().await;
    fs::write(&format, "shoal ring 2\n").unwrap();
    let message = refused(directory.path());
    assert!(message.contains("shoal ring 2") && message.contains("shoal ring 1"), "{message}");
    assert!(message.contains(format.to_str().unwrap()), "{message}");
    assert_eq!(fs::read(&format).unwrap(), b"shoal ring 2\n");
}

#[tokio::test]
async fn a_torn_format_file_is_refused_and_not_changed() {
    for torn in [&b""[..], b"shoal ri", b"\xff\xfe"] {
        let (directory, [format, ..]) = used().await;
        fs::write(&format, torn).unwrap();
        let error = open(directory.path()).err().unwrap();
        assert!(matches!(error, StoreError::Directory(DirectoryError::Format { .. })), "{error}");
        assert_eq!(fs::read(&format).unwrap(), torn);
        fs::write(&format, "shoal ring 1\n").unwrap();
        assert_eq!(open(directory.path()).unwrap().record_count(), 1);
    }
}

#[tokio::test]
async fn an_interrupted_first_start_is_repeated() {
    let (whole, files) = used().await;
    let names = ["format", "node-id", "ring.redb"];
    // A first start writes each file under another name and renames it, one after the other.
    for done in 0..names.len() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("lock"), "").unwrap();
        for (name, file) in names.iter().zip(&files).take(done) {
            fs::copy(file, directory.path().join(name)).unwrap();
        }
        let next = directory.path().join(names[done]).with_extension("new");
        fs::write(next, "sho").unwrap();
        let store = open(directory.path()).unwrap();
        assert_eq!(store.record_count(), 0);
        assert_eq!(store.node_id() == open(whole.path()).unwrap().node_id(), done == 2);
        merge(&store, record("a", b"1", 1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_node_id_is_not_replaced() {
    let (directory, [_, node_id, _]) = used().await;
    let id = fs::read(&node_id).unwrap();
    for torn in [None, Some(&b""[..]), Some(&id[..20])] {
        fs::remove_file(&node_id).unwrap();
        if let Some(torn) = torn {
            fs::write(&node_id, torn).unwrap();
        }
        let message = refused(directory.path());
        assert!(message.contains("node-id") && message.contains("restore it"), "{message}");
        fs::write(&node_id, &id).unwrap();
        open(directory.path()).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_the_reason() {
    let (directory, [_, _, redb]) = used().await;
    let row_key = [&key("bad").position().to_u128().to_be_bytes()[..], b"bad"].concat();
    let table: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
    let database = redb::Database::open(&redb).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(&*row_key, &[2, 0][..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let message = refused(directory.path());
    assert!(message.contains("ring.redb is damaged: it holds a record"), "{message}");

    fs::write(&redb, "this is no database").unwrap();
    let message = refused(directory.path());
    assert!(message.contains("ring.redb"), "{message}");
}

#[test]
fn a_directory_of_version_1_is_readable() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ring-v1");
    let directory = tempfile::tempdir().unwrap();
    for file in fs::read_dir(fixture).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    let store = open(directory.path()).unwrap();
    assert_eq!(store.node_id().to_string(), "4b0e3a52-7f3f-4a3b-9a43-3f8c0f2d6e11");
    let mut expiring = record("session", b"abc", 1_764_000_000_500);
    expiring.expires_ms = Some(1_764_000_900_000);
    let expected = [
        record("llama-3", &[7; 300], 1_764_000_000_000),
        expiring,
        tombstone("gone", 1_764_000_001_000),
    ];
    for record in &expected {
        assert_eq!(store.get(&record.key).unwrap().as_ref(), Some(record));
    }
    assert_eq!(store.digest(everywhere()).unwrap(), digest(&expected));
    let gone = (key("gone"), version(1_764_000_001_000));
    let session = (key("session"), version(1_764_000_000_500));
    let mut purgeable = store.purgeable(everywhere(), u64::MAX, 10).unwrap();
    purgeable.sort();
    assert_eq!(purgeable, [gone, session], "the index is rebuilt");
    assert_eq!(*store.configurations(), known_configurations(store.node_id()));
}

/// Configurations with all fields set.
fn known_configurations(node: NodeId) -> Configurations {
    let contact = |id: NodeId| Contact {
        position: Position::of_node(id, 0),
        id,
        address: "10.0.0.7:7071".parse().expect("an address"),
    };
    let (me, other) = (contact(node), contact(NodeId::new(Uuid::from_u128(7))));
    let set = |founding, epoch, members: &[&Contact]| ReplicaSet {
        lineage: Lineage(Uuid::from_u128(founding)),
        epoch,
        members: members.iter().map(|member| (*member).clone()).collect(),
    };
    let mine = KeyRange { after: other.position, last: me.position };
    let theirs = KeyRange { after: me.position, last: other.position };
    let present = set(2, 1, &[&me]);
    let next = Proposal { ballot: Ballot { round: 3, node }, next: set(2, 2, &[&me, &other]) };
    let mut configurations = Configurations::new(node);
    assert_eq!(configurations.learn(KeyRange::whole(me.position), &present), []);
    assert_eq!(configurations.accept(mine, &present, &next), Ok(()));
    assert_eq!(configurations.supply(mine, &present, next.ballot), Ok(vec![]));
    assert_eq!(configurations.learn(theirs, &set(1, 9, &[&other])), []);
    configurations
}
