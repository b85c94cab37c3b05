//! The state machine and the store together: which neighbour is banned for a corrupt piece.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_core::{
    PeerId,
    content::{Bitfield, BlockRange, PieceIndex},
    swarm::{
        BanReason, Capabilities, ContentKey, FetchEnd, FetchKey, FetchRange, Input, LinkKey,
        Output, PeerMessage, PieceState, Settings, Swarm,
    },
};
use shoal_peer::store::{Accepted, Store, Stored};

use crate::support::{Source, blob_piece};

const CONTENT: ContentKey = ContentKey(0);
const PIECE: PieceIndex = blob_piece(0);
const LENGTH: u32 = 64 << 10;
const BLOCK: u32 = 16 << 10;

/// A peer without a network, which fetches a file of one piece; it has the manifest.
struct Peer {
    swarm: Swarm,
    now: Instant,
    stored: Arc<Stored>,
    /// Its unanswered requests.
    calls: Vec<(FetchKey, LinkKey, Vec<FetchRange>)>,
    banned: Vec<LinkKey>,
    links: u64,
}

impl Peer {
    fn new(stored: Arc<Stored>) -> Self {
        let swarm = Swarm::new(Settings::default(), 1);
        let (calls, banned) = (Vec::new(), Vec::new());
        let mut peer = Self { swarm, now: Instant::now(), stored, calls, banned, links: 0 };
        peer.input(Input::AddContent {
            content: CONTENT,
            layout: peer.stored.layout().clone(),
            held: peer.stored.held(),
            sequential: false,
            super_seeding: false,
        });
        peer
    }

    /// Adds a neighbour that has the piece.
    fn neighbour(&mut self) -> LinkKey {
        self.links += 1;
        let link = LinkKey(self.links);
        self.input(Input::LinkUp {
            link,
            content: CONTENT,
            peer: PeerId::new(uuid::Uuid::from_u128(self.links.into())),
            capabilities: Capabilities { reciprocates: true, serves: true },
            round_trip: Duration::from_millis(1),
        });
        let all = PeerMessage::Bitfield(Bitfield::full(2));
        for message in [all, PeerMessage::Unchoke] {
            self.input(Input::Message { link, message });
        }
        link
    }

    fn input(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.swarm.handle(self.now, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Fetch { fetch, link, ranges, .. } => self.calls.push((fetch, link, ranges)),
                Output::Abandon { piece, attempt, .. } => self.stored.abandon(piece, attempt),
                Output::Ban { link, reason } => {
                    assert_eq!(reason, BanReason::Corruption);
                    self.banned.push(link);
                }
                _ => {}
            }
        }
    }

    /// Takes the request to a neighbour.
    fn call(&mut self, to: LinkKey) -> (FetchKey, Vec<FetchRange>) {
        let at = self.calls.iter().position(|(_, link, _)| *link == to).expect("it got a request");
        let (fetch, _, ranges) = self.calls.remove(at);
        (fetch, ranges)
    }

    /// A neighbour sends the first `blocks` blocks of its request.
    fn receive(&mut self, from: LinkKey, blocks: usize, byte: impl Fn(BlockRange) -> Vec<u8>) {
        let (fetch, ranges) = self.call(from);
        let all = ranges.iter().flat_map(|FetchRange { attempt, range }| {
            let offsets = (range.offset..range.end()).step_by(BLOCK as usize);
            offsets.map(|offset| (*attempt, BlockRange { offset, length: BLOCK, ..*range }))
        });
        let all: Vec<_> = all.collect();
        let is_all = blocks >= all.len();
        for (attempt, block) in all.into_iter().take(blocks) {
            let accepted = self.stored.accept(from, attempt, block, byte(block).into()).unwrap();
            self.input(Input::BlockArrived { content: CONTENT, fetch, block });
            match accepted {
                Accepted::Partial | Accepted::Duplicate | Accepted::Stale => {}
                Accepted::Stored { pieces, liars } => {
                    for link in liars {
                        self.input(Input::CaughtLying { link });
                    }
                    for piece in pieces {
                        self.input(Input::PieceStored { content: CONTENT, piece });
                    }
                }
                Accepted::Corrupt { contributors } => {
                    let (content, piece) = (CONTENT, block.piece);
                    self.input(Input::PieceCorrupt { content, piece, attempt, contributors });
                }
            }
        }
        if !is_all {
            self.input(Input::FetchEnded { fetch, end: FetchEnd::Failed });
        }
    }
}

fn garbage(block: BlockRange) -> Vec<u8> {
    vec![7; block.length as usize]
}

#[test]
fn an_honest_neighbour_is_not_banned_for_the_blocks_of_others() {
    let source = Source::file(LENGTH as usize, LENGTH.into());
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let mut peer = Peer::new(source.add_to(&store));
    let truth = |block| source.bytes(block).to_vec();

    // Two neighbours corrupt the piece.
    let (mallory, trudy) = (peer.neighbour(), peer.neighbour());
    peer.receive(mallory, 2, garbage);
    peer.receive(trudy, 4, garbage);
    assert_eq!(peer.banned, [], "neither sent the whole piece");
    // One of them sends another corrupt block, and leaves.
    peer.receive(trudy, 1, garbage);
    peer.input(Input::LinkDown { link: trudy });
    // An honest neighbour sends the whole piece.
    let alice = peer.neighbour();
    peer.receive(alice, 4, truth);

    assert_eq!(peer.banned, [mallory], "mallory was caught, trudy has left, alice is innocent");
    assert_eq!(peer.swarm.piece_state(CONTENT, PIECE), Some(PieceState::Held));
    assert!(peer.stored.has(PIECE));
    let totals = peer.swarm.totals(CONTENT);
    assert_eq!(totals.wasted, u64::from(LENGTH + BLOCK), "two attempts were discarded");
}

#[test]
fn a_block_in_flight_when_its_attempt_is_abandoned_is_not_used_by_the_next() {
    let source = Source::file(LENGTH as usize, LENGTH.into());
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let mut peer = Peer::new(source.add_to(&store));
    let whole = source.stored.layout().whole(PIECE);
    let late = BlockRange { length: BLOCK, ..whole };

    let mallory = peer.neighbour();
    let (fetch, ranges) = peer.call(mallory);
    let old = ranges[0].attempt;
    peer.input(Input::LinkDown { link: mallory });
    // An I/O thread was storing it just then.
    let accepted = peer.stored.accept(mallory, old, late, garbage(late).into()).unwrap();
    assert_eq!(accepted, Accepted::Partial);
    peer.input(Input::BlockArrived { content: CONTENT, fetch, block: late });
    let alice = peer.neighbour();
    peer.receive(alice, 4, |block| source.bytes(block).to_vec());
    assert_eq!(peer.banned, []);
    assert_eq!(peer.swarm.piece_state(CONTENT, PIECE), Some(PieceState::Held));
}
