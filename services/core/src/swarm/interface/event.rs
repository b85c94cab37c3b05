//! The inputs and outputs of the swarm state machine.

use std::time::Duration;

use crate::{
    PeerId,
    content::{Bitfield, BlockRange, Layout, PieceIndex},
};

/// A content of this process, while it is in the state machine. Chosen by the shell, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(pub u32);

/// A link to one neighbour for one content. Chosen by the shell, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(pub u64);

/// One of our calls for blocks. Chosen by the state machine, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchKey(pub u64);

/// One call for our blocks. Chosen by the shell, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServeKey(pub u64);

/// One attempt at a piece: from its beginning until the piece is held, fails its hash, or the
/// attempt is given up. Chosen by the state machine, never reused in a process; a later one is
/// greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// A range to fetch. Its bytes belong to one attempt at the piece, and are never mixed with those
/// of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRange {
    /// The attempt at the range's piece.
    pub attempt: Attempt,
    /// The range.
    pub range: BlockRange,
}

/// The priority of a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Not fetched.
    Skip,
    /// After all others.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// The abilities of a neighbour. An HTTP origin would neither reciprocate nor choke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// May want pieces from us.
    pub reciprocates: bool,
    /// Can be asked for pieces.
    pub serves: bool,
}

/// A message from one end of a link to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// The pieces that the sender holds; first and once on a link.
    Bitfield(Bitfield),
    /// Pieces that the sender has just obtained.
    Have(Vec<PieceIndex>),
    /// The sender stops serving the receiver; it completes what it is sending.
    Choke,
    /// The sender serves the receiver.
    Unchoke,
    /// The receiver holds something that the sender wants.
    Interested,
    /// The receiver holds nothing that the sender wants.
    NotInterested,
    /// Pieces that the sender prefers to be asked for.
    Suggest(Vec<PieceIndex>),
}

/// The outcome of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEnd {
    /// Every requested range has arrived.
    Done,
    /// The neighbour refused, at once or half-way; it is asked again after `retry_after`.
    Refused {
        /// As the neighbour says, or the shell's default.
        retry_after: Duration,
    },
    /// The connection failed, or the neighbour sent what was not requested.
    Failed,
}

/// Why a call for our blocks is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// The caller is choked.
    Choked,
    /// No slot is free for a stranger, or a neighbour has too many calls.
    Busy {
        /// When to retry.
        retry_after: Duration,
    },
    /// This peer does not hold the piece.
    NotHeld,
}

/// Why a neighbour is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanReason {
    /// Its bytes failed the hash.
    Corruption,
    /// It violated the protocol.
    Protocol,
}

/// An input of the state machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A content whose missing pieces are to be fetched, and whose other pieces are served.
    AddContent {
        /// Its key.
        content: ContentKey,
        /// Its pieces. Until [`Input::LayoutKnown`], only those are requested whose places are
        /// known.
        layout: Layout,
        /// The pieces that are held and verified.
        held: Bitfield,
        /// Fetch the pieces in order.
        sequential: bool,
        /// While complete, show each neighbour few pieces at a time, so that each is uploaded once.
        super_seeding: bool,
    },
    /// The new priority of some pieces.
    Prioritise {
        /// Their content.
        content: ContentKey,
        /// The pieces.
        pieces: Vec<PieceIndex>,
        /// The priority.
        priority: Priority,
    },
    /// Stop fetching and serving a content; its links were closed, or this closes them.
    RemoveContent {
        /// The content.
        content: ContentKey,
    },
    /// The places of all pieces of a content are known, because its manifest is.
    LayoutKnown {
        /// The content.
        content: ContentKey,
        /// As many pieces as in the layout before.
        layout: Layout,
    },
    /// A link is up: both hellos were exchanged.
    LinkUp {
        /// Its key.
        link: LinkKey,
        /// Its content.
        content: ContentKey,
        /// The peer at the other end.
        peer: PeerId,
        /// The neighbour's abilities.
        capabilities: Capabilities,
        /// The round trip measured when it was dialled.
        round_trip: Duration,
    },
    /// A link has ended, with its fetches and uploads.
    LinkDown {
        /// The link.
        link: LinkKey,
    },
    /// A message of a neighbour.
    Message {
        /// The link.
        link: LinkKey,
        /// The message.
        message: PeerMessage,
    },
    /// A call was answered; its blocks may come later.
    RoundTrip {
        /// The link.
        link: LinkKey,
        /// The time since it was made.
        round_trip: Duration,
    },
    /// Bytes of a fetch arrived: part of the requested ranges, in their order.
    BlockArrived {
        /// The content.
        content: ContentKey,
        /// The fetch.
        fetch: FetchKey,
        /// The range.
        block: BlockRange,
    },
    /// A fetch ended. This is reported exactly once for each [`Output::Fetch`], in any case: also
    /// after [`Output::CancelFetch`], and when its link has ended, which is ignored.
    FetchEnded {
        /// The fetch.
        fetch: FetchKey,
        /// The outcome.
        end: FetchEnd,
    },
    /// All bytes of a piece have arrived, match its hash, and are stored.
    PieceStored {
        /// The content.
        content: ContentKey,
        /// The piece.
        piece: PieceIndex,
    },
    /// All bytes of an attempt at a piece have arrived, did not match its hash, and were discarded.
    PieceCorrupt {
        /// The content.
        content: ContentKey,
        /// The piece.
        piece: PieceIndex,
        /// The attempt that failed; it may have been given up in the meantime.
        attempt: Attempt,
        /// The neighbours whose bytes were hashed, each once. A single one has lied.
        contributors: Vec<LinkKey>,
    },
    /// Blocks of this neighbour were found to differ from those of the verified piece.
    CaughtLying {
        /// The link.
        link: LinkKey,
    },
    /// A call for blocks that this peer may hold.
    ServeRequested {
        /// A key for the call.
        serve: ServeKey,
        /// The content.
        content: ContentKey,
        /// The caller; none is a stranger.
        link: Option<LinkKey>,
        /// The ranges, in the order to be sent. They are within the layout; the state machine
        /// checks whether they are held.
        ranges: Vec<BlockRange>,
    },
    /// The transport accepted bytes of a granted range.
    BlockSent {
        /// The call.
        serve: ServeKey,
        /// Bytes.
        bytes: u32,
    },
    /// The caller dropped the call, or the connection broke. Not reported after the last byte was
    /// sent.
    ServeDropped {
        /// The call.
        serve: ServeKey,
    },
    /// A deadline of [`Swarm::next_deadline`](crate::swarm::Swarm::next_deadline) may have passed.
    Tick,
}

/// An output: an action for the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message to a neighbour.
    Send {
        /// The link.
        link: LinkKey,
        /// The message.
        message: PeerMessage,
    },
    /// Ask a neighbour for blocks, and store them as they arrive.
    Fetch {
        /// A key for the call.
        fetch: FetchKey,
        /// The neighbour.
        link: LinkKey,
        /// The ranges, in this order.
        ranges: Vec<FetchRange>,
        /// Bytes of a block: small on slow links, so that a cancel takes effect soon.
        block_length: u32,
    },
    /// Cancel a call.
    CancelFetch {
        /// The call.
        fetch: FetchKey,
    },
    /// Discard the bytes of an attempt, and of earlier ones, unless the piece is whole.
    Abandon {
        /// The content.
        content: ContentKey,
        /// The piece.
        piece: PieceIndex,
        /// The attempt.
        attempt: Attempt,
    },
    /// Send the next `ranges` ranges of a call.
    Grant {
        /// The call.
        serve: ServeKey,
        /// The number of further ranges.
        ranges: usize,
    },
    /// End a call after the granted ranges.
    Refuse {
        /// The call.
        serve: ServeKey,
        /// The reason.
        reason: RefuseReason,
    },
    /// Close the links of a peer, and neither dial nor accept it while the ban lasts. The state
    /// machine has already forgotten the link, with its fetches and uploads.
    Ban {
        /// The link on which it misbehaved. The shell answers with `LinkDown`.
        link: LinkKey,
        /// The reason.
        reason: BanReason,
    },
    /// Close a link that is useful to neither side: both hold everything, or a neighbour is of no
    /// use. The state machine has already forgotten it, with its fetches and uploads.
    Close {
        /// The link. The shell answers with `LinkDown`.
        link: LinkKey,
    },
    /// Every wanted piece is held. Reported once: when the last was stored, or when the content was
    /// added if none was missing; and again if more became wanted in the meantime.
    Completed {
        /// The content.
        content: ContentKey,
    },
    /// Find more neighbours: there are too few, or none of them has a wanted piece.
    Starving {
        /// The content.
        content: ContentKey,
    },
}
