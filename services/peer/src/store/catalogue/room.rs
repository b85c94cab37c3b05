//! Room for one more content: in the quota, and in the free space of the file system.

use std::collections::BTreeMap;

use shoal_core::{content::ContentId, swarm::Priority};

use super::{Store, index::Entry, reservation::Reservation};
use crate::{
    options::Options,
    store::{StoreError, file_system::free_bytes},
};

/// The room that a content needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Bytes that count towards the quota.
    pub bytes: u64,
    /// Bytes that are going to be written, as far as that is known.
    pub written: u64,
}

impl Need {
    /// A content of which everything is written.
    pub const fn all(bytes: u64) -> Self {
        Self { bytes, written: bytes }
    }

    /// A content that is fetched with these options. How much of it is skipped is not known before
    /// its manifest, so that it is not refused for want of space.
    pub fn of(bytes: u64, options: &Options) -> Self {
        Self { bytes, written: if skips_files(options) { 0 } else { bytes } }
    }
}

fn skips_files(options: &Options) -> bool {
    options.priorities.iter().any(|(_, priority)| *priority == Priority::Skip)
}

impl Store {
    /// Reserves room for a content that is going to be added or imported.
    pub(in crate::store) fn reserve(&self, need: Need) -> Result<Reservation, StoreError> {
        let _reserving = self.reserving.lock();
        let room = Reservation::within(self.quota, &self.index, need)?;
        self.check_space(need)?;
        Ok(room)
    }

    /// Refuses a reservation that does not fit beside the bytes that others are going to write.
    /// Bytes to write are counted before the free ones: what is written in between is then counted
    /// twice, not never.
    fn check_space(&self, need: Need) -> Result<(), StoreError> {
        if need.written == 0 {
            return Ok(());
        }
        // If nothing at all were written yet, it would fit: spares a look at each of many contents.
        let at_most = self.index.lock().used_bytes().saturating_add(self.min_free);
        if free_bytes(self.directory.path()).is_none_or(|free| at_most <= free) {
            return Ok(());
        }
        let (reserved, entries) = {
            let index = self.index.lock();
            (index.unwritten, index.entries.clone())
        };
        let unwritten = reserved.saturating_add(self.unwritten_bytes(&entries));
        let path = self.directory.path();
        let Some(free) = free_bytes(path) else { return Ok(()) };
        let taken = unwritten.saturating_add(self.min_free);
        match taken.saturating_sub(free) {
            0 => Ok(()),
            missing => {
                let path = path.to_owned();
                Err(StoreError::NoSpace { path, needed: need.written, missing, free })
            }
        }
    }

    /// Bytes that unfinished downloads are going to write.
    fn unwritten_bytes(&self, entries: &BTreeMap<ContentId, Entry>) -> u64 {
        let unwritten = |(id, entry): (&ContentId, &Entry)| {
            if entry.in_place.is_some() || self.is_whole_and_ours(*id, entry) {
                return 0;
            }
            if self.options(*id).is_ok_and(|options| skips_files(&options)) {
                return 0;
            }
            entry.stored_bytes.saturating_sub(self.directory.content(*id).allocated_bytes())
        };
        entries.iter().map(unwritten).fold(0, u64::saturating_add)
    }
}
