//! Received blocks of one fetch: checked, stored, and reported to the state machine.

use std::{collections::VecDeque, mem, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::poll_immediate;
use shoal_core::{
    content::{BLOCK_UNIT, BlockRange, PieceIndex},
    swarm::{Attempt, ContentKey, FetchEnd, FetchKey, FetchRange, Input, LinkKey},
};
use tokio::sync::mpsc;

use super::fetch_spec::FetchSpec;
use crate::{
    end_notice::EndNotice,
    store::{Accepted, StoreError, Stored},
    transfer::event::Event,
};

/// The receiving end of one fetch. In any case exactly one `FetchEnded` is reported.
pub(super) struct BlockReceiver {
    pub(super) fetch: FetchKey,
    pub(super) link: LinkKey,
    content: ContentKey,
    stored: Arc<Stored>,
    /// The remaining ranges, in this order; the first is shortened as it arrives.
    ranges: VecDeque<FetchRange>,
    events: mpsc::Sender<Event>,
    /// Not sent yet: what arrives together is reported together, since each report may wake another
    /// thread.
    unsent: Vec<Input>,
    end: EndNotice<Event>,
}

/// Reports that are sent together, at most.
const MAX_UNSENT: usize = 16;

/// A block cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The neighbour violates the protocol.
    #[error("{length} bytes of piece {piece} from {offset} on are not what was requested next")]
    Unrequested {
        /// The piece it named.
        piece: u32,
        /// Bytes from its start, as it said.
        offset: u32,
        /// Bytes.
        length: usize,
    },
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BlockReceiver {
    /// Receives what was requested, and reports by `events`.
    pub(super) fn new(spec: FetchSpec, events: mpsc::Sender<Event>) -> Self {
        let FetchSpec { fetch, link, content, stored, ranges, .. } = spec;
        let failed = Input::FetchEnded { fetch, end: FetchEnd::Failed };
        let end = EndNotice::new(events.clone(), Event::Swarm(failed));
        Self {
            fetch,
            link,
            content,
            stored,
            ranges: ranges.into(),
            events,
            unsent: Vec::new(),
            end,
        }
    }

    /// Everything has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Reports that the neighbour answered, this long after the request; blocks come in their turn.
    pub(super) async fn answered(&self, round_trip: Duration) {
        self.tell(Input::RoundTrip { link: self.link, round_trip }).await;
    }

    /// Accepts the next block, which is reported by the next [`BlockReceiver::report`] at the latest.
    /// Not cancel safe: the state machine would not learn what is stored.
    pub(super) async fn take(
        &mut self,
        piece: u32,
        offset: u32,
        data: Bytes,
    ) -> Result<(), ReceiveError> {
        let (attempt, block) = take_next(&mut self.ranges, piece, offset, data.len())
            .ok_or(ReceiveError::Unrequested { piece, offset, length: data.len() })?;
        let accepted = self.stored.accept(self.link, attempt, block, data)?;
        let Self { content, fetch, .. } = *self;
        self.unsent.push(Input::BlockArrived { content, fetch, block });
        // Only what completed and wrote its piece can wait: others may report the rest of this one,
        // and a piece must not be reported before its blocks.
        let can_wait = matches!(&accepted, Accepted::Stored { pieces, .. } if !pieces.is_empty());
        match accepted {
            Accepted::Partial | Accepted::Duplicate | Accepted::Stale => {}
            Accepted::Stored { pieces, liars } => {
                // First of all: with the last piece the links to complete peers are closed.
                self.unsent.extend(liars.into_iter().map(|link| Input::CaughtLying { link }));
                let stored = pieces.into_iter().map(|piece| Input::PieceStored { content, piece });
                self.unsent.extend(stored);
            }
            Accepted::Corrupt { contributors } => {
                let piece = block.piece;
                self.unsent.push(Input::PieceCorrupt { content, piece, attempt, contributors });
            }
        }
        if !can_wait || self.unsent.len() >= MAX_UNSENT {
            self.report().await;
        }
        Ok(())
    }

    /// Waits for the neighbour, or for permission to read on. Reports first, unless there is nothing
    /// to wait for.
    pub(super) async fn wait_for<T>(&mut self, next: impl Future<Output = T>) -> T {
        let mut next = pin!(next);
        if let Some(next) = poll_immediate(&mut next).await {
            return next;
        }
        self.report().await;
        next.await
    }

    /// Reports what was accepted.
    async fn report(&mut self) {
        for input in mem::take(&mut self.unsent) {
            self.tell(input).await;
        }
    }

    /// Reports how the fetch ended, and which side is at fault.
    pub(super) async fn end(mut self, result: Result<FetchEnd, ReceiveError>) {
        self.report().await;
        let end = *result.as_ref().unwrap_or(&FetchEnd::Failed);
        self.end.give(Event::Swarm(Input::FetchEnded { fetch: self.fetch, end })).await;
        let fault = match result {
            Ok(_) => return,
            Err(ReceiveError::Unrequested { .. }) => Event::ProtocolBroken { link: self.link },
            Err(ReceiveError::Store(error)) => Event::StoreFailed { content: self.content, error },
        };
        // The engine has ended.
        let _ = self.events.send(fault).await;
    }

    async fn tell(&self, input: Input) {
        // The engine has ended.
        let _ = self.events.send(Event::Swarm(input)).await;
    }
}

/// Takes a block off the remaining ranges, if it is their next part, in units that leave no
/// fragments; returns the attempt that it belongs to.
pub(in crate::transfer) fn take_next(
    ranges: &mut VecDeque<FetchRange>,
    piece: u32,
    offset: u32,
    length: usize,
) -> Option<(Attempt, BlockRange)> {
    let FetchRange { attempt, range } = ranges.front_mut()?;
    let attempt = *attempt;
    let is_next = piece == range.piece.get() && offset == range.offset;
    let length = u32::try_from(length).ok().filter(|length| {
        let is_whole = length.is_multiple_of(BLOCK_UNIT) || *length == range.length;
        is_next && *length > 0 && *length <= range.length && is_whole
    })?;
    range.offset += length;
    range.length -= length;
    if range.length == 0 {
        ranges.pop_front();
    }
    Some((attempt, BlockRange { piece: PieceIndex::new(piece), offset, length }))
}
