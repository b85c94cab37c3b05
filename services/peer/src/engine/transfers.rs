//! Requested blocks, and the events of the data plane about them.
//!
//! Each fetch that the state machine orders ends in exactly one `FetchEnded`, sent by the
//! [`crate::bulk::Intake`] that takes in its blocks, or here if it cannot begin. The state machine
//! ignores those of fetches that it has cancelled, or forgotten with their link.

use std::time::{Duration, Instant};

use shoal_core::{
    content::PieceIndex,
    swarm::{
        Attempt, BanReason, ContentKey, FetchEnd, FetchKey, FetchRange, Input, LinkKey,
        RefuseReason,
    },
};
use tokio_util::sync::DropGuard;

use super::{Engine, contents::Content, inlink::Arrivals};
use crate::bulk::{self, Order};

/// When to retry a peer that is stopping: it may be restarting.
const COME_BACK: Duration = Duration::from_secs(5);

/// A fetch in progress.
pub(super) struct Fetch {
    pub(super) link: LinkKey,
    pub(super) way: Way,
}

/// How blocks arrive.
pub(super) enum Way {
    /// By one of our calls. Dropping this cancels the call.
    Call(DropGuard),
    /// On the link itself.
    OnLink(Arrivals),
}

impl Engine {
    /// Requests blocks from a neighbour.
    pub(super) fn start_fetch(
        &mut self,
        fetch: FetchKey,
        link: LinkKey,
        ranges: Vec<FetchRange>,
        block_length: u32,
    ) {
        // Links and contents may end while the outputs of the state machine are carried out.
        let found = self.links.get(&link).and_then(|neighbour| {
            let content = self.contents.get(&neighbour.content)?;
            Some((neighbour, content, content.stored()?))
        });
        let Some((neighbour, content, stored)) = found else {
            self.brain(Input::FetchEnded { fetch, end: FetchEnd::Failed });
            return;
        };
        let order = Order {
            fetch,
            link,
            content: neighbour.content,
            stored,
            ranges,
            block_length,
            link_token: neighbour.their_token.to_bytes(),
        };
        if neighbour.requests.only_way {
            self.fetch_on_link(order);
            return;
        }
        let call = content.span.in_scope(|| neighbour.source.fetch(order));
        self.fetches.insert(fetch, Fetch { link, way: Way::Call(call) });
    }

    /// Cancels a call for blocks, or a request for them on the link.
    pub(super) fn cancel_fetch(&mut self, fetch: FetchKey) {
        match self.fetches.remove(&fetch) {
            Some(Fetch { link, way: Way::OnLink(_) }) => self.cancel_on_link(link, fetch),
            Some(Fetch { way: Way::Call(call), .. }) => drop(call),
            None => {}
        }
    }

    fn fetch_ended(&mut self, fetch: FetchKey, end: FetchEnd) {
        let ended = self.fetches.remove(&fetch);
        // The neighbour is not told, unless it has sent its last block.
        if let Some(Fetch { link, way: Way::OnLink(_) }) = ended
            && end != FetchEnd::Done
        {
            self.cancel_on_link(link, fetch);
        }
    }

    /// Has the store discard an attempt at a piece. On a lane, because it may wait for the disk.
    pub(super) fn abandon(&self, content: ContentKey, piece: PieceIndex, attempt: Attempt) {
        let stored = self.contents.get(&content).and_then(Content::stored);
        if let Some(stored) = stored {
            self.bulk.lanes.spawn(async move { stored.abandon(piece, attempt) });
        }
    }

    fn note_asked(&mut self, content: ContentKey) {
        if let Some(content) = self.contents.get_mut(&content) {
            content.last_asked = Some(Instant::now());
        }
    }

    /// An event of the data plane.
    pub(super) fn transferred(&mut self, event: bulk::Event) {
        match event {
            bulk::Event::Brain(Input::ServeRequested { serve, .. }) if self.is_leaving => {
                let reason = RefuseReason::Busy { retry_after: COME_BACK };
                self.bulk.uploads.refuse(serve, reason);
            }
            bulk::Event::Brain(input) => {
                match &input {
                    Input::FetchEnded { fetch, end } => self.fetch_ended(*fetch, *end),
                    Input::ServeRequested { content, .. } => self.note_asked(*content),
                    Input::BlockArrived { block, .. } => {
                        metrics::counter!("shoal_peer_received_bytes_total")
                            .increment(block.length.into());
                    }
                    Input::BlockSent { bytes, .. } => {
                        metrics::counter!("shoal_peer_sent_bytes_total").increment((*bytes).into());
                    }
                    _ => {}
                }
                self.brain(input);
            }
            bulk::Event::ProtocolBroken { link } => self.ban(link, BanReason::Protocol),
            bulk::Event::StoreFailed { content, error } => self.store_failed(content, error),
        }
    }
}
