//! Requests: whole pieces, as far ahead as the link's rate needs.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    Swarm,
    interface::{
        Attempt, BanReason, ContentKey, FetchEnd, FetchKey, FetchRange, IdleReason, LinkKey, Output,
    },
    pending::Attempts,
};
use crate::content::{BlockRange, PieceIndex};

/// Our calls.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) fetches: BTreeMap<FetchKey, Fetch>,
    next_key: u64,
    attempts: Attempts,
    /// Bytes requested that have not arrived yet.
    outstanding: u64,
}

/// One of our calls.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) content: ContentKey,
    link: LinkKey,
    /// The ranges still to come, in order.
    pub(super) ranges: VecDeque<FetchRange>,
}

impl Fetch {
    fn outstanding(&self) -> u64 {
        length_of(&self.ranges)
    }

    /// Advances by a block, and returns its attempt; none if the block is not the expected one.
    fn advance(&mut self, block: BlockRange) -> Option<Attempt> {
        let FetchRange { attempt, range: front } = self.ranges.front_mut()?;
        let attempt = *attempt;
        let is_next = front.piece == block.piece
            && front.offset == block.offset
            && (1..=front.length).contains(&block.length);
        if !is_next {
            return None;
        }
        front.offset += block.length;
        front.length -= block.length;
        if front.length == 0 {
            self.ranges.pop_front();
        }
        Some(attempt)
    }

    fn is_to_bring(&self, piece: PieceIndex) -> bool {
        self.ranges.iter().any(|of| of.range.piece == piece)
    }
}

/// Bytes of some ranges.
fn length_of<'a>(ranges: impl IntoIterator<Item = &'a FetchRange>) -> u64 {
    ranges.into_iter().map(|of| u64::from(of.range.length)).sum()
}

impl Swarm {
    /// Requests from a neighbour as much as its window has room for.
    pub(super) fn refill(&mut self, now: Instant, link: LinkKey) {
        if self.reason_not_to_ask(now, link).is_some() {
            return;
        }
        let mut ranges = self.ranges_to_ask(now, link);
        if ranges.is_empty() {
            ranges = self.ranges_to_take_over(now, link);
        }
        if !ranges.is_empty() {
            self.fetch(now, link, ranges);
        }
    }

    /// Requests from all neighbours of a content, after pieces became open.
    pub(super) fn refill_all(&mut self, now: Instant, content: ContentKey) {
        let Some(state) = self.contents.get(&content) else { return };
        let links: Vec<_> = state.links.iter().copied().collect();
        for link in links {
            self.refill(now, link);
        }
    }

    /// Why nothing can be requested from a neighbour at present, whatever is open.
    pub(super) fn reason_not_to_ask(&self, now: Instant, link: LinkKey) -> Option<IdleReason> {
        let neighbour = self.neighbours.get(&link)?;
        let content = self.contents.get(&neighbour.content)?;
        let window = neighbour.down.window(neighbour.round_trip, &self.settings, now);
        let piece_length = u64::from(content.layout.known_piece_length().get());
        // A piece ahead on slow links; half a window on fast ones, where each call has a cost.
        let low_water = window.min(piece_length).max(window / 2);
        if content.is_seeding() {
            Some(IdleReason::Seeding)
        } else if !neighbour.capabilities.serves {
            Some(IdleReason::ServesNone)
        } else if neighbour.wanted == 0 {
            Some(IdleReason::NotInteresting)
        } else if neighbour.chokes_us {
            Some(IdleReason::Choked)
        } else if neighbour.down.retry_at.is_some_and(|at| now < at) {
            Some(IdleReason::RetryLater)
        } else if neighbour.down.outstanding > low_water
            || neighbour.down.fetches.len() >= self.settings.calls_per_link
        {
            Some(IdleReason::WindowFull)
        } else if self.requests.outstanding + piece_length > self.settings.max_outstanding
            && self.requests.outstanding > 0
        {
            Some(IdleReason::OutOfMemory)
        } else {
            None
        }
    }

    /// The next pieces for a neighbour; their attempts begin.
    fn ranges_to_ask(&mut self, now: Instant, link: LinkKey) -> Vec<FetchRange> {
        let mut ranges: Vec<FetchRange> = Vec::new();
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return ranges };
        let Some(content) = self.contents.get_mut(&neighbour.content) else { return ranges };
        let window = neighbour.down.window(neighbour.round_trip, &self.settings, now);
        let piece_length = u64::from(content.layout.known_piece_length().get());
        let room = window.saturating_sub(neighbour.down.outstanding);
        // The last piece may reach beyond the window, but not beyond the memory limit.
        let link_limit = self.settings.max_window.saturating_sub(neighbour.down.outstanding);
        let limit = self.settings.max_outstanding.saturating_sub(self.requests.outstanding);
        let limit = limit.min(link_limit);
        let mut asked = 0;
        while ranges.is_empty()
            || (asked < room
                && asked + piece_length <= limit
                && ranges.len() < self.settings.ranges_per_call)
        {
            let random_first = self.settings.random_first;
            let attempts = &mut self.requests.attempts;
            let Some(next) = content.next_ranges(neighbour, random_first, attempts, &mut self.rng)
            else {
                break;
            };
            asked += length_of(&next);
            ranges.extend(next);
        }
        ranges
    }

    fn fetch(&mut self, now: Instant, link: LinkKey, ranges: Vec<FetchRange>) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(content) = self.contents.get_mut(&neighbour.content) else { return };
        let fetch = FetchKey(self.requests.next_key);
        self.requests.next_key += 1;
        for of in &ranges {
            if let Some(pending) = content.pending.get_mut(&of.range.piece)
                && pending.sources.last() != Some(&fetch)
            {
                pending.sources.push(fetch);
            }
        }
        let bytes = length_of(&ranges);
        neighbour.down.asked(now, bytes, self.settings.pace_span);
        neighbour.down.fetches.push(fetch);
        self.requests.outstanding += bytes;
        let block_length = neighbour.down.block_length(&self.settings, now);
        let call = Fetch { content: neighbour.content, link, ranges: ranges.clone().into() };
        self.requests.fetches.insert(fetch, call);
        self.outputs.push(Output::Fetch { fetch, link, ranges, block_length });
    }

    /// Bytes arrived.
    pub(super) fn on_block_arrived(
        &mut self,
        now: Instant,
        content: ContentKey,
        key: FetchKey,
        block: BlockRange,
    ) {
        let bytes = u64::from(block.length);
        let Some(fetch) = self.requests.fetches.get_mut(&key) else {
            // The call was cancelled while this was in flight.
            if let Some(state) = self.contents.get_mut(&content) {
                state.totals.from_leechers += bytes;
                state.totals.duplicate += bytes;
            }
            return;
        };
        let link = fetch.link;
        let Some(attempt) = fetch.advance(block) else {
            self.ban(now, link, BanReason::Protocol);
            return;
        };
        let more_of_piece = fetch.is_to_bring(block.piece);
        let fetch_ended = fetch.ranges.is_empty();
        if fetch_ended {
            self.requests.fetches.remove(&key);
        }
        self.requests.outstanding -= bytes;
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.down.received(now, bytes);
        if fetch_ended {
            neighbour.down.fetches.retain(|fetch| *fetch != key);
        }
        if let Some(state) = self.contents.get_mut(&content) {
            let totals = &mut state.totals;
            let from = if neighbour.has.is_full() {
                &mut totals.from_seeders
            } else {
                &mut totals.from_leechers
            };
            *from += bytes;
        }
        self.count_in(now, content, attempt, block);
        if !more_of_piece {
            self.lose_source(content, block.piece, attempt, key);
        }
        self.refill(now, link);
    }

    /// Adds a block to its attempt; if the last block is missing, other sources are cancelled. If
    /// the attempt is over, the store has dropped or discarded it.
    fn count_in(&mut self, now: Instant, content: ContentKey, attempt: Attempt, block: BlockRange) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        let pending = state.pending.get_mut(&block.piece);
        let Some(pending) = pending.filter(|pending| pending.attempt == attempt) else {
            let is_held = state.held.has(block.piece);
            let totals = &mut state.totals;
            let lost = if is_held { &mut totals.duplicate } else { &mut totals.wasted };
            *lost += u64::from(block.length);
            return;
        };
        let taken = pending.take(block);
        state.totals.duplicate += u64::from(taken.duplicate);
        if taken.completed {
            let losers = std::mem::take(&mut pending.sources);
            for loser in losers {
                let fetch = self.requests.fetches.get(&loser);
                if fetch.is_some_and(|fetch| fetch.is_to_bring(block.piece)) {
                    self.cancel(now, loser);
                }
            }
        }
    }

    fn lose_source(
        &mut self,
        content: ContentKey,
        piece: PieceIndex,
        attempt: Attempt,
        fetch: FetchKey,
    ) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        if let Some(given_up) = state.lose_source(piece, attempt, fetch) {
            self.abandon(content, piece, &given_up);
        }
    }

    /// Cancels a call, unless it has ended; its remaining ranges are requested elsewhere.
    pub(super) fn cancel(&mut self, now: Instant, key: FetchKey) {
        if let Some((content, link)) = self.release(key) {
            self.outputs.push(Output::CancelFetch { fetch: key });
            self.refill(now, link);
            self.refill_all(now, content);
        }
    }

    /// A call ended by itself.
    pub(super) fn on_fetch_ended(&mut self, now: Instant, key: FetchKey, end: FetchEnd) {
        let Some((content, link)) = self.release(key) else { return };
        let retry_after = match end {
            FetchEnd::Refused { retry_after } => retry_after,
            // It ended with ranges left, or broke: the neighbour is not asked again at once.
            FetchEnd::Done | FetchEnd::Failed => self.settings.busy_retry,
        };
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            neighbour.down.retry_at = Some(now + retry_after);
        }
        self.refill_all(now, content);
    }

    /// Removes a call; its pieces may be requested again.
    fn release(&mut self, key: FetchKey) -> Option<(ContentKey, LinkKey)> {
        let fetch = self.requests.fetches.remove(&key)?;
        let bytes = fetch.outstanding();
        self.requests.outstanding -= bytes;
        if let Some(neighbour) = self.neighbours.get_mut(&fetch.link) {
            neighbour.down.outstanding -= bytes;
            neighbour.down.fetches.retain(|fetch| *fetch != key);
        }
        for of in &fetch.ranges {
            self.lose_source(fetch.content, of.range.piece, of.attempt, key);
        }
        Some((fetch.content, fetch.link))
    }

    /// Removes all calls to a neighbour.
    pub(super) fn release_all(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get(&link) else { return };
        for key in neighbour.down.fetches.clone() {
            self.release(key);
        }
    }

    /// Endgame: an idle neighbour sends, from its end backwards, what the slowest source was asked
    /// for.
    fn ranges_to_take_over(&self, now: Instant, link: LinkKey) -> Vec<FetchRange> {
        let piece = self.piece_to_take_over(now, link);
        let Some(neighbour) = self.neighbours.get(&link) else { return Vec::new() };
        let Some(content) = self.contents.get(&neighbour.content) else { return Vec::new() };
        piece
            .and_then(|piece| content.pending.get(&piece))
            .map(|pending| pending.missing_backwards(self.settings.endgame_sources))
            .unwrap_or_default()
    }

    fn piece_to_take_over(&self, now: Instant, link: LinkKey) -> Option<PieceIndex> {
        let neighbour = self.neighbours.get(&link)?;
        let content = self.contents.get(&neighbour.content)?;
        if neighbour.down.outstanding > 0 || !content.is_in_endgame() {
            return None;
        }
        let candidates = content.pending.iter().filter(|(piece, pending)| {
            neighbour.has.has(**piece)
                && (1..self.settings.endgame_sources).contains(&pending.sources.len())
                && !content.distrusted.contains(piece)
                && !pending.sources.iter().any(|source| neighbour.down.fetches.contains(source))
        });
        let slowest = candidates.map(|(piece, pending)| {
            let waits =
                pending.sources.iter().map(|source| self.expected_wait(now, *source, *piece));
            (waits.min().unwrap_or(Duration::MAX), *piece)
        });
        let (wait, piece) = slowest.max()?;
        // It helps only if it would complete the whole piece before the slow one.
        let length = u64::from(content.layout.length_of(piece));
        let own = neighbour.down.time_for(length).unwrap_or_default();
        let own = own + neighbour.round_trip + self.settings.endgame_patience;
        (wait > own).then_some(piece)
    }

    /// The time in which a call is expected to have brought a piece. A neighbour that is silent for
    /// longer is expected to stay silent for as long again.
    fn expected_wait(&self, now: Instant, key: FetchKey, piece: PieceIndex) -> Duration {
        let Some(fetch) = self.requests.fetches.get(&key) else { return Duration::MAX };
        let Some(neighbour) = self.neighbours.get(&fetch.link) else { return Duration::MAX };
        let last = fetch.ranges.iter().rposition(|of| of.range.piece == piece).unwrap_or(0);
        let ahead = length_of(fetch.ranges.iter().take(last + 1));
        let earlier = neighbour.down.fetches.iter().take_while(|fetch| **fetch != key);
        let earlier = earlier.filter_map(|fetch| self.requests.fetches.get(fetch));
        let bytes = ahead + earlier.map(Fetch::outstanding).sum::<u64>();
        let silence = now.saturating_duration_since(neighbour.down.progress_at);
        neighbour.down.time_for(bytes).unwrap_or(Duration::MAX).max(silence)
    }

    /// Finds neighbours that have owed us data for too long; their requests are made elsewhere.
    pub(super) fn time_out(&mut self, now: Instant) {
        let late: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(_, neighbour)| {
                let Some(content) = self.contents.get(&neighbour.content) else { return false };
                let piece_length = content.layout.known_piece_length().get();
                let patience = neighbour.down.patience(piece_length, &self.settings, now);
                neighbour.down.outstanding > 0 && now >= neighbour.down.progress_at + patience
            })
            .map(|(link, _)| *link)
            .collect();
        for link in late {
            self.snub(now, link);
        }
    }

    fn snub(&mut self, now: Instant, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.down.snubbed = true;
        neighbour.down.timeouts += 1;
        let pause = self.settings.min_timeout * (1 << neighbour.down.timeouts.min(5));
        neighbour.down.retry_at = Some(now + pause.min(self.settings.snub_after));
        let is_useless =
            neighbour.down.timeouts >= self.settings.max_timeouts && !neighbour.interested;
        let content = neighbour.content;
        for fetch in neighbour.down.fetches.clone() {
            self.outputs.push(Output::CancelFetch { fetch });
            self.release(fetch);
        }
        if is_useless {
            self.close(now, link);
        }
        self.refill_all(now, content);
    }
}
