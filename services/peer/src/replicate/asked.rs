//! Contents that users requested: they are searched until they are found, whatever else is
//! replicated.

use std::{collections::BTreeSet, sync::Arc};

use shoal_common::lock::Mutex;
use shoal_core::content::ContentId;

/// Contents remembered, at most: as many as are remembered as removed.
const MAX_CONTENTS: usize = 10_000;

/// The contents that users of the control API requested. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<Mutex<BTreeSet<ContentId>>>);

impl Asked {
    /// A user requests a content.
    pub(crate) fn note(&self, id: ContentId) {
        let mut asked = self.0.lock();
        if asked.len() >= MAX_CONTENTS {
            asked.pop_first();
        }
        asked.insert(id);
    }

    /// A user removes it.
    pub(crate) fn forget(&self, id: ContentId) {
        self.0.lock().remove(&id);
    }

    /// A user requested it.
    pub(super) fn contains(&self, id: ContentId) -> bool {
        self.0.lock().contains(&id)
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeSet<ContentId> {
        self.0.lock().clone()
    }
}
