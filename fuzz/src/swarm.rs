//! A shell around a swarm's state machine, like a peer.
//!
//! It draws keys from a few values, so that most events concern something that exists.

use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use shoal_common::fuzzing::Receiver;
use shoal_core::{
    PeerId,
    content::{Bitfield, BlockRange, Layout, PieceIndex, PieceLength},
    swarm::{
        Attempt, Capabilities, ContentKey, FetchEnd, FetchKey, Input, LinkKey, Output, PeerMessage,
        PieceState, Priority, ServeKey, Settings, Swarm,
    },
};
use shoal_peer::fuzzing::{Said, said, say};
use uuid::Uuid;

use crate::receive;

const PIECE: u64 = 64 * 1024;
const EXCHANGE: &str = "/shoal.peer.v1.PeerService/Exchange";

/// An event, and the time before it.
#[derive(Arbitrary, Debug)]
pub struct Step {
    /// Time that passes before it.
    pub milliseconds: u16,
    content: bool,
    link: u8,
    piece: u8,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Add {
        /// Pieces of the manifest, modulo 3, besides the last.
        manifest: u8,
        /// Pieces of the blobs.
        pieces: u8,
        /// The manifest is known from the beginning.
        known: bool,
        held: u8,
        sequential: bool,
        super_seeding: bool,
    },
    LayoutKnown,
    Prioritise {
        priority: u8,
    },
    Remove,
    LinkUp {
        serves: bool,
        reciprocates: bool,
    },
    LinkDown,
    Bitfield(u8),
    Have(Vec<u8>),
    Suggest(Vec<u8>),
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    /// Any message on a link, valid or not.
    Bytes(Vec<u8>),
    RoundTrip,
    Arrived {
        fetch: u8,
        units: u8,
    },
    FetchEnded {
        fetch: u8,
        end: u8,
    },
    Stored,
    Corrupt,
    Lying,
    Serve {
        stranger: bool,
        ranges: u8,
    },
    Sent {
        serve: u8,
        bytes: u16,
    },
    Dropped {
        serve: u8,
    },
    Tick,
}

/// The shell; it sends no events about pieces that a content does not have, nor stores or serves
/// those whose places are not known yet.
pub struct Shell {
    /// The state machine.
    pub swarm: Swarm,
    /// As far as the state machine knows them.
    layouts: [Option<Layout>; 2],
    /// With the manifest.
    whole_layouts: [Option<Layout>; 2],
    removed: [bool; 2],
    /// The fetches in progress: their contents and the ranges still to come.
    fetches: Vec<(FetchKey, ContentKey, Vec<BlockRange>)>,
    links: Vec<(LinkKey, ContentKey)>,
    keys: u64,
}

impl Default for Shell {
    fn default() -> Self {
        Self {
            swarm: Swarm::new(Settings::default(), 1),
            layouts: [None, None],
            whole_layouts: [None, None],
            removed: [false; 2],
            fetches: Vec::new(),
            links: Vec::new(),
            keys: 0,
        }
    }
}

impl Shell {
    /// Passes an input to the state machine, and carries out its outputs.
    pub fn handle(&mut self, now: Instant, input: Input) {
        let known = match &input {
            Input::LayoutKnown { content, .. } => Some(*content),
            _ => None,
        };
        let mut outputs = Vec::new();
        self.swarm.handle(now, input, &mut outputs);
        self.take(outputs);
        for link in known.into_iter().flat_map(|content| self.swarm.links(content)) {
            let status = self.swarm.link_status(link, now).expect("a link of the content");
            assert!(
                status.outstanding > 0 || status.idle.is_some(),
                "a neighbour is not asked for the pieces that became known"
            );
        }
    }

    /// The input of a step; none if it does not apply.
    pub fn input(&mut self, step: &Step) -> Option<Input> {
        let number = usize::from(step.content);
        let content = ContentKey(number as u32);
        if let What::Add { manifest, pieces, known, held, sequential, super_seeding } = step.what {
            // A key is never used again.
            if self.layouts[number].is_some() || self.removed[number] {
                return None;
            }
            let (whole, partial) = layouts(manifest, pieces)?;
            let layout = if known { whole.clone() } else { partial };
            self.whole_layouts[number] = Some(whole);
            self.layouts[number] = Some(layout.clone());
            let held = bitfield(&layout, layout.known_pieces(), held);
            return Some(Input::AddContent { content, layout, held, sequential, super_seeding });
        }
        let layout = self.layouts[number].clone()?;
        let piece = PieceIndex::new(u32::from(step.piece) % layout.piece_count());
        let pieces = |indexes: &[u8]| {
            let indexes = indexes.iter().map(|index| u32::from(*index));
            let indexes = indexes.filter(|index| *index < layout.piece_count());
            indexes.map(PieceIndex::new).collect::<Vec<_>>()
        };
        let (link, of_link) = match self.links.len() {
            0 => (LinkKey(step.link.into()), content),
            links => self.links[usize::from(step.link) % links],
        };
        let message = match &step.what {
            What::Bitfield(bits) => {
                let layout = self.layouts[of_link.0 as usize].clone()?;
                PeerMessage::Bitfield(bitfield(&layout, layout.piece_count(), *bits))
            }
            What::Have(indexes) if of_link == content => PeerMessage::Have(pieces(indexes)),
            What::Suggest(indexes) if of_link == content => {
                // A peer sends no more than 64.
                PeerMessage::Suggest(pieces(&indexes[..indexes.len().min(64)]))
            }
            What::Choke => PeerMessage::Choke,
            What::Unchoke => PeerMessage::Unchoke,
            What::Interested => PeerMessage::Interested,
            What::NotInterested => PeerMessage::NotInterested,
            What::Bytes(bytes) => return self.said(bytes, of_link, link),
            other => return self.event(other, content, of_link, link, piece, &layout),
        };
        for bytes in say(message.clone()) {
            let said = self.said(&bytes, of_link, link)?;
            assert!(matches!(&said, Input::Message { message: said, .. } if *said == message));
        }
        Some(Input::Message { link, message })
    }

    /// The input for a message on a link. A message that violates the protocol ends the link.
    fn said(&mut self, bytes: &[u8], content: ContentKey, link: LinkKey) -> Option<Input> {
        let layout = self.layouts[content.0 as usize].clone()?;
        let parse = |message| Some(said(message, &layout));
        match receive(EXCHANGE, Receiver::Server, bytes, parse).flatten() {
            Some(Said::Message(message)) => Some(Input::Message { link, message }),
            Some(Said::Asked(ranges)) => {
                self.keys += 1;
                let serve = ServeKey(self.keys);
                Some(Input::ServeRequested { serve, content, link: Some(link), ranges })
            }
            Some(Said::Answered) => None,
            None => {
                self.links.retain(|(other, _)| *other != link);
                Some(Input::LinkDown { link })
            }
        }
    }

    fn event(
        &mut self,
        what: &What,
        content: ContentKey,
        of_link: ContentKey,
        link: LinkKey,
        piece: PieceIndex,
        layout: &Layout,
    ) -> Option<Input> {
        self.keys += 1;
        // The only pieces that can be stored.
        let placed = PieceIndex::new(piece.get() % layout.known_pieces());
        Some(match *what {
            What::LayoutKnown => {
                let layout = self.whole_layouts[content.0 as usize].clone()?;
                self.layouts[content.0 as usize] = Some(layout.clone());
                Input::LayoutKnown { content, layout }
            }
            What::Prioritise { priority } => {
                let priority = match priority % 4 {
                    0 => Priority::Skip,
                    1 => Priority::Low,
                    2 => Priority::Normal,
                    _ => Priority::High,
                };
                Input::Prioritise { content, pieces: vec![piece], priority }
            }
            What::Remove => {
                self.layouts[content.0 as usize] = None;
                self.removed[content.0 as usize] = true;
                self.links.retain(|(_, of)| *of != content);
                self.fetches.retain(|(_, of, _)| *of != content);
                Input::RemoveContent { content }
            }
            What::LinkUp { serves, reciprocates } => {
                let link = LinkKey(self.keys);
                self.links.push((link, content));
                Input::LinkUp {
                    link,
                    content,
                    peer: PeerId::new(Uuid::from_u128(self.keys.into())),
                    capabilities: Capabilities { reciprocates, serves },
                    round_trip: Duration::from_millis(1),
                }
            }
            What::LinkDown => {
                self.links.retain(|(other, _)| *other != link);
                Input::LinkDown { link }
            }
            What::RoundTrip => Input::RoundTrip { link, round_trip: Duration::from_millis(3) },
            What::Arrived { fetch, units } => self.arrived(fetch, units)?,
            What::FetchEnded { fetch, end } => {
                let end = match end % 3 {
                    0 => FetchEnd::Done,
                    1 => FetchEnd::Refused { retry_after: Duration::from_millis(end.into()) },
                    _ => FetchEnd::Failed,
                };
                let fetch = self.fetch(fetch)?;
                let (fetch, ..) = self.fetches.remove(fetch);
                Input::FetchEnded { fetch, end }
            }
            What::Stored => Input::PieceStored { content, piece: placed },
            What::Corrupt => self.corrupt(content, placed, link),
            What::Lying => Input::CaughtLying { link },
            What::Serve { stranger, ranges } => Input::ServeRequested {
                serve: ServeKey(self.keys),
                content,
                link: (!stranger && of_link == content).then_some(link),
                ranges: vec![layout.whole(placed); ranges.into()],
            },
            What::Sent { serve, bytes } => {
                Input::BlockSent { serve: ServeKey(serve.into()), bytes: bytes.into() }
            }
            What::Dropped { serve } => Input::ServeDropped { serve: ServeKey(serve.into()) },
            _ => Input::Tick,
        })
    }

    /// The present attempt fails, or an old one; with bytes of one neighbour or of several.
    fn corrupt(&self, content: ContentKey, piece: PieceIndex, link: LinkKey) -> Input {
        let attempt = match self.swarm.piece_state(content, piece) {
            Some(PieceState::Asked(at) | PieceState::Orphaned(at) | PieceState::Whole(at)) => at,
            _ => Attempt(0),
        };
        let all = self.links.iter().filter(|(_, of)| *of == content).map(|(link, _)| *link);
        let contributors = if piece.get() % 2 == 0 { vec![link] } else { all.collect() };
        Input::PieceCorrupt { content, piece, attempt, contributors }
    }

    fn fetch(&self, number: u8) -> Option<usize> {
        (!self.fetches.is_empty()).then(|| usize::from(number) % self.fetches.len())
    }

    /// The next block of a fetch, as the data plane reports it: in order, and in whole units.
    fn arrived(&mut self, number: u8, units: u8) -> Option<Input> {
        let number = self.fetch(number)?;
        let (fetch, content, ranges) = &mut self.fetches[number];
        let range = ranges.first_mut()?;
        let length = (u32::from(units % 4) + 1) * 16 * 1024;
        let block = BlockRange { length: length.min(range.length), ..*range };
        range.offset += block.length;
        range.length -= block.length;
        if range.length == 0 {
            ranges.remove(0);
        }
        Some(Input::BlockArrived { content: *content, fetch: *fetch, block })
    }

    fn content_of(&self, link: LinkKey) -> Option<ContentKey> {
        self.links.iter().find(|(other, _)| *other == link).map(|(_, content)| *content)
    }

    /// Only what is lacked is requested, and only from known places.
    fn assert_lacked(&self, content: ContentKey, ranges: &[BlockRange]) {
        let layout = self.layouts[content.0 as usize].as_ref().expect("a content");
        let held = self.swarm.held(content).expect("a content");
        for range in ranges {
            let known = layout.range(range.piece.get(), range.offset, range.length);
            assert_eq!(known.as_ref(), Ok(range), "the place of a piece is not known");
            assert!(!held.has(range.piece), "a held piece is requested");
        }
    }

    /// Only what is held is announced. A link that is closed may still be sent something.
    fn assert_held(&self, link: LinkKey, message: &PeerMessage) {
        let content = self.content_of(link);
        let Some(held) = content.and_then(|content| self.swarm.held(content)) else { return };
        let announced = match message {
            PeerMessage::Bitfield(field) => field.iter().collect(),
            PeerMessage::Have(pieces) | PeerMessage::Suggest(pieces) => pieces.clone(),
            _ => Vec::new(),
        };
        assert!(announced.iter().all(|piece| held.has(*piece)), "a piece is announced, not held");
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Fetch { fetch, link, ranges, .. } => {
                    let content = self.content_of(link).expect("a fetch is from a neighbour");
                    let ranges: Vec<_> = ranges.into_iter().map(|of| of.range).collect();
                    self.assert_lacked(content, &ranges);
                    self.fetches.push((fetch, content, ranges));
                }
                Output::Send { link, message } => self.assert_held(link, &message),
                Output::Completed { content } => {
                    let status = self.swarm.content_status(content).expect("a content");
                    assert_eq!(status.missing, 0, "it is not complete");
                }
                Output::CancelFetch { fetch } => {
                    self.fetches.retain(|(other, ..)| *other != fetch);
                }
                Output::Ban { link, .. } | Output::Close { link } => {
                    self.links.retain(|(other, _)| *other != link);
                }
                _ => {}
            }
        }
    }
}

/// The layout of a content, and that without its manifest.
fn layouts(manifest: u8, pieces: u8) -> Option<(Layout, Layout)> {
    let manifest_bytes = u64::from(manifest % 3) * u64::from(Layout::MANIFEST_PIECE.get()) + 1;
    let piece_length = PieceLength::new(PIECE).ok()?;
    // The last piece of a blob is short.
    let blob = (pieces > 0).then(|| u64::from(pieces) * PIECE - 1);
    let whole = Layout::new(manifest_bytes, piece_length, blob).ok()?;
    let partial = Layout::of_manifest(manifest_bytes, piece_length, pieces.into()).ok()?;
    assert_eq!(whole.piece_count(), partial.piece_count());
    Some((whole, partial))
}

/// Those of the first `pieces` pieces whose index modulo 8 is set in `bits`.
fn bitfield(layout: &Layout, pieces: u32, bits: u8) -> Bitfield {
    let mut field = Bitfield::empty(layout.piece_count());
    for piece in (0..pieces).filter(|piece| bits >> (piece % 8) & 1 == 1) {
        field.insert(PieceIndex::new(piece));
    }
    field
}
