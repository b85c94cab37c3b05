//! Choking: tit-for-tat, optimistic unchoking, and extra slots while the uplink is idle.
//!
//! A leecher unchokes the 4 interested neighbours that send to it fastest, ranked again every 10 s,
//! and one more at random every 30 s. A seeder receives nothing in return: it unchokes the
//! neighbours that it served least, and the uplink's turns do the rest. Slots belong to the
//! process, not to a content.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rand::{RngExt, seq::IndexedRandom};

use super::{
    Swarm,
    content::Content,
    interface::{LinkKey, Output, PeerMessage},
    neighbour::Neighbour,
};

/// When slots are assigned again, and which neighbour has the optimistic one.
#[derive(Debug, Default)]
pub(super) struct Choker {
    pub(super) rechoke_at: Option<Instant>,
    optimistic_at: Option<Instant>,
    optimistic: Option<LinkKey>,
    /// When the next extra slot may be opened, if a neighbour waits for one.
    pub(super) lend_at: Option<Instant>,
    lent_at: Option<Instant>,
    /// When the uplink was last idle.
    idle_at: Option<Instant>,
    /// Slots of a seeder, by the rate of the uplink.
    seeder_slots: Option<usize>,
}

/// Extra slots are kept when slots are assigned again, if the uplink was idle this recently.
const IDLE_LATELY: Duration = Duration::from_secs(1);

impl Swarm {
    /// Slots for neighbours that cannot reciprocate, or for those that can.
    pub(super) fn slots(&self, seeding: bool) -> usize {
        if seeding {
            return self.choker.seeder_slots.unwrap_or(self.settings.seeder_slots);
        }
        self.settings.regular_slots + self.settings.optimistic_slots
    }

    /// A seeder serves as many neighbours as it can give a piece each in
    /// [`super::Settings::seeder_round`]: with long pieces on a slow uplink, each would otherwise
    /// wait for minutes.
    fn fit_seeder_slots(&mut self, now: Instant, idle_lately: bool) {
        let seeding = self.contents.values().filter(|content| content.is_seeding());
        let longest = seeding.map(|content| content.layout.piece_length().get()).max();
        self.choker.seeder_slots = longest.filter(|_| !idle_lately).map(|length| {
            let round = self.settings.seeder_round.as_secs_f64();
            let pieces = self.uplink.bytes_per_s(now) * round / f64::from(length);
            (pieces as usize).max(self.slots(false)).min(self.settings.seeder_slots)
        });
    }

    /// Slots in use, of either kind.
    pub(super) fn slots_used(&self, seeding: bool) -> usize {
        let holders = self.neighbours.values().filter(|neighbour| neighbour.holds_slot());
        holders.filter(|neighbour| self.seeds_to(neighbour) == seeding).count()
    }

    fn seeds_to(&self, neighbour: &Neighbour) -> bool {
        self.contents.get(&neighbour.content).is_some_and(Content::is_seeding)
    }

    /// A neighbour became interested: it gets a free slot, or an extra one.
    pub(super) fn on_interested(&mut self, now: Instant, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.interested = true;
        let (choked, has_nothing) = (neighbour.choked, neighbour.has.held() == 0);
        let seeding = self.neighbours.get(&link).is_some_and(|n| self.seeds_to(n));
        let used = self.slots_used(seeding);
        // A neighbour without pieces cannot reciprocate, and keeps its extra slot until slots are
        // assigned again.
        let exceeds = used > self.slots(seeding) && !has_nothing && !self.uplink.is_idle();
        if choked && used < self.slots(seeding) {
            self.unchoke(link);
        } else if !choked && exceeds {
            self.choke(link);
        }
        self.lend_slot(now);
    }

    /// A neighbour lost interest: its slot is free.
    pub(super) fn on_not_interested(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let freed = neighbour.holds_slot();
        neighbour.interested = false;
        if freed {
            self.fill_slots();
        }
    }

    /// Gives free slots to choked neighbours that wait for one.
    pub(super) fn fill_slots(&mut self) {
        for seeding in [false, true] {
            let free = self.slots(seeding).saturating_sub(self.slots_used(seeding));
            for _ in 0..free {
                let Some(link) = self.next_for_slot(Some(seeding)) else { break };
                self.unchoke(link);
            }
        }
    }

    /// Opens another slot while the uplink is idle and a choked neighbour is interested.
    pub(super) fn lend_slot(&mut self, now: Instant) {
        self.choker.lend_at = None;
        if !self.uplink.is_idle() {
            return;
        }
        self.choker.idle_at = Some(now);
        let Some(link) = self.next_for_slot(None) else { return };
        let due = self.choker.lent_at.map(|lent| lent + self.settings.lend_interval);
        if due.is_some_and(|due| now < due) {
            self.choker.lend_at = due;
            return;
        }
        self.choker.lent_at = Some(now);
        self.choker.lend_at = Some(now + self.settings.lend_interval);
        self.unchoke(link);
    }

    /// The choked neighbour that should get the next slot; ties at random.
    fn next_for_slot(&mut self, seeding: Option<bool>) -> Option<LinkKey> {
        let mut best = None;
        for (link, neighbour) in &self.neighbours {
            let waits = neighbour.choked && neighbour.interested;
            if !waits || seeding.is_some_and(|seeding| self.seeds_to(neighbour) != seeding) {
                continue;
            }
            let rank = (neighbour.down.snubbed, Reverse(neighbour.deficit()));
            let rank = (rank, self.rng.random::<u32>());
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, *link));
            }
        }
        best.map(|(_, link)| link)
    }

    /// Assigns the slots again.
    pub(super) fn rechoke(&mut self, now: Instant) {
        if self.choker.rechoke_at.is_none_or(|at| now < at) {
            return;
        }
        self.choker.rechoke_at = Some(now + self.settings.rechoke_interval);
        let idle_lately = self.choker.idle_at.is_some_and(|at| now < at + IDLE_LATELY);
        self.fit_seeder_slots(now, idle_lately);
        let mut chosen = self.fastest(now);
        self.choose_optimistic(now, &chosen);
        chosen.extend(self.choker.optimistic);
        chosen.extend(self.least_served());
        let links: Vec<_> = self.neighbours.keys().copied().collect();
        for link in links {
            if chosen.contains(&link) {
                self.unchoke(link);
            } else if !idle_lately || self.neighbours[&link].down.snubbed {
                self.choke(link);
            }
        }
        self.fill_slots();
        self.show_more();
    }

    /// The neighbours that send to this peer fastest, among those that are interested and not
    /// snubbed.
    fn fastest(&self, now: Instant) -> BTreeSet<LinkKey> {
        let mut ranked: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(_, neighbour)| {
                neighbour.interested && !neighbour.down.snubbed && !self.seeds_to(neighbour)
            })
            .map(|(link, neighbour)| (Reverse(neighbour.down.rate.bytes(now)), *link))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().take(self.settings.regular_slots).map(|(_, link)| link).collect()
    }

    /// The interested neighbours that a seeder served least.
    fn least_served(&self) -> Vec<LinkKey> {
        let mut ranked: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(_, neighbour)| neighbour.interested && self.seeds_to(neighbour))
            .map(|(link, neighbour)| (neighbour.up.turn, *link))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().take(self.slots(true)).map(|(_, link)| link).collect()
    }

    /// Every 30 s, or when the neighbour has lost interest, another one gets the optimistic slot.
    fn choose_optimistic(&mut self, now: Instant, fastest: &BTreeSet<LinkKey>) {
        let holder = self.choker.optimistic.filter(|link| {
            !fastest.contains(link) && self.neighbours.get(link).is_some_and(|n| n.interested)
        });
        let is_due = self.choker.optimistic_at.is_none_or(|at| now >= at);
        if self.settings.optimistic_slots == 0 || (holder.is_some() && !is_due) {
            self.choker.optimistic = holder;
            return;
        }
        let others: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(link, neighbour)| {
                neighbour.interested
                    && !self.seeds_to(neighbour)
                    && !fastest.contains(link)
                    && Some(**link) != holder
            })
            .map(|(link, neighbour)| {
                let is_newcomer = now < neighbour.since + self.settings.newcomer_age;
                (*link, if is_newcomer { self.settings.newcomer_weight } else { 1 })
            })
            .collect();
        let drawn = others.choose_weighted(&mut self.rng, |(_, weight)| *weight);
        self.choker.optimistic = drawn.ok().map(|(link, _)| *link).or(holder);
        self.choker.optimistic_at = Some(now + self.settings.optimistic_interval);
    }

    pub(super) fn unchoke(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        if neighbour.choked {
            neighbour.choked = false;
            self.suggest(link);
            self.outputs.push(Output::Send { link, message: PeerMessage::Unchoke });
        }
    }

    /// Stops serving a neighbour: waiting requests are refused, granted ones are sent.
    pub(super) fn choke(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        if !neighbour.choked {
            neighbour.choked = true;
            self.outputs.push(Output::Send { link, message: PeerMessage::Choke });
            self.refuse_waiting(link);
        }
    }
}
