//! Requested blocks, and the events of the data plane about them.
//!
//! Each fetch that the state machine starts ends in exactly one `FetchEnded`, from the data plane
//! or, if it cannot begin, from here. The state machine ignores those of fetches that it has
//! cancelled, or forgotten with their link.

use std::time::{Duration, Instant};

use shoal_core::{
    content::PieceIndex,
    swarm::{
        Attempt, BanReason, ContentKey, FetchEnd, FetchKey, FetchRange, Input, LinkKey,
        RefuseReason,
    },
};
use shoal_proto::peer::v1::Request;

use super::{Engine, contents::Content};
use crate::{
    link::wire::InLink,
    transfer::{AnswerPart, BlockRequest, DataPlane, Event, FetchHandle, FetchSpec},
};

/// When to retry a peer that is stopping: it may be restarting.
const COME_BACK: Duration = Duration::from_secs(5);

/// A fetch in progress.
pub(super) struct Fetch {
    pub(super) link: LinkKey,
    handle: FetchHandle,
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
            self.advance(Input::FetchEnded { fetch, end: FetchEnd::Failed });
            return;
        };
        let spec = FetchSpec {
            fetch,
            link,
            content: neighbour.content,
            stored,
            ranges,
            block_length,
            link_token: neighbour.their_token.to_bytes(),
        };
        match content.span.in_scope(|| neighbour.source.fetch(spec)) {
            Ok(handle) => drop(self.fetches.insert(fetch, Fetch { link, handle })),
            Err(_) => self.close(link),
        }
    }

    /// Ends a fetch, and tells the neighbour if it answers on its link.
    pub(super) fn cancel_fetch(&mut self, fetch: FetchKey) {
        let Some(Fetch { link, handle }) = self.fetches.remove(&fetch) else { return };
        let Some(neighbour) = self.links.get(&link) else { return };
        if neighbour.source.cancel(handle).is_err() {
            self.close(link);
        }
    }

    fn fetch_ended(&mut self, fetch: FetchKey, end: FetchEnd) {
        if end == FetchEnd::Done {
            self.fetches.remove(&fetch);
        } else {
            // The neighbour may still be sending.
            self.cancel_fetch(fetch);
        }
    }

    /// A message about blocks on the link itself.
    pub(super) fn in_link(&mut self, link: LinkKey, message: InLink) {
        match message {
            InLink::Request(request) => self.serve_on_link(link, &request),
            InLink::Cancel(request_id) => {
                if let Some(neighbour) = self.links.get_mut(&link) {
                    neighbour.uploads.cancel(request_id);
                }
            }
            InLink::Block(block) => {
                self.answered(link, FetchKey(block.request_id), AnswerPart::Block(block));
            }
            InLink::Refuse(id) => self.answered(link, FetchKey(id), AnswerPart::Refused),
        }
    }

    /// Passes on a part of an answer; it is dropped if the request was cancelled.
    fn answered(&mut self, link: LinkKey, fetch: FetchKey, part: AnswerPart) {
        let Some(entry) = self.fetches.get_mut(&fetch).filter(|fetch| fetch.link == link) else {
            return;
        };
        match entry.handle.receive(part) {
            Ok(false) => {}
            // If something is missing, the fetch fails.
            Ok(true) => drop(self.fetches.remove(&fetch)),
            Err(_) => self.ban(link, BanReason::Protocol),
        }
    }

    fn serve_on_link(&mut self, link: LinkKey, message: &Request) {
        let Some(neighbour) = self.links.get_mut(&link) else { return };
        let content = neighbour.content;
        let Some(stored) = self.contents.get(&content).and_then(Content::stored) else { return };
        let Some(request) = BlockRequest::on_link(link, content, stored, message) else {
            self.ban(link, BanReason::Protocol);
            return;
        };
        let DataPlane { uploads, io_threads, .. } = &self.data_plane;
        let id = message.request_id;
        if neighbour.uploads.serve(id, request, uploads, io_threads, &neighbour.sender).is_err() {
            self.close(link);
        }
    }

    /// Has the store discard an attempt at a piece. On an I/O thread, because it may wait
    /// for the disk.
    pub(super) fn abandon(&self, content: ContentKey, piece: PieceIndex, attempt: Attempt) {
        let stored = self.contents.get(&content).and_then(Content::stored);
        if let Some(stored) = stored {
            self.data_plane.io_threads.spawn(async move { stored.abandon(piece, attempt) });
        }
    }

    fn note_asked(&mut self, content: ContentKey) {
        if let Some(content) = self.contents.get_mut(&content) {
            content.last_asked = Some(Instant::now());
        }
    }

    /// An event of the data plane.
    pub(super) fn transferred(&mut self, event: Event) {
        match event {
            Event::Swarm(Input::ServeRequested { serve, .. }) if self.is_leaving => {
                let reason = RefuseReason::Busy { retry_after: COME_BACK };
                self.data_plane.uploads.refuse(serve, reason);
            }
            Event::Swarm(input) => {
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
                let stored = match &input {
                    Input::PieceStored { content, piece } => Some((*content, *piece)),
                    _ => None,
                };
                self.advance(input);
                if let Some((content, piece)) = stored {
                    self.piece_stored(content, piece);
                }
            }
            Event::ProtocolBroken { link } => self.ban(link, BanReason::Protocol),
            Event::StoreFailed { content, error } => self.store_failed(content, error),
        }
    }
}
