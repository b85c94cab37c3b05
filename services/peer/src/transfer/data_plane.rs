//! The parts of the data plane, for the engine.

use std::sync::Arc;

use shoal_common::units::Rate;
use shoal_core::Address;

use super::{
    download::{Downloads, LinkSource, NeighbourSource},
    io_threads::IoThreads,
    upload::Uploads,
};
use crate::link::LinkSender;

/// The threads, and the transfers of both directions.
pub(crate) struct DataPlane {
    pub(crate) io_threads: Arc<IoThreads>,
    pub(crate) downloads: Downloads,
    pub(crate) uploads: Uploads,
    /// The download limit, for explanations.
    pub(crate) max_download: Option<Rate>,
}

impl DataPlane {
    /// The source of a neighbour's blocks: calls to this address.
    pub(crate) fn source(&self, address: &Address) -> NeighbourSource {
        NeighbourSource::new(self.downloads.source(&self.io_threads, address))
    }

    /// The source of the blocks of a neighbour that cannot be dialled: its link.
    pub(crate) fn link_source(&self, link: LinkSender) -> LinkSource {
        LinkSource::new(link, self.downloads.clone(), self.io_threads.clone())
    }
}
