//! Blocks asked for, and what the data plane tells of them.

use std::time::{Duration, Instant};

use shoal_core::{
    content::PieceIndex,
    swarm::{Attempt, BanReason, ContentKey, FetchKey, FetchRange, Input, LinkKey, RefuseReason},
};

use super::{Engine, contents::Content};
use crate::bulk::{self, Intake, Order};

/// When to look again for a peer that is stopping: it may be restarting.
const COME_BACK: Duration = Duration::from_secs(5);

impl Engine {
    /// Asks a neighbour for blocks.
    pub(super) fn start_fetch(
        &mut self,
        fetch: FetchKey,
        link: LinkKey,
        ranges: Vec<FetchRange>,
        block_length: u32,
    ) {
        // Links and contents may go while the brain's outputs are carried out; it is told of that.
        let Some(neighbour) = self.links.get(&link) else { return };
        let Some(content) = self.contents.get(&neighbour.content) else { return };
        let Some(stored) = content.stored() else { return };
        if neighbour.requests.only_way {
            let content = neighbour.content;
            let events = self.bulk.moved.clone();
            let ranges = ranges.into();
            self.fetch_on_link(Intake { fetch, link, content, stored, ranges, events });
            return;
        }
        let order = Order {
            fetch,
            link,
            content: neighbour.content,
            stored,
            ranges,
            block_length,
            link_token: neighbour.their_token.to_bytes(),
        };
        let call = content.span.in_scope(|| neighbour.source.fetch(order));
        self.fetches.insert(fetch, (link, call));
    }

    /// Drops a call for blocks.
    pub(super) fn cancel_fetch(&mut self, fetch: FetchKey) {
        if self.fetches.remove(&fetch).is_none() {
            self.cancel_on_link(fetch);
        }
    }

    /// Has the store forget an attempt at a piece. On a lane, since it may wait for the disk.
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

    /// What the data plane says.
    pub(super) fn transferred(&mut self, event: bulk::Event) {
        match event {
            bulk::Event::Brain(Input::ServeRequested { serve, .. }) if self.is_leaving => {
                let reason = RefuseReason::Busy { retry_after: COME_BACK };
                self.bulk.uploads.refuse(serve, reason);
            }
            bulk::Event::Brain(input) => {
                match &input {
                    Input::FetchEnded { fetch, .. } => drop(self.fetches.remove(fetch)),
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
