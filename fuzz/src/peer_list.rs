//! A shell around a peer list, like the engine: it tracks dials and links.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use prost::Message as _;
use rand::{SeedableRng as _, rngs::StdRng};
use shoal_common::fuzzing::Receiver;
use shoal_core::{
    Address, PeerId,
    content::ContentId,
    peer_list::{Admission, Arrival, Candidate, Origin, PeerList, PeerListSettings},
    swarm::ContentKey,
};
use shoal_peer::fuzzing::hello;
use shoal_proto::{peer::v1 as pb, types::v1::PeerInfo};
use uuid::Uuid;

use crate::receive;

/// The number of contents.
pub const CONTENTS: u8 = 2;

/// The number of the peer under test.
const ME: u8 = 5;

/// The peer of a number.
pub fn peer(number: u8) -> PeerId {
    PeerId::new(Uuid::from_u128(u128::from(number % 8)))
}

/// The Hello of a peer that dials us.
pub struct Hello {
    /// The content.
    pub content: ContentKey,
    /// Its claimed id.
    pub peer: PeerId,
    /// Where it can be dialled.
    pub address: Address,
    /// It claims to hold every piece.
    pub complete: bool,
}

impl Hello {
    /// As the first message on a link.
    pub fn message(self) -> Vec<u8> {
        let (peer_id, address) = (self.peer.to_string(), self.address.to_string());
        let complete = self.complete;
        let hello = pb::Hello {
            min_version: 1,
            max_version: 1,
            content_id: ContentId::from_bytes([self.content.0 as u8; 32]).to_string(),
            peer: Some(PeerInfo { peer_id, address, complete, location: None }),
            link_token: vec![0; 16].into(),
            serves_nothing: false,
        };
        let kind = Some(pb::link_message::Kind::Hello(hello));
        pb::ExchangeRequest { message: Some(pb::LinkMessage { kind }) }.encode_to_vec()
    }
}

/// The peer list, with the dials and links that exist.
pub struct Shell {
    settings: PeerListSettings,
    /// The peer list.
    pub peer_list: PeerList,
    /// Seeded with a constant.
    pub rng: StdRng,
    dials: Vec<(ContentKey, Candidate)>,
    links: BTreeMap<(ContentKey, PeerId), Origin>,
}

impl Shell {
    /// A shell without dials or links.
    pub fn new(settings: PeerListSettings) -> Self {
        let peer_list = PeerList::new(settings.clone(), peer(ME));
        let rng = StdRng::seed_from_u64(1);
        Self { settings, peer_list, rng, dials: Vec::new(), links: BTreeMap::new() }
    }

    /// Removes a content with its dials and links.
    pub fn remove(&mut self, content: ContentKey) {
        self.peer_list.remove_content(content);
        self.dials.retain(|(of, _)| *of != content);
        self.links.retain(|(of, _), _| *of != content);
    }

    /// Begins dials. None may be to this peer, or to one that is linked, banned or being dialled.
    pub fn dial(&mut self, now: Instant) {
        for (content, candidate) in self.peer_list.dials(now, &mut self.rng) {
            let origin = Origin::Dialled(candidate.address.clone());
            assert!(candidate.peer != peer(ME) && !self.peer_list.is_banned(now, &origin));
            assert!(!self.links.contains_key(&(content, candidate.peer)), "it has a link");
            assert!(self.dials.iter().all(|(_, other)| other.address != candidate.address));
            self.dials.push((content, candidate));
        }
        assert!(
            self.peer_list.next_deadline().is_none_or(|at| at > now),
            "a due dial was not made"
        );
    }

    /// Ends a dial.
    pub fn end_dial(&mut self, number: u8) -> Option<(ContentKey, Candidate)> {
        let index = usize::from(number).checked_rem(self.dials.len())?;
        Some(self.dials.swap_remove(index))
    }

    /// Ends a link.
    pub fn end_link(&mut self, number: u8) -> Option<((ContentKey, PeerId), Origin)> {
        let index = usize::from(number).checked_rem(self.links.len())?;
        let key = *self.links.keys().nth(index)?;
        self.links.remove_entry(&key)
    }

    /// A peer with this source address sends its first message.
    pub fn greet(&mut self, now: Instant, bytes: &[u8], observed: IpAddr) {
        let parse = |message| hello(message, observed);
        let greeted =
            receive("/shoal.peer.v1.PeerService/Exchange", Receiver::Server, bytes, parse);
        let Some((id, arrival)) = greeted else { return };
        let content = ContentKey(id.as_bytes()[0].into());
        // Our dial to a peer is dropped when its own link is kept.
        let peer = arrival.peer;
        if self.admit(now, content, arrival) == Admission::Keep {
            self.dials.retain(|(of, dialled)| (*of, dialled.peer) != (content, peer));
        }
    }

    /// A link comes up.
    pub fn admit(&mut self, now: Instant, content: ContentKey, arrival: Arrival) -> Admission {
        let (key, origin) = ((content, arrival.peer), arrival.origin.clone());
        let admission = self.peer_list.admit(now, content, arrival);
        let exists = self.links.contains_key(&key);
        match admission {
            Admission::Keep => assert!(!exists, "there are two links"),
            Admission::Replace => assert!(exists, "nothing is replaced"),
            Admission::Refuse(_) => return admission,
        }
        assert!(key.1 != peer(ME) && !self.peer_list.is_banned(now, &origin));
        self.links.insert(key, origin);
        admission
    }

    /// The peer list counts the links that exist, and they are within its limits.
    pub fn check(&self) {
        let mut all = 0;
        for content in (0..CONTENTS).map(|number| ContentKey(number.into())) {
            let links = self.links.keys().filter(|(of, _)| *of == content).count();
            assert_eq!(self.peer_list.neighbours(content), links);
            assert!(links <= self.settings.max_neighbours);
            all += links;
        }
        assert!(all <= self.settings.max_links);
    }
}
