//! Contents that users requested: they are searched for until they are found, whatever else is
//! replicated.

use std::{collections::BTreeSet, sync::Arc};

use shoal_common::lock::Mutex;
use shoal_core::content::ContentId;

/// Contents remembered, at most: as many as are remembered as removed.
const MAX_CONTENTS: usize = 10_000;

/// The contents that users of the local API requested. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requested(Arc<Mutex<BTreeSet<ContentId>>>);

impl Requested {
    /// A user requests a content.
    pub(crate) fn note(&self, id: ContentId) {
        let mut requested = self.0.lock();
        if requested.len() >= MAX_CONTENTS {
            requested.pop_first();
        }
        requested.insert(id);
    }

    /// A user removes it.
    pub(crate) fn forget(&self, id: ContentId) {
        self.0.lock().remove(&id);
    }

    /// A user requested it.
    pub(crate) fn contains(&self, id: ContentId) -> bool {
        self.0.lock().contains(&id)
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeSet<ContentId> {
        self.0.lock().clone()
    }
}
