//! What is known of one neighbour, for one content.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    event::{Capabilities, ContentKey, FetchKey},
    rate::Rate,
    settings::Settings,
};
use crate::{
    PeerId,
    content::{BLOCK_UNIT, Bitfield, PieceIndex},
};

/// What a round trip longer than those before weighs: one of so many. RFC 6298: 8.
const LONG_ROUND_TRIPS: u32 = 8;

/// One end of a link: the neighbour's state as it told us, and our dealings with it.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) content: ContentKey,
    pub(super) peer: PeerId,
    pub(super) capabilities: Capabilities,
    pub(super) round_trip: Duration,
    pub(super) since: Instant,

    /// The pieces it holds.
    pub(super) has: Bitfield,
    /// It said which pieces it holds.
    pub(super) introduced: bool,
    /// It held everything when it said so, and is counted as one that does.
    pub(super) counted_complete: bool,
    /// Pieces that it holds and we want.
    pub(super) wanted: u32,
    /// Pieces that it asked us for or that we suggested, counted as copies ahead of its HAVE.
    pub(super) promised: Bitfield,
    /// Super-seeding: pieces shown to it that were not seen at another neighbour since.
    pub(super) shown: Vec<PieceIndex>,

    /// We want something of it, and told it so.
    pub(super) interesting: bool,
    /// It wants something of us.
    pub(super) interested: bool,
    /// It does not serve us.
    pub(super) chokes_us: bool,
    /// We do not serve it.
    pub(super) choked: bool,

    pub(super) down: Download,
    pub(super) up: Upload,
    /// HAVEs it does not need soon.
    pub(super) idle_haves: Vec<PieceIndex>,
}

/// What we fetch of a neighbour.
#[derive(Debug)]
pub(super) struct Download {
    /// Calls in flight, oldest first.
    pub(super) fetches: Vec<FetchKey>,
    /// Bytes asked for that did not come yet.
    pub(super) outstanding: u64,
    /// Over 20 s, by which it is ranked.
    pub(super) rate: Rate,
    /// Over a short time, by which its window is computed.
    pub(super) pace: Rate,
    /// While it owed us something, by which it is known what it can do.
    service: Service,
    pub(super) bytes: u64,
    /// When it last sent something, or began to owe us something.
    pub(super) progress_at: Instant,
    /// It owes us data for too long.
    pub(super) snubbed: bool,
    /// Fetches that timed out since it last sent something.
    pub(super) timeouts: u32,
    /// Not to be asked before.
    pub(super) retry_at: Option<Instant>,
    /// Pieces it would rather be asked for.
    pub(super) suggested: VecDeque<PieceIndex>,
    /// Since this count of reopened pieces it holds no open one.
    pub(super) dry_since: Option<u64>,
}

/// Bytes that came, and the seconds in which they were owed; older ones count less.
#[derive(Clone, Copy, Debug, Default)]
struct Service {
    seconds: f64,
    bytes: f64,
}

impl Service {
    /// What of older blocks is kept with each that comes: 64 blocks are remembered, of 1 MiB at least.
    const KEPT: f64 = 1.0 - 1.0 / 64.0;

    fn add(&mut self, owed: Duration, bytes: u64) {
        self.seconds = self.seconds * Self::KEPT + owed.as_secs_f64();
        self.bytes = self.bytes * Self::KEPT + bytes as f64;
    }
}

/// What it fetches of us.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) rate: Rate,
    pub(super) bytes: u64,
    /// Bytes granted, by which turns are dealt; a newcomer starts level with the others.
    pub(super) turn: u64,
    /// Number of its last turn.
    pub(super) last_turn: u64,
    /// Number of the last turn it had that went round among all.
    pub(super) last_free_turn: u64,
    /// Calls waiting or under way.
    pub(super) calls: usize,
    /// Its last grant stalled: it receives more slowly than we send.
    pub(super) slow_receiver: bool,
    /// Pieces suggested that it did not ask for yet.
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
            // Who does not reciprocate, such as an HTTP origin, does not choke either.
            chokes_us: capabilities.reciprocates,
            choked: true,
            down: Download::new(settings, now),
            up: Upload::new(settings, now),
            idle_haves: Vec::new(),
        }
    }

    /// It is served, and wants to be.
    pub(super) fn holds_slot(&self) -> bool {
        !self.choked && self.interested
    }

    /// A round trip was measured. It counts in full if it is short; a long one may have waited
    /// behind blocks on the same connection, and counts like one of many.
    pub(super) fn answered(&mut self, round_trip: Duration) {
        let longer = round_trip.saturating_sub(self.round_trip);
        self.round_trip = self.round_trip.min(round_trip) + longer / LONG_ROUND_TRIPS;
    }

    /// Bytes received of it minus bytes granted to it.
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

    /// Something was asked for; a clock that stood still starts.
    pub(super) fn asked(&mut self, now: Instant, bytes: u64, pace_span: Duration) {
        if self.outstanding == 0 {
            self.progress_at = now;
            if self.pace.bytes(now) == 0 {
                self.pace = Rate::new(pace_span, now);
            }
        }
        self.outstanding += bytes;
    }

    /// Something came.
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

    /// How long it takes to send so many bytes, its other neighbours' turns included; none if it
    /// never sent any.
    pub(super) fn time_for(&self, bytes: u64) -> Option<Duration> {
        let seconds = bytes as f64 * self.service.seconds / self.service.bytes;
        (self.bytes > 0).then(|| Duration::from_secs_f64(seconds.min(3_600.0)))
    }

    /// Bytes to be outstanding at most: 2 x rate x (round trip + slack).
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

    /// How long it may leave us waiting: 3 times what a piece should take, within limits.
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

    /// Bytes left for it.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        self.bytes += bytes;
        self.rate.add(now, bytes);
    }
}
