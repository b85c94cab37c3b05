//! The state of one neighbour, for one content.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    interface::{Capabilities, ContentKey, FetchKey, Settings},
    rate::Rate,
};
use crate::{
    PeerId,
    content::{BLOCK_UNIT, Bitfield, PieceIndex},
};

/// The weight of a round trip longer than the earlier ones: one of this many. RFC 6298: 8.
const LONG_ROUND_TRIPS: u32 = 8;

/// One end of a link: the neighbour's state as it reported it, and our transfers with it.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) content: ContentKey,
    pub(super) peer: PeerId,
    pub(super) capabilities: Capabilities,
    pub(super) round_trip: Duration,
    pub(super) since: Instant,

    /// The pieces it holds.
    pub(super) has: Bitfield,
    /// It has sent its bitfield.
    pub(super) introduced: bool,
    /// It held everything when it sent its bitfield, and is counted as such.
    pub(super) counted_complete: bool,
    /// Wanted pieces that it holds.
    pub(super) wanted: u32,
    /// Pieces that it requested or that were suggested to it, counted as copies before its HAVE.
    pub(super) promised: Bitfield,
    /// Super-seeding: pieces shown to it that have not appeared at another neighbour since.
    pub(super) shown: Vec<PieceIndex>,

    /// We are interested, and told it so.
    pub(super) interesting: bool,
    /// It is interested.
    pub(super) interested: bool,
    /// It chokes us.
    pub(super) chokes_us: bool,
    /// We choke it.
    pub(super) choked: bool,

    pub(super) down: Download,
    pub(super) up: Upload,
    /// HAVEs that it does not need soon.
    pub(super) idle_haves: Vec<PieceIndex>,
}

/// Our downloads from it.
#[derive(Debug)]
pub(super) struct Download {
    /// Calls in flight, oldest first.
    pub(super) fetches: Vec<FetchKey>,
    /// Bytes requested that have not arrived yet.
    pub(super) outstanding: u64,
    /// Over 20 s, for its rank.
    pub(super) rate: Rate,
    /// Over a short time, for its window.
    pub(super) pace: Rate,
    /// While it owed us something: what it is capable of.
    service: Service,
    pub(super) bytes: u64,
    /// When it last sent something, or began to owe us something.
    pub(super) progress_at: Instant,
    /// It has owed us data for too long.
    pub(super) snubbed: bool,
    /// Fetches that timed out since it last sent something.
    pub(super) timeouts: u32,
    /// The time before which it is not asked.
    pub(super) retry_at: Option<Instant>,
    /// Pieces that it prefers to be asked for.
    pub(super) suggested: VecDeque<PieceIndex>,
    /// The count of reopened pieces since which it holds no open one.
    pub(super) dry_since: Option<u64>,
}

/// Bytes that arrived, and the seconds in which they were owed; older ones count less.
#[derive(Clone, Copy, Debug, Default)]
struct Service {
    seconds: f64,
    bytes: f64,
}

impl Service {
    /// The part of older blocks that is kept with each new one: 64 blocks are remembered, of 1 MiB
    /// at least.
    const KEPT: f64 = 1.0 - 1.0 / 64.0;

    fn add(&mut self, owed: Duration, bytes: u64) {
        self.seconds = self.seconds * Self::KEPT + owed.as_secs_f64();
        self.bytes = self.bytes * Self::KEPT + bytes as f64;
    }
}

/// Our uploads to it.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) rate: Rate,
    pub(super) bytes: u64,
    /// Bytes granted, which decide about turns; a newcomer starts level with the others.
    pub(super) turn: u64,
    /// Number of its last turn.
    pub(super) last_turn: u64,
    /// Number of its last free turn ([`Settings::free_turn_interval`]).
    pub(super) last_free_turn: u64,
    /// Calls waiting or in progress.
    pub(super) calls: usize,
    /// Its last grant stalled: it receives more slowly than we send.
    pub(super) slow_receiver: bool,
    /// Suggested pieces that it has not requested yet.
    pub(super) suggestions: u32,
    /// Pieces in its last call.
    pub(super) pieces_per_call: u32,
}

impl Neighbour {
    pub(super) fn new(
        content: ContentKey,
        peer: PeerId,
        capabilities: Capabilities,
        round_trip: Duration,
        piece_count: u32,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        Self {
            content,
            peer,
            capabilities,
            round_trip,
            since: now,
            has: Bitfield::empty(piece_count),
            introduced: false,
            counted_complete: false,
            wanted: 0,
            promised: Bitfield::empty(piece_count),
            shown: Vec::new(),
            interesting: false,
            interested: false,
            // A neighbour that does not reciprocate, such as an HTTP origin, does not choke either.
            chokes_us: capabilities.reciprocates,
            choked: true,
            down: Download::new(settings, now),
            up: Upload::new(settings, now),
            idle_haves: Vec::new(),
        }
    }

    /// It is unchoked, and interested.
    pub(super) fn holds_slot(&self) -> bool {
        !self.choked && self.interested
    }

    /// A round trip was measured. A short one counts in full; a long one may have waited behind
    /// blocks on the same connection, and counts like one of many.
    pub(super) fn answered(&mut self, round_trip: Duration) {
        let longer = round_trip.saturating_sub(self.round_trip);
        self.round_trip = self.round_trip.min(round_trip) + longer / LONG_ROUND_TRIPS;
    }

    /// Bytes received from it minus bytes granted to it.
    pub(super) fn deficit(&self) -> i64 {
        self.down.bytes.cast_signed() - self.up.turn.cast_signed()
    }
}

impl Download {
    fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            fetches: Vec::new(),
            outstanding: 0,
            rate: Rate::new(settings.rate_span, now),
            pace: Rate::new(settings.pace_span, now),
            service: Service::default(),
            bytes: 0,
            progress_at: now,
            snubbed: false,
            timeouts: 0,
            retry_at: None,
            suggested: VecDeque::new(),
            dry_since: None,
        }
    }

    /// Something was requested; a stopped clock starts.
    pub(super) fn asked(&mut self, now: Instant, bytes: u64, pace_span: Duration) {
        if self.outstanding == 0 {
            self.progress_at = now;
            if self.pace.bytes(now) == 0 {
                self.pace = Rate::new(pace_span, now);
            }
        }
        self.outstanding += bytes;
    }

    /// Something arrived.
    pub(super) fn received(&mut self, now: Instant, bytes: u64) {
        self.outstanding = self.outstanding.saturating_sub(bytes);
        self.bytes += bytes;
        self.rate.add(now, bytes);
        self.pace.add(now, bytes);
        self.service.add(now.saturating_duration_since(self.progress_at), bytes);
        self.progress_at = now;
        self.snubbed = false;
        self.timeouts = 0;
    }

    /// How long it takes to send this many bytes, including the turns of its other neighbours; none
    /// if it never sent any.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        let seconds = bytes as f64 * self.service.seconds / self.service.bytes;
        (self.bytes > 0).then(|| Duration::from_secs_f64(seconds.min(3_600.0)))
    }

    /// The most bytes to be outstanding: 2 x rate x (round trip + slack).
    pub(super) fn window(&self, round_trip: Duration, settings: &Settings, now: Instant) -> u64 {
        let seconds = (round_trip + settings.pipeline_slack).as_secs_f64();
        let bytes = 2.0 * self.pace.bytes_per_s(now) * seconds;
        (bytes as u64).clamp(settings.min_window, settings.max_window)
    }

    /// Bytes of a block that takes about [`Settings::block_time`].
    pub(super) fn block_length(&self, settings: &Settings, now: Instant) -> u32 {
        let bytes = self.pace.bytes_per_s(now) * settings.block_time.as_secs_f64();
        let longest = settings.max_block_length.max(BLOCK_UNIT);
        (bytes as u32).clamp(BLOCK_UNIT, longest).next_power_of_two().min(longest)
    }

    /// How long it may keep us waiting: 3 times what a piece should take, within limits.
    pub(super) fn patience(
        &self,
        piece_length: u32,
        settings: &Settings,
        now: Instant,
    ) -> Duration {
        let rate = self.rate.bytes_per_s(now);
        if rate < 1.0 {
            return if self.bytes == 0 { settings.first_timeout } else { settings.snub_after };
        }
        let pieces = f64::from(settings.snub_piece_times) * f64::from(piece_length);
        let seconds = (pieces / rate).min(settings.snub_after.as_secs_f64());
        Duration::from_secs_f64(seconds).max(settings.min_timeout)
    }
}

impl Upload {
    fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            rate: Rate::new(settings.rate_span, now),
            bytes: 0,
            turn: 0,
            last_turn: 0,
            last_free_turn: 0,
            calls: 0,
            slow_receiver: false,
            suggestions: 0,
            pieces_per_call: 1,
        }
    }

    /// Bytes were sent to it.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        self.bytes += bytes;
        self.rate.add(now, bytes);
    }
}
