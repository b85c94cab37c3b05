//! Fetches from one neighbour, however its blocks come.

use tokio_util::sync::DropGuard;

use super::{
    calls::BlockSource,
    fetch_spec::FetchSpec,
    on_link::{AnswerPart, LinkFetch, LinkSource, Unrequested},
};
use crate::link::QueueFull;

/// Where the blocks of one neighbour are fetched from.
pub(crate) struct NeighbourSource {
    calls: BlockSource,
    /// The neighbour cannot be dialled.
    on_link: Option<LinkSource>,
}

/// A fetch in progress. Dropping it ends the fetch, without a word to a neighbour that answers on
/// its link.
pub(crate) enum FetchHandle {
    Call(DropGuard),
    OnLink(LinkFetch),
}

impl NeighbourSource {
    pub(in crate::transfer) const fn new(calls: BlockSource) -> Self {
        Self { calls, on_link: None }
    }

    /// From now on blocks are requested on the link.
    pub(crate) fn use_link(&mut self, link: LinkSource) {
        self.on_link = Some(link);
    }

    pub(crate) const fn is_on_link(&self) -> bool {
        self.on_link.is_some()
    }

    /// Requests blocks; an error if the neighbour does not read its link. The end of the fetch is
    /// reported in any case.
    pub(crate) fn fetch(&self, spec: FetchSpec) -> Result<FetchHandle, QueueFull> {
        match &self.on_link {
            None => Ok(FetchHandle::Call(self.calls.fetch(spec))),
            Some(link) => link.fetch(spec).map(FetchHandle::OnLink),
        }
    }

    /// Ends a fetch before its last block.
    pub(crate) fn cancel(&self, fetch: FetchHandle) -> Result<(), QueueFull> {
        match (fetch, &self.on_link) {
            (FetchHandle::OnLink(fetch), Some(link)) => link.cancel(&fetch),
            (FetchHandle::OnLink(_), None) => Ok(()),
            (FetchHandle::Call(call), _) => {
                drop(call);
                Ok(())
            }
        }
    }
}

impl FetchHandle {
    /// Passes on a part of an answer that arrived on the link; true after the last part.
    pub(crate) fn receive(&mut self, part: AnswerPart) -> Result<bool, Unrequested> {
        match self {
            Self::OnLink(fetch) => {
                let is_last = part.is_last();
                fetch.receive(part)?;
                Ok(is_last)
            }
            // Requested by a call, so an answer on the link is ignored.
            Self::Call(_) => Ok(false),
        }
    }
}
