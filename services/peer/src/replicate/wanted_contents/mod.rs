//! The state of the wanted contents: which to fetch, retry, give up, or leave alone.
//!
//! A tracker's list may contain junk: anybody can announce ids that nobody can resolve. So a
//! content that a tracker lists is tried for [`TRIAL`], a few at a time, and makes room for the
//! next one if no peer gives its manifest by then. It is retried after growing pauses, and dropped
//! after [`MAX_TRIES`]. Each tracker has its own share of all this. Contents that the settings list
//! or a user requested are kept.

mod tries;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::{Rng, seq::SliceRandom as _};
use shoal_core::{backoff::Backoff, content::ContentId};
use tracing::{debug, info, warn};

use self::tries::{MAX_TRIES, Tries};
use super::listing::{Lister, Listing};
use crate::status::Phase;

/// Contents replicated at most: each is announced every half minute.
const MAX_CONTENTS: usize = 1000;

/// Of these, contents without a manifest so far.
const MAX_TRIALS: usize = 256;

/// How long a manifest is sought before the content makes room for another: a peer answers within
/// 20 s or never, and announces happen every 30 s.
const TRIAL: Duration = Duration::from_secs(30);

/// Contents remembered as removed; beyond that, some may return.
const MAX_REMOVED: usize = 10_000;

/// The first pause after a content failed (a full disk, no room in the quota); it grows.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) fetch: Vec<ContentId>,
    /// Contents to remove here: no peer has them.
    pub(super) give_up: Vec<ContentId>,
}

/// Contents by their state.
#[derive(Default)]
pub(super) struct WantedContents {
    joined: BTreeMap<ContentId, Joined>,
    /// No peer gave their manifests.
    tries: Tries,
    /// They were here, and were removed or evicted.
    removed: BTreeSet<ContentId>,
    is_full: bool,
}

struct Joined {
    lister: Lister,
    state: State,
}

enum State {
    /// No peer has given its manifest so far.
    Tried { since: Instant },
    /// It stays, unless it is removed.
    Kept {
        backoff: Backoff,
        /// When to retry after a failure.
        retry: Option<Instant>,
    },
}

impl State {
    fn kept() -> Self {
        Self::Kept { backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF), retry: None }
    }
}

impl WantedContents {
    /// What to do now about the listed contents. `here` is what the peer has or fetches, and
    /// `requested` the part of it that a user requested.
    pub(super) fn due(
        &mut self,
        now: Instant,
        listings: &[Listing],
        here: &BTreeMap<ContentId, &Phase>,
        requested: &BTreeSet<ContentId>,
        rng: &mut impl Rng,
    ) -> Due {
        self.note_removed(here);
        let mut due =
            Due { fetch: Vec::new(), give_up: self.end_trials(now, here, requested, rng) };
        let mut is_full = false;
        for Listing { lister, contents } in listings {
            let mut new = Vec::new();
            for id in contents.keys().filter(|id| !self.removed.contains(id)) {
                if let Some(joined) = self.joined.get_mut(id) {
                    if joined.is_due(now, *id, here.get(id), rng) {
                        due.fetch.push(*id);
                    }
                } else if self.tries.is_due(now, *id) {
                    new.push(*id);
                }
            }
            // At random, so that no source delays an honest content forever.
            new.shuffle(rng);
            let (entered, had_room) = self.enter(now, lister, new, listings.len(), here);
            due.fetch.extend(entered);
            is_full |= !had_room;
        }
        if is_full && !self.is_full {
            warn!(most = MAX_CONTENTS, "more contents are listed than can be replicated");
        }
        self.is_full = is_full;
        due
    }

    fn note_removed(&mut self, here: &BTreeMap<ContentId, &Phase>) {
        let gone: Vec<_> =
            self.joined.keys().filter(|id| !here.contains_key(id)).copied().collect();
        for id in gone {
            info!(content_id = %id, "removed here, so it is no longer replicated");
            self.joined.remove(&id);
            if self.removed.len() == MAX_REMOVED {
                self.removed.pop_first();
            }
            self.removed.insert(id);
        }
    }

    /// A tried content is kept if its manifest was found, and given up if its time is over.
    fn end_trials(
        &mut self,
        now: Instant,
        here: &BTreeMap<ContentId, &Phase>,
        requested: &BTreeSet<ContentId>,
        rng: &mut impl Rng,
    ) -> Vec<ContentId> {
        let mut over = Vec::new();
        for (id, Joined { state, .. }) in &mut self.joined {
            let State::Tried { since } = *state else { continue };
            let is_found = here.get(id).is_some_and(|phase| **phase != Phase::Resolving);
            if is_found || requested.contains(id) {
                self.tries.found(*id);
                *state = State::kept();
            } else if now.saturating_duration_since(since) >= TRIAL {
                over.push(*id);
            }
        }
        for id in &over {
            self.joined.remove(id);
            if let Some(wait) = self.tries.failed(now, *id, rng) {
                debug!(content_id = %id, ?wait, "no peer has it; tried again later");
            } else {
                info!(content_id = %id, tries = MAX_TRIES, "dropped: no peer has it");
            }
        }
        over
    }

    /// Takes on more contents of a source: those tried least often first. Returns what to fetch,
    /// and whether there was room for everything that is kept.
    fn enter(
        &mut self,
        now: Instant,
        lister: &Lister,
        mut new: Vec<ContentId>,
        listers: usize,
        here: &BTreeMap<ContentId, &Phase>,
    ) -> (Vec<ContentId>, bool) {
        let of_lister = self.joined.values().filter(|joined| joined.lister == *lister);
        let states: Vec<_> = of_lister.map(|joined| &joined.state).collect();
        let tried = states.iter().filter(|state| matches!(state, State::Tried { .. })).count();
        let mut room = share(MAX_CONTENTS, listers).saturating_sub(states.len());
        let mut trials = share(MAX_TRIALS, listers).saturating_sub(tried);
        let mut fetch = Vec::new();
        new.sort_by_key(|id| self.tries.count(*id));
        for id in new {
            if room == 0 {
                return (fetch, false);
            }
            let is_here = here.contains_key(&id);
            // Contents that are here already were not fetched by this, and are not to be given up.
            let state = if is_here || *lister == Lister::Settings {
                State::kept()
            } else if trials > 0 {
                trials -= 1;
                State::Tried { since: now }
            } else {
                continue;
            };
            room -= 1;
            self.joined.insert(id, Joined { lister: lister.clone(), state });
            if !is_here {
                fetch.push(id);
            }
        }
        (fetch, true)
    }
}

impl Joined {
    /// Whether it failed, and is to be retried now.
    fn is_due(
        &mut self,
        now: Instant,
        id: ContentId,
        phase: Option<&&Phase>,
        rng: &mut impl Rng,
    ) -> bool {
        let State::Kept { backoff, retry } = &mut self.state else { return false };
        match (phase, *retry) {
            (Some(Phase::Failed(error)), None) => {
                let wait = backoff.next(rng);
                info!(content_id = %id, %error, ?wait, "tried again later");
                *retry = Some(now + wait);
                false
            }
            (Some(Phase::Failed(_)), Some(at)) if now >= at => {
                *retry = None;
                true
            }
            (Some(Phase::Seeding), _) => {
                backoff.reset();
                false
            }
            _ => false,
        }
    }
}

/// The share of `all` that one of this many may use.
fn share(all: usize, of: usize) -> usize {
    (all / of.max(1)).max(1)
}

#[cfg(test)]
mod tests;
