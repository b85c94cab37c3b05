//! Links: accepted, used, closed.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use shoal_core::{
    Address, PeerId,
    peer_list::{Admission, Arrival, Origin, Refusal},
    swarm::{BanReason, Capabilities, ContentKey, Input, LinkKey, PeerMessage},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::Engine;
use crate::{
    link::{
        Admitted, AdmittedLink, Event, Handshake, LinkSender, LinkToken,
        wire::{self, WireError},
    },
    transfer::{LinkUploads, NeighbourSource},
};

/// A neighbour that dialled us and moved no block for this long, in either direction, makes room
/// for a newcomer: longer than a seeder's round takes on a slow uplink.
const USELESS_AFTER: Duration = Duration::from_secs(30);

/// The same for a newcomer of its own host, which has a share of the slots.
const USELESS_TO_ITS_HOST_AFTER: Duration = Duration::from_secs(10);

/// A link of a neighbour that dialled us is closed when no block moved on it for this long.
const IDLE: Duration = Duration::from_secs(600);

/// A neighbour for one content.
pub(super) struct Link {
    pub(super) content: ContentKey,
    pub(super) peer: PeerId,
    /// The address to dial. If that is unknown, where it was observed, with port 0.
    pub(super) address: Address,
    /// What is proven about it.
    pub(super) origin: Origin,
    /// Bytes of blocks, in both directions, and when they last grew.
    moved: u64,
    moved_at: Instant,
    /// In its calls to us.
    our_token: LinkToken,
    pub(super) sender: LinkSender,
    /// In our calls to it.
    pub(super) their_token: LinkToken,
    /// Where its blocks are fetched from.
    pub(super) source: NeighbourSource,
    /// What it fetches on the link.
    pub(super) uploads: LinkUploads,
    _closer: DropGuard,
}

impl Engine {
    pub(super) fn handle_link(&mut self, event: Event) {
        match event {
            Event::Message { link, message } => self.advance(Input::Message { link, message }),
            Event::InLink { link, message } => self.in_link(link, message),
            Event::Handshake(handshake, admitted) => {
                // The caller may have given up: then the accepted link reports that it has ended.
                drop(admitted.send(self.admit(*handshake)));
            }
            Event::Called { content, candidate } => self.called(content, candidate),
            Event::Ended { link, offence } => self.link_ended(link, offence),
        }
    }

    /// Accepts a link, or says why not.
    pub(super) fn admit(&mut self, handshake: Handshake) -> Admitted {
        let now = Instant::now();
        if self.is_leaving {
            return Err(Refusal::NoContent);
        }
        let Handshake { content, peer, origin, .. } = &handshake;
        let (content, peer, origin) = (*content, *peer, origin.clone());
        let arrival = Arrival {
            peer,
            address: handshake.address.clone(),
            complete: handshake.complete,
            origin: origin.clone(),
        };
        let mut admission = self.peer_list.admit(now, content, arrival.clone());
        if let Admission::Refuse(refusal) = admission
            && let Some(useless) = self.least_useful_link(now, content, &origin, refusal)
        {
            self.close(useless);
            admission = self.peer_list.admit(now, content, arrival);
        }
        match admission {
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
        let address = handshake.address.unwrap_or_else(|| observed_at(&origin));
        self.links.insert(
            link,
            Link {
                content,
                peer,
                source: self.data_plane.source(&address),
                address,
                origin: origin.clone(),
                moved: 0,
                moved_at: now,
                our_token: handshake.our_token,
                their_token: handshake.their_token,
                sender: handshake.sender,
                uploads: LinkUploads::default(),
                _closer: closed.clone().drop_guard(),
            },
        );
        if let Origin::Seen(host, _) = origin {
            self.probe(link, host);
        }
        self.advance(Input::LinkUp {
            link,
            content,
            peer,
            capabilities: Capabilities { reciprocates: true, serves: !handshake.serves_nothing },
            round_trip: handshake.round_trip,
        });
        Ok(AdmittedLink::new(link, closed, self.senders.links.clone()))
    }

    /// Ends all links of a content.
    pub(super) fn close_all(&mut self, content: ContentKey) {
        let of_content = self.links.iter().filter(|(_, link)| link.content == content);
        let links: Vec<_> = of_content.map(|(link, _)| *link).collect();
        for link in links {
            self.close(link);
        }
    }

    fn link_ended(&mut self, link: LinkKey, offence: Option<WireError>) {
        match offence {
            Some(error) => {
                debug!(error = %error, "a neighbour breaks the protocol");
                self.ban(link, BanReason::Protocol);
            }
            None => self.close(link),
        }
    }

    /// Queues a message. A neighbour that reads so slowly that there is no room is dropped.
    pub(super) fn send(&mut self, link: LinkKey, message: PeerMessage) {
        let Some(entry) = self.links.get(&link) else { return };
        for message in wire::encode(message) {
            if entry.sender.send(message).is_err() {
                debug!(peer_id = %entry.peer, "a neighbour does not read its link");
                self.close(link);
                return;
            }
        }
    }

    /// Bans the other end of a link, as far as its identity is proven.
    pub(super) fn ban(&mut self, link: LinkKey, reason: BanReason) {
        let Some(entry) = self.links.get(&link) else { return };
        let (peer, address) = (entry.peer, &entry.address);
        debug!(peer_id = %peer, addr = %address, ?reason, "banned");
        let mut proven = vec![entry.origin.clone()];
        if reason == BanReason::Corruption && !entry.source.is_on_link() {
            // Its blocks came from there.
            proven.push(Origin::Dialled(address.clone()));
        }
        metrics::counter!("shoal_peer_bans_total").increment(1);
        let all = self.links.iter().filter(|(_, link)| proven.contains(&link.origin));
        let all: Vec<_> = all.map(|(link, _)| *link).collect();
        for origin in proven {
            self.peer_list.ban(Instant::now(), origin);
        }
        for link in all {
            self.close(link);
        }
    }

    /// The least useful link, if it was of no use for a while: it makes room for one from `origin`
    /// that is refused. Links that we dialled stay.
    fn least_useful_link(
        &self,
        now: Instant,
        content: ContentKey,
        origin: &Origin,
        refusal: Refusal,
    ) -> Option<LinkKey> {
        let (host, patience) = match (refusal, origin) {
            (Refusal::Full, _) => (None, USELESS_AFTER),
            (Refusal::Crowded, Origin::Seen(host, _)) => (Some(host), USELESS_TO_ITS_HOST_AFTER),
            _ => return None,
        };
        let may_go = |link: &Link| match &link.origin {
            Origin::Seen(seen, _) => {
                link.content == content && host.is_none_or(|host| host == seen)
            }
            Origin::Dialled(_) => false,
        };
        let useless = self.links.iter().filter(|(_, link)| {
            may_go(link) && now.saturating_duration_since(link.moved_at) >= patience
        });
        useless.min_by_key(|(_, link)| link.moved_at).map(|(link, _)| *link)
    }

    /// Notes which links are useful, and closes useless ones of neighbours that dialled us.
    pub(super) fn look_after_links(&mut self) {
        let now = Instant::now();
        let mut idle = Vec::new();
        for (key, link) in &mut self.links {
            let moved = self.swarm.moved(*key).unwrap_or_default();
            if moved != link.moved {
                (link.moved, link.moved_at) = (moved, now);
            } else if matches!(link.origin, Origin::Seen(..))
                && now.saturating_duration_since(link.moved_at) >= IDLE
            {
                idle.push(*key);
            }
        }
        for link in idle {
            debug!("a link on which nothing moves is closed");
            self.close(link);
        }
    }

    /// Ends a link.
    pub(super) fn close(&mut self, link: LinkKey) {
        let Some(entry) = self.links.get(&link) else { return };
        self.peer_list.link_down(Instant::now(), entry.content, entry.peer);
        self.forget(link);
    }

    /// Ends a link that the peer list has removed already, with everything that depends on it.
    fn forget(&mut self, link: LinkKey) {
        let Some(entry) = self.links.remove(&link) else { return };
        self.directory.remove_link(&entry.our_token);
        self.fetches.retain(|_, fetch| fetch.link != link);
        self.data_plane.uploads.end_link(link);
        self.advance(Input::LinkDown { link });
    }
}

/// Where a neighbour was observed, without a port to dial.
fn observed_at(origin: &Origin) -> Address {
    let ip = match origin {
        Origin::Seen(ip, _) => *ip,
        // A peer that we dialled has an address.
        Origin::Dialled(_) => IpAddr::from([0, 0, 0, 0]),
    };
    Address::from(SocketAddr::new(ip, 0))
}
