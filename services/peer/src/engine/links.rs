//! Links: dialled, accepted, used, closed.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use shoal_common::Address;
use shoal_core::{
    PeerId,
    roster::{Admission, Arrival, Origin, Refusal},
    swarm::{BanReason, Capabilities, ContentKey, Input, LinkKey, PeerMessage},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument as _, debug};

use super::{Engine, inlink::OnLink};
use crate::{
    bulk::Source,
    event::Event,
    link::{Admitted, AdmittedLink, Dial, Handshake, LinkError, Voice},
    wire::{self, LinkToken, WireError},
};

/// A neighbour that dialled us and moved no block for this long, in either direction, makes room
/// for a newcomer: longer than a seeder's round takes on a slow uplink.
const USELESS_AFTER: Duration = Duration::from_secs(30);

/// The same for a newcomer of its own host, which has a share of the places.
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
    pub(super) voice: Voice,
    pub(super) requests: OnLink,
    /// In our calls to it.
    pub(super) their_token: LinkToken,
    /// Where blocks are fetched from.
    pub(super) source: Source,
    _closer: DropGuard,
}

impl Engine {
    /// Dials the peers that the roster names.
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
                    // The engine has ended.
                    let _ = events.send(Event::DialFailed { content, peer, error }).await;
                }
            };
            self.jobs.spawn("dial", dialling.instrument(entry.span.clone()));
        }
    }

    pub(super) fn dial_failed(&mut self, content: ContentKey, peer: PeerId, error: &LinkError) {
        debug!(peer_id = %peer, %error, "no link");
        let answers = match error {
            LinkError::OtherPeer(peer) => Some(*peer),
            _ => None,
        };
        self.roster.dial_failed(Instant::now(), content, peer, answers, &mut self.rng);
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
            address: handshake.address.as_ref().map(ToString::to_string),
            complete: handshake.complete,
            origin: origin.clone(),
        };
        let mut admission = self.roster.admit(now, content, arrival.clone());
        if let Admission::Refuse(refusal) = admission
            && let Some(useless) = self.useless_link(now, content, &origin, refusal)
        {
            self.close(useless);
            admission = self.roster.admit(now, content, arrival);
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
        let address = handshake.address.unwrap_or_else(|| place_of(&origin));
        self.links.insert(
            link,
            Link {
                content,
                peer,
                source: self.bulk.downloads.source(&self.bulk.lanes, &address),
                address,
                origin: origin.clone(),
                moved: 0,
                moved_at: now,
                our_token: handshake.our_token,
                their_token: handshake.their_token,
                voice: handshake.voice,
                requests: OnLink::default(),
                _closer: closed.clone().drop_guard(),
            },
        );
        if let Origin::Seen(host, _) = origin {
            self.probe(link, host);
        }
        self.brain(Input::LinkUp {
            link,
            content,
            peer,
            capabilities: Capabilities { reciprocates: true, serves: !handshake.serves_nothing },
            round_trip: handshake.round_trip,
        });
        Ok(AdmittedLink::new(link, closed, self.events.clone()))
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

    /// Bans the other end of a link, as far as its identity is proven.
    pub(super) fn ban(&mut self, link: LinkKey, reason: BanReason) {
        let Some(entry) = self.links.get(&link) else { return };
        let (peer, address) = (entry.peer, &entry.address);
        debug!(peer_id = %peer, addr = %address, ?reason, "banned");
        let mut proven = vec![entry.origin.clone()];
        if reason == BanReason::Corruption && !entry.requests.only_way {
            // Its blocks came from there.
            proven.push(Origin::Dialled(address.to_string()));
        }
        metrics::counter!("shoal_peer_bans_total").increment(1);
        let all = self.links.iter().filter(|(_, link)| proven.contains(&link.origin));
        let all: Vec<_> = all.map(|(link, _)| *link).collect();
        for origin in proven {
            self.roster.ban(Instant::now(), origin);
        }
        for link in all {
            self.close(link);
        }
    }

    /// The least useful link, if it was of no use for a while: it makes room for one from `origin`
    /// that is refused. Links that we dialled stay.
    fn useless_link(
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
        self.roster.link_down(Instant::now(), entry.content, entry.peer);
        self.forget(link);
    }

    /// Ends a link that the roster has removed already, with everything that depends on it.
    pub(super) fn forget(&mut self, link: LinkKey) {
        let Some(entry) = self.links.remove(&link) else { return };
        self.directory.remove_link(&entry.our_token);
        self.fetches.retain(|_, fetch| fetch.link != link);
        self.bulk.uploads.end_link(link);
        self.brain(Input::LinkDown { link });
    }
}

/// Where a neighbour was observed, without a port to dial.
fn place_of(origin: &Origin) -> Address {
    let (Origin::Seen(ip, _), port) = (origin, 0) else {
        // A peer that we dialled has an address.
        return Address::from(SocketAddr::from(([0, 0, 0, 0], 0)));
    };
    Address::from(SocketAddr::new(*ip, port))
}

/// Whether an address leads to a host by its IP address.
pub(super) fn leads_to(address: &Address, host: IpAddr) -> bool {
    let ip = address.ip().map(|ip| ip.to_canonical());
    ip.is_some_and(|ip| ip == host || ip.is_loopback() && host.is_loopback())
}
