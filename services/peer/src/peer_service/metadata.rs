//! Manifests and piece hashes for other peers: in memory once for all of their readers.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use shoal_common::lock::Mutex;
use shoal_core::content::ContentId;

use crate::store::Stored;

/// The encoded manifests that are being read.
#[derive(Default)]
pub(crate) struct Manifests(Mutex<HashMap<ContentId, Weak<Vec<u8>>>>);

impl Manifests {
    /// The encoded manifest of a content.
    pub(crate) fn of(&self, stored: &Stored) -> Bytes {
        // A panic leaves at worst a map that lacks an entry.
        let mut read = self.0.lock();
        let known = read.get(&stored.id()).and_then(Weak::upgrade);
        let encoded = known.unwrap_or_else(|| {
            let encoded = Arc::new(stored.manifest().encode());
            read.retain(|_, other| other.strong_count() > 0);
            read.insert(stored.id(), Arc::downgrade(&encoded));
            encoded
        });
        Bytes::from_owner(Shared(encoded))
    }
}

/// The piece hashes of a content, which stay in memory while they are read.
pub(crate) fn hashes_of(stored: Arc<Stored>) -> Bytes {
    Bytes::from_owner(Hashes(stored))
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

struct Hashes(Arc<Stored>);

impl AsRef<[u8]> for Hashes {
    fn as_ref(&self) -> &[u8] {
        self.0.hashes().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::hash;

    #[test]
    fn readers_share_the_bytes_which_are_freed_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), vec![7; 100_000]).unwrap();
        let stored = Stored::in_place(hash(directory.path(), None, |_| {}).unwrap());
        let manifests = Manifests::default();
        let (one, other) = (manifests.of(&stored), manifests.of(&stored));
        assert_eq!(one, stored.manifest().encode());
        assert_eq!(one.as_ptr(), other.as_ptr());
        let again = one.slice(1..);
        drop((one, other));
        assert_eq!(manifests.of(&stored)[1..].as_ptr(), again.as_ptr());
        drop(again);
        let kept = manifests.0.lock().values().filter(|kept| kept.strong_count() > 0).count();
        assert_eq!(kept, 0);
        assert_eq!(hashes_of(stored.clone()).as_ptr(), stored.hashes().as_bytes().as_ptr());
    }
}
