//! Stores and records.

use std::{
    future::poll_fn,
    path::Path,
    pin::Pin,
    sync::mpsc::{Sender, channel},
    task::Poll,
};

use bytes::Bytes;
use shoal_core::ring::{KeyRange, NodeId, Position, Stamp, Version};
use shoal_dht_node::storage::{
    Broken, DataDir, Digest, Key, Merged, Record, Store, StoreError, Txn,
};
use tempfile::TempDir;
use tokio::task::unconstrained;
use uuid::Uuid;

pub(crate) fn open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(DataDir::open(directory)?)
}

/// A store in a directory of its own.
pub(crate) fn fresh() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    (directory, store)
}

pub(crate) fn key(name: impl AsRef<[u8]>) -> Key {
    Bytes::copy_from_slice(name.as_ref()).try_into().unwrap()
}

pub(crate) fn version(wall_ms: u64) -> Version {
    Version { epoch: 1, wall_ms, counter: 0, node: NodeId::new(Uuid::from_u128(7)) }
}

/// A value with this write time.
pub(crate) fn record(name: impl AsRef<[u8]>, value: &[u8], wall_ms: u64) -> Record {
    let value = Some(Bytes::copy_from_slice(value).try_into().unwrap());
    Record { key: key(name), stamp: Stamp::of(version(wall_ms)), value, expires_ms: None }
}

/// A tombstone with this write time.
pub(crate) fn tombstone(name: impl AsRef<[u8]>, wall_ms: u64) -> Record {
    Record { value: None, ..record(name, &[], wall_ms) }
}

pub(crate) async fn merge(store: &Store, record: Record) -> Result<Merged, StoreError> {
    store.write(move |txn| txn.merge(&record)).await
}

/// The range of all positions, in the form that does not wrap.
pub(crate) fn everywhere() -> KeyRange {
    KeyRange::whole(Position::from_u128(u128::MAX))
}

/// The digest of records, computed independently of the store.
pub(crate) fn digest<'a>(records: impl IntoIterator<Item = &'a Record>) -> Digest {
    records.into_iter().fold(Digest::default(), |sum, record| {
        let Stamp { epoch, version } = record.stamp;
        let bytes = [&epoch.to_be_bytes()[..], &version.to_bytes(), record.key.as_bytes()].concat();
        let hash = u128::from_be_bytes(blake3::hash(&bytes).as_bytes()[..16].try_into().unwrap());
        Digest { hash: sum.hash ^ hash, count: sum.count + 1 }
    })
}

/// Polls a future once: a write is then queued, or waits for room. Writes that begin while the
/// writer is blocked form one batch.
pub(crate) async fn begun<F: Future>(future: F) -> Pin<Box<impl Future<Output = F::Output>>> {
    // Otherwise tokio would make the task yield before all of a test's writes have begun.
    let mut future = Box::pin(unconstrained(future));
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    future
}

/// A job that blocks the writer until something is sent.
pub(crate) fn holding() -> (Sender<()>, impl FnOnce(&mut Txn<'_>) -> Result<(), Broken> + Send) {
    let (release, held) = channel();
    (release, move |_: &mut Txn<'_>| held.recv().map_or(Ok(()), Ok))
}
