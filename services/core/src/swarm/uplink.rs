//! The order of uploads: one whole piece after another.
//!
//! Of all waiting calls, one range at a time is granted, the next when little of it is left unsent.
//! Between contents the one that was granted least goes first. Within a content a seeder serves the
//! neighbour that it served least; a leecher the one whose deficit (received minus sent) is
//! greatest; every fifth turn goes to its neighbours in rotation, so that one without anything to
//! give gets a small share. Strangers come after all neighbours, and have few calls at a time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    Swarm,
    interface::{ContentKey, LinkKey, Output, RefuseReason, ServeKey, Settings},
    rate::Rate,
};
use crate::content::{BLOCK_UNIT, BlockRange};

/// The calls for our blocks.
#[derive(Debug)]
pub(super) struct Uplink {
    serves: BTreeMap<ServeKey, Serve>,
    /// Granted bytes that the transport has not accepted yet, except for stalled grants.
    unsent: u64,
    /// Calls with ranges to grant.
    waiting: usize,
    /// Turns so far.
    turns: u64,
    rate: Option<Rate>,
    /// When to check for stalled grants.
    pub(super) stall_at: Option<Instant>,
    /// When to check for strangers that take nothing.
    pub(super) strangers_at: Option<Instant>,
}

/// One call for our blocks.
#[derive(Debug)]
struct Serve {
    content: ContentKey,
    /// The caller; none is a stranger.
    link: Option<LinkKey>,
    /// Ranges not granted yet.
    waiting: VecDeque<BlockRange>,
    /// Bytes granted and not sent.
    unsent: u64,
    /// Its grant counts as sent ahead of the transport ([`super::Settings::uplink_ahead`]).
    counts: bool,
    /// Its grant made no progress for a while.
    lagged: bool,
    progress_at: Instant,
}

/// The order within a content; among strangers, by the time of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    credit: Reverse<i64>,
    /// Of equals, the one that holds least: it has least to send on.
    pieces: u32,
    last: u64,
}

impl Uplink {
    pub(super) fn new() -> Self {
        Self {
            serves: BTreeMap::new(),
            unsent: 0,
            waiting: 0,
            turns: 0,
            rate: None,
            stall_at: None,
            strangers_at: None,
        }
    }

    /// Nothing is being sent, and no call waits.
    pub(super) fn is_idle(&self) -> bool {
        self.unsent == 0 && self.waiting == 0
    }

    /// Calls of strangers.
    pub(super) fn strangers(&self) -> usize {
        self.serves.values().filter(|serve| serve.link.is_none()).count()
    }

    /// Bytes a second that leave at present.
    pub(super) fn bytes_per_s(&self, now: Instant) -> f64 {
        self.rate.as_ref().map_or(0.0, |rate| rate.bytes_per_s(now))
    }

    /// The sum that `unsent` keeps.
    fn counted(&self) -> u64 {
        self.serves.values().filter(|serve| serve.counts).map(|serve| serve.unsent).sum()
    }

    fn has_room_for(&self, bytes: u32, now: Instant, settings: &Settings) -> bool {
        let ahead = self.bytes_per_s(now) * settings.uplink_ahead.as_secs_f64();
        self.unsent == 0 || self.unsent + u64::from(bytes) <= ahead as u64
    }

    /// How long a grant may make no progress before it stops counting.
    fn stall(&self, now: Instant, settings: &Settings) -> Duration {
        let blocks = f64::from(settings.stall_blocks) * f64::from(BLOCK_UNIT);
        let seconds = blocks / self.bytes_per_s(now).max(1.0);
        // Beyond the span of the rate nothing is known.
        let longest = settings.pace_span.as_secs_f64();
        settings.stall.max(Duration::from_secs_f64(seconds.min(longest)))
    }

    /// Removes a call, with what it still held.
    fn remove(&mut self, key: ServeKey) -> Option<Serve> {
        let serve = self.serves.remove(&key)?;
        self.waiting -= usize::from(!serve.waiting.is_empty());
        if serve.counts {
            self.unsent -= serve.unsent;
        }
        Some(serve)
    }
}

impl Swarm {
    /// A call for blocks.
    pub(super) fn on_serve_requested(
        &mut self,
        now: Instant,
        key: ServeKey,
        content: ContentKey,
        link: Option<LinkKey>,
        ranges: Vec<BlockRange>,
    ) {
        if self.uplink.serves.contains_key(&key) {
            return;
        }
        if let Some(reason) = self.reason_to_refuse(content, link, &ranges) {
            self.outputs.push(Output::Refuse { serve: key, reason });
            return;
        }
        if let Some(neighbour) = link.and_then(|link| self.neighbours.get_mut(&link)) {
            neighbour.up.calls += 1;
            let pieces = ranges.chunk_by(|a, b| a.piece == b.piece).count() as u32;
            neighbour.up.pieces_per_call = pieces;
            neighbour.up.suggestions = neighbour.up.suggestions.saturating_sub(pieces);
        }
        let serve = Serve {
            content,
            link,
            waiting: ranges.into(),
            unsent: 0,
            counts: true,
            lagged: false,
            progress_at: now,
        };
        self.uplink.serves.insert(key, serve);
        self.uplink.waiting += 1;
        self.grant(now);
    }

    fn reason_to_refuse(
        &self,
        content: ContentKey,
        link: Option<LinkKey>,
        ranges: &[BlockRange],
    ) -> Option<RefuseReason> {
        let busy = RefuseReason::Busy { retry_after: self.settings.busy_retry };
        let Some(state) = self.contents.get(&content) else { return Some(RefuseReason::NotHeld) };
        if ranges.is_empty() || !ranges.iter().all(|range| state.held.has(range.piece)) {
            return Some(RefuseReason::NotHeld);
        }
        let Some(link) = link else {
            let strangers = self.uplink.strangers();
            let is_free = strangers < self.settings.stranger_slots
                && self.slots_used(state.is_seeding()) + strangers < self.slots(state.is_seeding());
            return (!is_free).then_some(busy);
        };
        match self.neighbours.get(&link) {
            Some(neighbour) if neighbour.content != content => Some(RefuseReason::NotHeld),
            Some(neighbour) if !neighbour.choked => {
                (neighbour.up.calls >= self.settings.calls_per_neighbour).then_some(busy)
            }
            _ => Some(RefuseReason::Choked),
        }
    }

    /// The transport accepted bytes of a call.
    pub(super) fn on_block_sent(&mut self, now: Instant, key: ServeKey, bytes: u32) {
        let stall = self.uplink.stall(now, &self.settings);
        let Some(serve) = self.uplink.serves.get_mut(&key) else { return };
        let bytes = u64::from(bytes).min(serve.unsent);
        serve.unsent -= bytes;
        serve.lagged |= now.saturating_duration_since(serve.progress_at) >= stall;
        serve.progress_at = now;
        if serve.counts {
            self.uplink.unsent -= bytes;
        }
        let (content, link, grant_ended) = (serve.content, serve.link, serve.unsent == 0);
        let ended = grant_ended && serve.waiting.is_empty();
        let kept_pace = grant_ended && !serve.lagged;
        let span = self.settings.pace_span;
        self.uplink.rate.get_or_insert_with(|| Rate::new(span, now)).add(now, bytes);
        if let Some(state) = self.contents.get_mut(&content) {
            state.totals.sent += bytes;
        }
        if let Some(neighbour) = link.and_then(|link| self.neighbours.get_mut(&link)) {
            neighbour.up.sent(now, bytes);
            neighbour.up.slow_receiver &= !kept_pace;
            neighbour.up.calls -= usize::from(ended);
        }
        if ended {
            self.uplink.remove(key);
        }
        self.grant(now);
        self.lend_slot(now);
    }

    /// The caller has gone.
    pub(super) fn on_serve_dropped(&mut self, now: Instant, key: ServeKey) {
        if let Some(serve) = self.uplink.remove(key)
            && let Some(neighbour) = serve.link.and_then(|link| self.neighbours.get_mut(&link))
        {
            neighbour.up.calls -= 1;
        }
        self.grant(now);
        self.lend_slot(now);
    }

    /// Refuses a neighbour's ranges that are not granted yet; granted ones are sent.
    pub(super) fn refuse_waiting(&mut self, link: LinkKey) {
        let calls = self.uplink.serves.iter_mut().filter(|(_, serve)| serve.link == Some(link));
        let mut ended = Vec::new();
        for (key, serve) in calls.filter(|(_, serve)| !serve.waiting.is_empty()) {
            serve.waiting.clear();
            self.uplink.waiting -= 1;
            let reason = RefuseReason::Choked;
            self.outputs.push(Output::Refuse { serve: *key, reason });
            if serve.unsent == 0 {
                ended.push(*key);
            }
        }
        for key in ended {
            self.uplink.remove(key);
            if let Some(neighbour) = self.neighbours.get_mut(&link) {
                neighbour.up.calls -= 1;
            }
        }
    }

    /// Removes the calls of a link or content that has ended.
    pub(super) fn forget_serves(&mut self, of: impl Fn(ContentKey, Option<LinkKey>) -> bool) {
        let gone = self.uplink.serves.iter().filter(|(_, serve)| of(serve.content, serve.link));
        let gone: Vec<_> = gone.map(|(key, _)| *key).collect();
        for key in gone {
            self.uplink.remove(key);
        }
    }

    /// Grants ranges while the uplink has room.
    pub(super) fn grant(&mut self, now: Instant) {
        debug_assert_eq!(self.uplink.unsent, self.uplink.counted(), "bytes that no serve owes");
        while self.uplink.waiting > 0 {
            let Some(key) = self.next_turn() else { return };
            let Some(serve) = self.uplink.serves.get(&key) else { return };
            let Some(range) = serve.waiting.front().copied() else { return };
            if !self.uplink.has_room_for(range.length, now, &self.settings) {
                let stall = self.uplink.stall(now, &self.settings);
                self.uplink.stall_at.get_or_insert(now + stall);
                return;
            }
            self.grant_one(now, key, range);
        }
    }

    fn grant_one(&mut self, now: Instant, key: ServeKey, range: BlockRange) {
        let is_free_turn = self.is_free_turn();
        let Some(serve) = self.uplink.serves.get_mut(&key) else { return };
        let bytes = u64::from(range.length);
        let (content, link) = (serve.content, serve.link);
        serve.waiting.pop_front();
        self.uplink.waiting -= usize::from(serve.waiting.is_empty());
        if serve.unsent == 0 {
            serve.progress_at = now;
            serve.counts = true;
            serve.lagged = false;
        }
        self.uplink.turns += 1;
        if let Some(neighbour) = link.and_then(|link| self.neighbours.get_mut(&link)) {
            neighbour.up.turn += bytes;
            neighbour.up.last_turn = self.uplink.turns;
            if is_free_turn {
                neighbour.up.last_free_turn = self.uplink.turns;
            }
            if serve.unsent == 0 {
                serve.counts = !neighbour.up.slow_receiver;
            }
        }
        serve.unsent += bytes;
        if serve.counts {
            self.uplink.unsent += bytes;
        }
        if link.is_none() {
            self.uplink.strangers_at.get_or_insert(now + self.settings.stranger_patience);
        }
        if let Some(content) = self.contents.get_mut(&content) {
            content.turn += bytes;
        }
        match self.outputs.last_mut() {
            Some(Output::Grant { serve, ranges }) if *serve == key => *ranges += 1,
            _ => self.outputs.push(Output::Grant { serve: key, ranges: 1 }),
        }
        if let Some(link) = link {
            self.promise(link, range.piece);
            self.suggest(link);
            self.show_to_lone(link);
        }
    }

    /// A leecher's next turn does not depend on what it received.
    fn is_free_turn(&self) -> bool {
        self.uplink.turns.is_multiple_of(self.settings.free_turn_interval.max(1))
    }

    /// The call to be granted a range next. A slow receiver waits for its present grant.
    fn next_turn(&self) -> Option<ServeKey> {
        let waiting =
            self.uplink.serves.iter().filter(|(_, serve)| {
                !serve.waiting.is_empty() && (serve.counts || serve.unsent == 0)
            });
        let is_free_turn = self.is_free_turn();
        let ranked = waiting.filter_map(|(key, serve)| {
            let content = self.contents.get(&serve.content)?;
            let neighbour = serve.link.and_then(|link| self.neighbours.get(&link));
            let turn = neighbour.map_or(Turn::default(), |neighbour| {
                let (pieces, up) = (neighbour.has.held(), &neighbour.up);
                match (content.is_seeding(), is_free_turn) {
                    (true, _) => {
                        Turn { credit: Reverse(-up.turn.cast_signed()), pieces, last: up.last_turn }
                    }
                    (false, true) => Turn { last: up.last_free_turn, ..Turn::default() },
                    (false, false) => {
                        Turn { credit: Reverse(neighbour.deficit()), pieces, last: up.last_turn }
                    }
                }
            });
            Some(((neighbour.is_none(), content.turn, turn), *key))
        });
        ranked.min().map(|(_, key)| key)
    }

    /// Ends the calls of strangers that take nothing of their grants, to free their slots.
    pub(super) fn drop_stalled_strangers(&mut self, now: Instant) {
        if self.uplink.strangers_at.is_none_or(|at| now < at) {
            return;
        }
        let patience = self.settings.stranger_patience;
        let owing = self.uplink.serves.iter();
        let owing = owing.filter(|(_, serve)| serve.link.is_none() && serve.unsent > 0);
        let ends = owing.map(|(key, serve)| (serve.progress_at + patience, *key));
        let (over, rest): (Vec<_>, Vec<_>) = ends.partition(|(end, _)| *end <= now);
        self.uplink.strangers_at = rest.into_iter().map(|(end, _)| end).min();
        for (_, key) in over {
            self.uplink.remove(key);
            let reason = RefuseReason::Busy { retry_after: self.settings.busy_retry };
            self.outputs.push(Output::Refuse { serve: key, reason });
        }
        self.grant(now);
    }

    /// Grants whose receiver is full stop counting, so that the uplink serves others in the
    /// meantime.
    pub(super) fn pass_over_stalled(&mut self, now: Instant) {
        if self.uplink.stall_at.is_none_or(|at| now < at) {
            return;
        }
        let stall = self.uplink.stall(now, &self.settings);
        let mut next: Option<Instant> = None;
        for serve in self.uplink.serves.values_mut().filter(|s| s.unsent > 0 && s.counts) {
            let due = serve.progress_at + stall;
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            serve.counts = false;
            self.uplink.unsent -= serve.unsent;
            if let Some(neighbour) = serve.link.and_then(|link| self.neighbours.get_mut(&link)) {
                neighbour.up.slow_receiver = true;
            }
        }
        self.uplink.stall_at = next.filter(|_| self.uplink.waiting > 0);
        self.grant(now);
    }
}
