//! Links: dialled, let in, spoken on, closed.

use std::time::Instant;

use shoal_common::Address;
use shoal_core::{
    PeerId,
    roster::{Admission, Candidate, Direction, Refusal},
    swarm::{BanReason, Capabilities, ContentKey, Input, LinkKey, PeerMessage},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument as _, debug};

use super::{Engine, inlink::OnLink};
use crate::{
    bulk::Source,
    event::Event,
    link::{Admitted, Dial, Handshake, LinkError, Voice},
    wire::{self, LinkToken, WireError},
};

/// A neighbour for one content.
pub(super) struct Link {
    pub(super) content: ContentKey,
    pub(super) peer: PeerId,
    pub(super) address: Address,
    /// Borne by its calls to us.
    our_token: LinkToken,
    pub(super) voice: Voice,
    pub(super) requests: OnLink,
    /// Borne by our calls to it.
    pub(super) their_token: LinkToken,
    /// Where blocks are fetched from.
    pub(super) source: Source,
    _closer: DropGuard,
}

impl Engine {
    /// Dials whom the roster names.
    pub(super) fn dial(&mut self) {
        for (content, candidate) in self.roster.dials(Instant::now(), &mut self.rng) {
            let Some(entry) = self.contents.get(&content) else { continue };
            let Some(stored) = entry.stored() else { continue };
            let Ok(address) = candidate.address.parse() else { continue };
            let dial = Dial {
                content,
                layout: stored.layout().clone(),
                peer: candidate.peer,
                address,
                hello: self.identity.hello(&stored),
                events: self.events.clone(),
            };
            let events = self.events.clone();
            let stop = self.stop.clone();
            let dialling = async move {
                if let Some(Err(error)) = stop.run_until_cancelled(dial.run()).await {
                    let peer = candidate.peer;
                    // An engine that is gone needs no word.
                    let _ = events.send(Event::DialFailed { content, peer, error }).await;
                }
            };
            self.tasks.spawn(dialling.instrument(entry.span.clone()));
        }
    }

    pub(super) fn dial_failed(&mut self, content: ContentKey, peer: PeerId, error: &LinkError) {
        debug!(peer_id = %peer, %error, "no link");
        self.roster.dial_failed(Instant::now(), content, peer, &mut self.rng);
    }

    /// Takes up a link, or says why not.
    pub(super) fn admit(&mut self, handshake: Handshake) -> Admitted {
        let now = Instant::now();
        if self.is_leaving {
            return Err(Refusal::NoContent);
        }
        let Handshake { content, peer, .. } = handshake;
        let candidate = Candidate {
            peer,
            address: handshake.address.to_string(),
            complete: handshake.complete,
        };
        match self.roster.admit(now, content, candidate, handshake.direction) {
            Admission::Refuse(refusal) => return Err(refusal),
            Admission::Replace => {
                let old = self.links.iter().find(|(_, l)| l.content == content && l.peer == peer);
                if let Some(old) = old.map(|(link, _)| *link) {
                    self.forget(old);
                }
            }
            Admission::Keep => {}
        }
        let link = LinkKey(self.next_key());
        let closed = CancellationToken::new();
        self.directory.insert_link(handshake.our_token, content, link);
        self.links.insert(
            link,
            Link {
                content,
                peer,
                source: self.bulk.downloads.source(&self.bulk.lanes, &handshake.address),
                address: handshake.address,
                our_token: handshake.our_token,
                their_token: handshake.their_token,
                voice: handshake.voice,
                requests: OnLink::default(),
                _closer: closed.clone().drop_guard(),
            },
        );
        if handshake.direction == Direction::Inbound {
            self.probe(link);
        }
        self.brain(Input::LinkUp {
            link,
            content,
            peer,
            capabilities: Capabilities { reciprocates: true, serves: !handshake.serves_nothing },
            round_trip: handshake.round_trip,
        });
        Ok((link, closed))
    }

    pub(super) fn link_ended(&mut self, link: LinkKey, offence: Option<WireError>) {
        match offence {
            Some(error) => {
                debug!(error = %error, "a neighbour breaks the protocol");
                self.ban(link, BanReason::Protocol);
            }
            None => self.close(link),
        }
    }

    /// Queues a message. A neighbour that reads so slowly that there is no room is dropped.
    pub(super) fn say(&mut self, link: LinkKey, message: PeerMessage) {
        let Some(entry) = self.links.get(&link) else { return };
        for message in wire::send(message) {
            if entry.voice.messages.try_send(message).is_err() {
                debug!(peer_id = %entry.peer, "a neighbour does not read its link");
                self.close(link);
                return;
            }
        }
    }

    pub(super) fn ban(&mut self, link: LinkKey, reason: BanReason) {
        let Some(entry) = self.links.get(&link) else { return };
        let (peer, address) = (entry.peer, entry.address.to_string());
        debug!(peer_id = %peer, addr = %address, ?reason, "banned");
        metrics::counter!("shoal_peer_bans_total").increment(1);
        self.roster.ban(Instant::now(), peer, address);
        let all: Vec<_> =
            self.links.iter().filter(|(_, l)| l.peer == peer).map(|(link, _)| *link).collect();
        for link in all {
            self.close(link);
        }
    }

    /// Ends a link for good.
    pub(super) fn close(&mut self, link: LinkKey) {
        let Some(entry) = self.links.get(&link) else { return };
        self.roster.link_down(Instant::now(), entry.content, entry.peer);
        self.forget(link);
    }

    /// Ends a link, of which the roster knows already, with all that hangs on it.
    pub(super) fn forget(&mut self, link: LinkKey) {
        let Some(entry) = self.links.remove(&link) else { return };
        self.directory.remove_link(&entry.our_token);
        self.fetches.retain(|_, (of, _)| *of != link);
        self.bulk.uploads.end_link(link);
        self.brain(Input::LinkDown { link });
    }
}
