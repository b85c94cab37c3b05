//! What the shell tells the brain, and what the brain has it do.

use std::time::Duration;

use crate::{
    PeerId,
    content::{Bitfield, BlockRange, Layout, PieceIndex},
};

/// A content of this process, as long as it is in the brain. Chosen by the shell, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(pub u32);

/// A link to one neighbour for one content. Chosen by the shell, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(pub u64);

/// One call of ours for blocks. Chosen by the brain, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchKey(pub u64);

/// One call for our blocks. Chosen by the shell, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServeKey(pub u64);

/// One attempt at a piece: from when it is begun until the piece is held, fails its hash, or the
/// attempt is given up. Chosen by the brain, never reused in a process; a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// A range to be fetched. Its bytes belong to one attempt at the piece, and are never mixed with
/// those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRange {
    /// Which attempt at the range's piece.
    pub attempt: Attempt,
    /// What.
    pub range: BlockRange,
}

/// How much a piece is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Not fetched.
    Skip,
    /// After all others.
    Low,
    /// As most are.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// What kind of neighbour it is. An HTTP origin would be one that neither reciprocates nor chokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// May want pieces from us.
    pub reciprocates: bool,
    /// Can be asked for pieces.
    pub serves: bool,
}

/// What one end of a link tells the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// The pieces it holds; first and once on a link.
    Bitfield(Bitfield),
    /// Pieces newly held.
    Have(Vec<PieceIndex>),
    /// It serves the other no more; what it is sending it completes.
    Choke,
    /// It serves the other.
    Unchoke,
    /// The other holds something it wants.
    Interested,
    /// The other holds nothing it wants.
    NotInterested,
    /// Pieces it would rather be asked for.
    Suggest(Vec<PieceIndex>),
}

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchEnd {
    /// Every range asked for has come.
    Done,
    /// The neighbour refused, at once or half-way; asked again after `retry_after`.
    Refused {
        /// The neighbour's word, or a default of the shell's.
        retry_after: Duration,
    },
    /// The connection failed, or the neighbour sent what was not asked for.
    Failed,
}

/// Why a call for our blocks is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// The caller is choked.
    Choked,
    /// No slot is free for a stranger, or a neighbour has too many calls.
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A piece we do not hold.
    NotHeld,
}

/// Why a neighbour is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanReason {
    /// Bytes of its failed their hash.
    Corruption,
    /// It broke the protocol.
    Protocol,
}

/// What the shell tells the brain.
#[derive(Clone, Debug)]
pub enum Input {
    /// A content to fetch what it lacks of, and to serve the rest.
    AddContent {
        /// Its key.
        content: ContentKey,
        /// Its pieces.
        layout: Layout,
        /// Those already held and verified.
        held: Bitfield,
        /// Fetch the pieces in their order.
        sequential: bool,
        /// While complete, tell each neighbour of few pieces at a time, so that each goes out once.
        super_seeding: bool,
    },
    /// How much some pieces are wanted from now on.
    Prioritise {
        /// Whose pieces.
        content: ContentKey,
        /// Which.
        pieces: Vec<PieceIndex>,
        /// How much.
        priority: Priority,
    },
    /// Stop fetching and serving a content; its links were closed, or will be by this.
    RemoveContent {
        /// Which.
        content: ContentKey,
    },
    /// A link is up: both hellos are through.
    LinkUp {
        /// Its key.
        link: LinkKey,
        /// The content it is for.
        content: ContentKey,
        /// Who is at the other end.
        peer: PeerId,
        /// What kind of neighbour.
        capabilities: Capabilities,
        /// Measured when it was dialled.
        round_trip: Duration,
    },
    /// A link is gone, and its fetches and serves with it.
    LinkDown {
        /// Which.
        link: LinkKey,
    },
    /// The neighbour said something.
    Message {
        /// On which link.
        link: LinkKey,
        /// What.
        message: PeerMessage,
    },
    /// A call was answered, whenever its blocks may come.
    RoundTrip {
        /// On which link.
        link: LinkKey,
        /// How long after it was made.
        round_trip: Duration,
    },
    /// Bytes of a fetch arrived: a range of one of those asked for, in their order.
    BlockArrived {
        /// Of which content.
        content: ContentKey,
        /// Of which fetch.
        fetch: FetchKey,
        /// What.
        block: BlockRange,
    },
    /// A fetch ended. Said exactly once for each [`Output::Fetch`], whatever becomes of it: also after
    /// [`Output::CancelFetch`], and when its link is gone, which the brain ignores.
    FetchEnded {
        /// Which.
        fetch: FetchKey,
        /// How.
        end: FetchEnd,
    },
    /// All bytes of a piece are there, match its hash, and are stored.
    PieceStored {
        /// Of which content.
        content: ContentKey,
        /// Which.
        piece: PieceIndex,
    },
    /// All bytes of an attempt at a piece were there, did not match its hash, and were thrown away.
    PieceCorrupt {
        /// Of which content.
        content: ContentKey,
        /// Which.
        piece: PieceIndex,
        /// The attempt that failed; the brain may have given it up meanwhile.
        attempt: Attempt,
        /// Whose bytes were hashed: each neighbour once. One alone has lied.
        contributors: Vec<LinkKey>,
    },
    /// Blocks of this neighbour turned out to differ from those of the verified piece.
    CaughtLying {
        /// Which.
        link: LinkKey,
    },
    /// Someone asks for blocks we may hold.
    ServeRequested {
        /// A key for the call.
        serve: ServeKey,
        /// Of which content.
        content: ContentKey,
        /// By whom; none is a stranger.
        link: Option<LinkKey>,
        /// What, in the order to be sent. Within the layout; whether it is held, the brain checks.
        ranges: Vec<BlockRange>,
    },
    /// Bytes of a granted range were handed to the transport, which had room for them.
    BlockSent {
        /// In which call.
        serve: ServeKey,
        /// Bytes.
        bytes: u32,
    },
    /// The caller dropped the call, or the connection broke. Not said once the last byte is sent.
    ServeDropped {
        /// Which call.
        serve: ServeKey,
    },
    /// A deadline of [`super::Swarm::next_deadline`] may have passed.
    Tick,
}

/// What the brain has the shell do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say something to a neighbour.
    Send {
        /// On which link.
        link: LinkKey,
        /// What.
        message: PeerMessage,
    },
    /// Ask a neighbour for blocks, and put them where they belong as they come.
    Fetch {
        /// A key for the call.
        fetch: FetchKey,
        /// Whom.
        link: LinkKey,
        /// What, in this order.
        ranges: Vec<FetchRange>,
        /// Bytes of a block: small on slow links, so that a cancel takes effect soon.
        block_length: u32,
    },
    /// Drop a call.
    CancelFetch {
        /// Which.
        fetch: FetchKey,
    },
    /// Throw away what came of an attempt, and of those before it, unless the piece is whole.
    Abandon {
        /// Of which content.
        content: ContentKey,
        /// Of which piece.
        piece: PieceIndex,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Send the next `ranges` of those a call asks for.
    Grant {
        /// Which call.
        serve: ServeKey,
        /// How many ranges more.
        ranges: usize,
    },
    /// End a call after what was granted.
    Refuse {
        /// Which call.
        serve: ServeKey,
        /// Why.
        reason: RefuseReason,
    },
    /// Close the links of a peer, and neither dial nor let it in for the ban's time. The brain has
    /// forgotten the link by now, and its fetches and serves with it.
    Ban {
        /// The link on which it showed. The shell answers with `LinkDown`.
        link: LinkKey,
        /// Why.
        reason: BanReason,
    },
    /// Close a link that serves neither side: both hold everything, or a neighbour is of no use. The
    /// brain has forgotten it by now, and its fetches and serves with it.
    Close {
        /// Which. The shell answers with `LinkDown`.
        link: LinkKey,
    },
    /// Every piece wanted is held. Said once: when the last was stored, or when the content was added
    /// if none was missing; and again if more became wanted meanwhile.
    Completed {
        /// Of which content.
        content: ContentKey,
    },
    /// Find more neighbours: too few, or none of them has what is wanted.
    Starving {
        /// For which content.
        content: ContentKey,
    },
}
