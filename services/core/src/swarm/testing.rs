//! What the tests of the swarm share: a state machine with a clock of its own.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{
    Attempt, Capabilities, ContentKey, FetchKey, Input, LinkKey, Output, PeerMessage, PieceState,
    RefuseReason, ServeKey, Settings, Swarm,
};
use crate::{
    PeerId,
    content::{Bitfield, BlockRange, Layout, PieceIndex, PieceLength},
};

/// Some instant; tests only add to it.
#[expect(clippy::disallowed_methods, reason = "an Instant can be made in no other way")]
pub(super) fn epoch() -> Instant {
    Instant::now()
}

/// Bytes of a piece in these tests.
pub(super) const PIECE: u32 = 64 * 1024;

/// The content of most tests.
pub(super) const CONTENT: ContentKey = ContentKey(0);

/// A state machine and its clock.
pub(super) struct Bench {
    pub(super) swarm: Swarm,
    pub(super) now: Instant,
    keys: u64,
}

/// A request to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) fetch: FetchKey,
    pub(super) link: LinkKey,
    pub(super) ranges: Vec<BlockRange>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Settings::default(), 1)
    }

    pub(super) fn with(settings: Settings, rng_seed: u64) -> Self {
        Self { swarm: Swarm::new(settings, rng_seed), now: epoch(), keys: 0 }
    }

    /// Adds [`CONTENT`] with `pieces` pieces, of which some are held.
    pub(super) fn add(&mut self, pieces: u32, held: impl IntoIterator<Item = u32>) -> Vec<Output> {
        let input = add_content(CONTENT, pieces, held);
        self.tell(input)
    }

    pub(super) fn tell(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.swarm.handle(self.now, input, &mut outputs);
        outputs
    }

    /// Lets time pass, and sends a tick whenever one is due.
    pub(super) fn pass(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now + time;
        let mut outputs = Vec::new();
        while let Some(at) = self.swarm.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            outputs.extend(self.tell(Input::Tick));
        }
        self.now = end;
        outputs
    }

    /// A link for [`CONTENT`] without messages so far.
    pub(super) fn connect(&mut self) -> LinkKey {
        self.connect_for(CONTENT)
    }

    pub(super) fn connect_for(&mut self, content: ContentKey) -> LinkKey {
        self.keys += 1;
        let link = LinkKey(self.keys);
        self.tell(Input::LinkUp {
            link,
            content,
            peer: PeerId::new(Uuid::from_u128(u128::from(self.keys))),
            capabilities: Capabilities { reciprocates: true, serves: true },
            round_trip: Duration::from_millis(1),
        });
        link
    }

    /// A link to a neighbour that holds these pieces of [`CONTENT`].
    pub(super) fn neighbour(&mut self, has: impl IntoIterator<Item = u32>) -> LinkKey {
        let link = self.connect();
        let count = self.swarm.content_status(CONTENT).unwrap().pieces;
        self.say(link, PeerMessage::Bitfield(bitfield(count, has)));
        link
    }

    /// The neighbour says something.
    pub(super) fn say(&mut self, link: LinkKey, message: PeerMessage) -> Vec<Output> {
        self.tell(Input::Message { link, message })
    }

    pub(super) fn unchokes_us(&mut self, link: LinkKey) -> Vec<Asked> {
        asked(&self.say(link, PeerMessage::Unchoke))
    }

    /// All that a call requested arrives and is stored. Returns the outputs that follow.
    pub(super) fn deliver(&mut self, call: &Asked) -> Vec<Output> {
        let mut outputs = Vec::new();
        for range in &call.ranges {
            outputs.extend(self.arrive(call.fetch, *range));
            if range.offset == 0 && range.length == PIECE {
                outputs.extend(self.store(range.piece.get()));
            }
        }
        outputs
    }

    pub(super) fn arrive(&mut self, fetch: FetchKey, block: BlockRange) -> Vec<Output> {
        self.tell(Input::BlockArrived { content: CONTENT, fetch, block })
    }

    pub(super) fn store(&mut self, piece: u32) -> Vec<Output> {
        self.tell(Input::PieceStored { content: CONTENT, piece: PieceIndex::new(piece) })
    }

    /// The present attempt at a piece.
    pub(super) fn attempt(&self, piece: u32) -> Attempt {
        match self.swarm.piece_state(CONTENT, PieceIndex::new(piece)) {
            Some(
                PieceState::Asked(attempt)
                | PieceState::Orphaned(attempt)
                | PieceState::Whole(attempt),
            ) => attempt,
            other => panic!("no attempt is made at piece {piece}: {other:?}"),
        }
    }

    /// An attempt at a piece, with bytes of these neighbours, fails its hash.
    pub(super) fn corrupt(
        &mut self,
        piece: u32,
        attempt: Attempt,
        contributors: &[LinkKey],
    ) -> Vec<Output> {
        let (piece, contributors) = (PieceIndex::new(piece), contributors.to_vec());
        self.tell(Input::PieceCorrupt { content: CONTENT, piece, attempt, contributors })
    }

    /// A neighbour or a stranger requests whole pieces of [`CONTENT`].
    pub(super) fn request(
        &mut self,
        link: Option<LinkKey>,
        pieces: &[u32],
    ) -> (ServeKey, Vec<Output>) {
        self.keys += 1;
        let serve = ServeKey(self.keys);
        let ranges = pieces.iter().map(|piece| whole(*piece)).collect();
        let outputs = self.tell(Input::ServeRequested { serve, content: CONTENT, link, ranges });
        (serve, outputs)
    }

    /// The transport takes a whole piece of a call.
    pub(super) fn send(&mut self, serve: ServeKey) -> Vec<Output> {
        self.tell(Input::BlockSent { serve, bytes: PIECE })
    }

    /// A neighbour is served and receives nothing more, so the uplink stays busy.
    pub(super) fn keep_uplink_busy(&mut self) -> LinkKey {
        let link = self.neighbour([]);
        self.say(link, PeerMessage::Interested);
        let (_, outputs) = self.request(Some(link), &[0, 0]);
        assert!(matches!(outputs[..], [Output::Grant { .. }, ..]), "{outputs:?}");
        link
    }

    /// The neighbours that we serve.
    pub(super) fn unchoked(&self, links: &[LinkKey]) -> Vec<LinkKey> {
        let status = |link: &LinkKey| self.swarm.link_status(*link, self.now).unwrap();
        links.iter().copied().filter(|link| !status(link).choked).collect()
    }
}

pub(super) fn add_content(
    content: ContentKey,
    pieces: u32,
    held: impl IntoIterator<Item = u32>,
) -> Input {
    let size = u64::from(pieces) * u64::from(PIECE);
    Input::AddContent {
        content,
        layout: Layout::new(0, PieceLength::MIN, [size]).unwrap(),
        held: bitfield(pieces, held),
        sequential: false,
        super_seeding: false,
    }
}

/// Adds [`CONTENT`] with this layout and without any piece.
pub(super) fn add_layout(layout: Layout) -> Input {
    let held = Bitfield::empty(layout.piece_count());
    Input::AddContent { content: CONTENT, layout, held, sequential: false, super_seeding: false }
}

pub(super) fn bitfield(count: u32, pieces: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut field = Bitfield::empty(count);
    for piece in pieces {
        field.insert(PieceIndex::new(piece));
    }
    field
}

pub(super) fn whole(piece: u32) -> BlockRange {
    BlockRange { piece: PieceIndex::new(piece), offset: 0, length: PIECE }
}

pub(super) fn have(pieces: impl IntoIterator<Item = u32>) -> PeerMessage {
    PeerMessage::Have(pieces.into_iter().map(PieceIndex::new).collect())
}

pub(super) fn asked(outputs: &[Output]) -> Vec<Asked> {
    let calls = outputs.iter().filter_map(|output| match output {
        Output::Fetch { fetch, link, ranges, .. } => {
            let ranges = ranges.iter().map(|of| of.range).collect();
            Some(Asked { fetch: *fetch, link: *link, ranges })
        }
        _ => None,
    });
    calls.collect()
}

pub(super) fn pieces_asked(outputs: &[Output]) -> Vec<u32> {
    let calls = asked(outputs);
    calls.iter().flat_map(|call| &call.ranges).map(|range| range.piece.get()).collect()
}

pub(super) fn granted(outputs: &[Output]) -> Vec<ServeKey> {
    let grants = outputs.iter().filter_map(|output| match output {
        Output::Grant { serve, ranges } => Some(std::iter::repeat_n(*serve, *ranges)),
        _ => None,
    });
    grants.flatten().collect()
}

pub(super) fn refused(outputs: &[Output]) -> Option<RefuseReason> {
    outputs.iter().find_map(|output| match output {
        Output::Refuse { reason, .. } => Some(*reason),
        _ => None,
    })
}

/// The messages to a neighbour.
pub(super) fn said(outputs: &[Output], to: LinkKey) -> Vec<PeerMessage> {
    let said = outputs.iter().filter_map(|output| match output {
        Output::Send { link, message } if *link == to => Some(message.clone()),
        _ => None,
    });
    said.collect()
}
