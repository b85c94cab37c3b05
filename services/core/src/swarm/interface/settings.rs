//! Every number of the swarm state machine, and its source.

use std::time::Duration;

use crate::content::BLOCK_UNIT;

/// The behaviour of the state machine. The defaults are the textbook's, or those that simulation
/// showed to be best.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Neighbours unchoked for the rate at which they send to us. Textbook, Cohen 2003: 4.
    pub regular_slots: usize,
    /// Neighbours unchoked at random in addition. Textbook, Cohen 2003: 1.
    pub optimistic_slots: usize,
    /// How often the fastest are ranked. Textbook, Cohen 2003: 10 s.
    pub rechoke_interval: Duration,
    /// How often the optimistic unchoke changes. Textbook, Cohen 2003: 30 s.
    pub optimistic_interval: Duration,
    /// How many times likelier than others a newcomer is unchoked optimistically. BEP 3: 3.
    pub newcomer_weight: u32,
    /// How long a neighbour is a newcomer: one round of the optimistic slot.
    pub newcomer_age: Duration,
    /// The time over which rates are measured. Cohen 2003: a rolling 20 s average.
    pub rate_span: Duration,
    /// A neighbour that owes us data and has sent none for this long is snubbed. Cohen 2003: 60 s.
    pub snub_after: Duration,
    /// The same for one that needs this many times longer for a piece than expected.
    pub snub_piece_times: u32,
    /// The shortest time before a snub or timeout: a receiver that is busy for a moment is no liar.
    pub min_timeout: Duration,
    /// How long a neighbour with an unknown rate may take for its first bytes.
    pub first_timeout: Duration,
    /// Consecutive fetches that may time out before a neighbour's link is closed as useless.
    pub max_timeouts: u32,

    /// The most neighbours that a seeder serves in turns: all of them. Own simulation: turns of one
    /// piece beat few slots by up to 60 % with uneven uplinks.
    pub seeder_slots: usize,
    /// A seeder serves no more neighbours than it can give a piece each in this time, so that none
    /// waits longer in its queue.
    pub seeder_round: Duration,
    /// How often another choked neighbour is served while the uplink is idle: about the time in
    /// which the previous one makes its requests.
    pub lend_interval: Duration,
    /// One of this many turns on a leecher's uplink goes to all that it serves in rotation: the
    /// share of the optimistic slot, 1 of 4 + 1.
    pub free_turn_interval: u64,
    /// Bytes granted ahead of the transport: what the uplink sends in this time, at least a piece.
    /// Own measurement: hides the delay between transport and state machine at 2 GB/s.
    pub uplink_ahead: Duration,
    /// A grant without progress for this long (or for [`Settings::stall_blocks`]) no longer counts:
    /// its receiver is full.
    pub stall: Duration,
    /// A grant is not stalled before this many blocks could have left at the measured rate.
    pub stall_blocks: u32,
    /// Calls of a neighbour that may wait or be in progress. Twice what ours make.
    pub calls_per_neighbour: usize,
    /// Calls of strangers, which have no link, that may wait or be in progress: as many as regular
    /// slots. They are served when no neighbour waits.
    pub stranger_slots: usize,
    /// A stranger that takes nothing of its grant for this long loses its turn and its slot.
    pub stranger_patience: Duration,
    /// When a caller that finds no free slot should retry.
    pub busy_retry: Duration,

    /// Added to the round trip when the window is computed: hides the delay between transport and
    /// state machine.
    pub pipeline_slack: Duration,
    /// The time over which a link's rate is measured for its window; short, so that the window
    /// follows the rate.
    pub pace_span: Duration,
    /// The least bytes requested on a link before the next request: 2 blocks.
    pub min_window: u64,
    /// The most bytes requested on a link. Own measurement: 2 ms at 2 GB/s.
    pub max_window: u64,
    /// The most bytes requested by the process: its memory for data in flight.
    pub max_outstanding: u64,
    /// Calls in flight to one neighbour: one in progress, and the next behind it.
    pub calls_per_link: usize,
    /// Ranges in a call. Own measurement: 64 pieces a call cost little enough.
    pub ranges_per_call: usize,
    /// About how long a block takes on its link, so that a cancel takes effect soon.
    pub block_time: Duration,
    /// The longest block. Own measurement: longer messages gain nothing.
    pub max_block_length: u32,
    /// Pieces fetched at random before rarest first. Cohen 2003: the first; the mainline client: 4
    /// (Legout et al., IMC 2006).
    pub random_first: u32,
    /// Neighbours that may send the same piece in the endgame. Own simulation: 2 to 4 finish alike,
    /// and duplicates grow with each.
    pub endgame_sources: usize,
    /// A pending piece is left alone if it is expected sooner than this.
    pub endgame_patience: Duration,

    /// How long HAVEs are gathered before they are sent.
    pub have_delay: Duration,
    /// In addition, this long for each neighbour, because each is sent a message: at most 500
    /// messages a second. Own measurement: with 30 neighbours they took more time than the pieces.
    pub have_pause: Duration,
    /// A neighbour that lacks this many pieces which it knows we hold has enough to request: HAVEs
    /// to it are gathered. In simulation 8 to 32 change nothing; on links, with 30 neighbours, 16
    /// saved a quarter of the processor time.
    pub plenty: usize,
    /// How long HAVEs are gathered for neighbours that have enough to request, or hold the pieces
    /// already.
    pub idle_have_delay: Duration,
    /// Pieces that a super-seeder shows to a neighbour before any of them was passed on.
    pub super_seed_pieces: usize,
    /// With fewer neighbours the swarm starves. BitTorrent practice: 16 to 50.
    pub min_neighbours: usize,
    /// How often it is reported that no neighbour has a wanted piece.
    pub starving_interval: Duration,
    /// How often it is reported that there are few neighbours: the tracker's interval.
    pub few_neighbours_interval: Duration,
    /// How often timeouts are checked.
    pub sweep_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            regular_slots: 4,
            optimistic_slots: 1,
            rechoke_interval: Duration::from_secs(10),
            optimistic_interval: Duration::from_secs(30),
            newcomer_weight: 3,
            newcomer_age: Duration::from_secs(30),
            rate_span: Duration::from_secs(20),
            snub_after: Duration::from_secs(60),
            snub_piece_times: 3,
            min_timeout: Duration::from_secs(2),
            first_timeout: Duration::from_secs(10),
            max_timeouts: 3,
            seeder_slots: 50,
            seeder_round: Duration::from_secs(2),
            lend_interval: Duration::from_millis(5),
            free_turn_interval: 5,
            uplink_ahead: Duration::from_millis(5),
            stall: Duration::from_millis(20),
            stall_blocks: 4,
            calls_per_neighbour: 4,
            stranger_slots: 4,
            stranger_patience: Duration::from_secs(5),
            busy_retry: Duration::from_secs(1),
            pipeline_slack: Duration::from_millis(5),
            pace_span: Duration::from_millis(200),
            min_window: 2 * u64::from(BLOCK_UNIT),
            max_window: 4 << 20,
            max_outstanding: 32 << 20,
            calls_per_link: 2,
            ranges_per_call: 64,
            block_time: Duration::from_millis(1),
            max_block_length: 256 << 10,
            random_first: 4,
            endgame_sources: 3,
            endgame_patience: Duration::from_millis(50),
            have_delay: Duration::from_millis(10),
            have_pause: Duration::from_millis(2),
            plenty: 16,
            idle_have_delay: Duration::from_secs(1),
            super_seed_pieces: 4,
            min_neighbours: 16,
            starving_interval: Duration::from_secs(5),
            few_neighbours_interval: Duration::from_secs(30),
            sweep_interval: Duration::from_millis(100),
        }
    }
}
