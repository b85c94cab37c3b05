//! Lists of contents to replicate, and their sources.

use std::collections::BTreeMap;

use shoal_core::{Address, content::ContentId};

use crate::options::Options;

/// The wanted contents, as far as they are known now.
pub(super) struct Look {
    pub(super) listings: Vec<Listing>,
    /// Some source did not answer.
    pub(super) is_partial: bool,
}

/// The source of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lister {
    /// The peer's own settings: their contents are wanted, however long it takes.
    Settings,
    /// A tracker, which lists whatever anybody announces.
    Tracker(Address),
}

/// The contents that one source lists, as far as it returned them this time.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) lister: Lister,
    pub(super) contents: BTreeMap<ContentId, Options>,
}
