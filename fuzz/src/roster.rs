//! The shell around a roster, as the engine is one: it knows which dials and links there are.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use prost::Message as _;
use rand::{SeedableRng as _, rngs::StdRng};
use shoal_common::fuzzing::Receiver;
use shoal_core::{
    PeerId,
    content::ContentId,
    roster::{Admission, Arrival, Candidate, Origin, Roster, RosterSettings},
    swarm::ContentKey,
};
use shoal_peer::fuzzing::hello;
use shoal_proto::{peer::v1 as pb, types::v1::PeerInfo};
use uuid::Uuid;

use crate::receive;

/// Contents that there are.
pub const CONTENTS: u8 = 2;

/// The number of the peer whose roster it is.
const ME: u8 = 5;

/// The peer of a number.
pub fn peer(number: u8) -> PeerId {
    PeerId::new(Uuid::from_u128(u128::from(number % 8)))
}

/// What a peer says that dials.
pub struct Hello {
    /// For which content.
    pub content: ContentKey,
    /// Who it is.
    pub peer: PeerId,
    /// Where it may be dialled.
    pub address: String,
    /// It holds everything.
    pub complete: bool,
}

impl Hello {
    /// As the first message on a link.
    pub fn message(self) -> Vec<u8> {
        let (peer_id, address, complete) = (self.peer.to_string(), self.address, self.complete);
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

/// What the shell knows.
pub struct Shell {
    settings: RosterSettings,
    /// The roster.
    pub roster: Roster,
    /// What decides what is random.
    pub rng: StdRng,
    dials: Vec<(ContentKey, Candidate)>,
    links: BTreeMap<(ContentKey, PeerId), Origin>,
}

impl Shell {
    /// A shell without dials or links.
    pub fn new(settings: RosterSettings) -> Self {
        let roster = Roster::new(settings.clone(), peer(ME));
        let rng = StdRng::seed_from_u64(1);
        Self { settings, roster, rng, dials: Vec::new(), links: BTreeMap::new() }
    }

    /// A content goes, with its dials and links.
    pub fn remove(&mut self, content: ContentKey) {
        self.roster.remove_content(content);
        self.dials.retain(|(of, _)| *of != content);
        self.links.retain(|(of, _), _| *of != content);
    }

    /// Nobody is dialled who is this peer, linked, banned or being dialled.
    pub fn dial(&mut self, now: Instant) {
        for (content, candidate) in self.roster.dials(now, &mut self.rng) {
            let origin = Origin::Dialled(candidate.address.clone());
            assert!(candidate.peer != peer(ME) && !self.roster.is_banned(now, &origin));
            assert!(!self.links.contains_key(&(content, candidate.peer)), "it has a link");
            assert!(self.dials.iter().all(|(_, other)| other.address != candidate.address));
            self.dials.push((content, candidate));
        }
        assert!(self.roster.next_deadline().is_none_or(|at| at > now), "a dial is left");
    }

    /// A dial is over.
    pub fn end_dial(&mut self, number: u8) -> Option<(ContentKey, Candidate)> {
        let index = usize::from(number).checked_rem(self.dials.len())?;
        Some(self.dials.swap_remove(index))
    }

    /// A link is over.
    pub fn end_link(&mut self, number: u8) -> Option<((ContentKey, PeerId), Origin)> {
        let index = usize::from(number).checked_rem(self.links.len())?;
        let key = *self.links.keys().nth(index)?;
        self.links.remove_entry(&key)
    }

    /// A peer seen under a number sends its first message.
    pub fn greet(&mut self, now: Instant, bytes: &[u8], observed: IpAddr) {
        let parse = |message| hello(message, observed);
        let greeted =
            receive("/shoal.peer.v1.PeerService/Exchange", Receiver::Server, bytes, parse);
        let Some((id, arrival)) = greeted else { return };
        let content = ContentKey(id.as_bytes()[0].into());
        // The dial of a peer whose own link is kept is forgotten.
        let peer = arrival.peer;
        if self.admit(now, content, arrival) == Admission::Keep {
            self.dials.retain(|(of, dialled)| (*of, dialled.peer) != (content, peer));
        }
    }

    /// A link came up.
    pub fn admit(&mut self, now: Instant, content: ContentKey, arrival: Arrival) -> Admission {
        let (key, origin) = ((content, arrival.peer), arrival.origin.clone());
        let admission = self.roster.admit(now, content, arrival);
        let is_there = self.links.contains_key(&key);
        match admission {
            Admission::Keep => assert!(!is_there, "there are two links"),
            Admission::Replace => assert!(is_there, "nothing is replaced"),
            Admission::Refuse(_) => return admission,
        }
        assert!(key.1 != peer(ME) && !self.roster.is_banned(now, &origin));
        self.links.insert(key, origin);
        admission
    }

    /// There are the links that the roster counts, and no more than may be.
    pub fn check(&self) {
        let mut all = 0;
        for content in (0..CONTENTS).map(|number| ContentKey(number.into())) {
            let links = self.links.keys().filter(|(of, _)| *of == content).count();
            assert_eq!(self.roster.neighbours(content), links);
            assert!(links <= self.settings.max_neighbours);
            all += links;
        }
        assert!(all <= self.settings.max_links);
    }
}
