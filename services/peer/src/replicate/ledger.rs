//! What became of the contents that are wanted: which to fetch, try again, or leave alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::Rng;
use shoal_common::backoff::Backoff;
use shoal_core::content::ContentId;
use tracing::{info, warn};

use crate::status::Phase;

/// Contents replicated at most: each is announced every half a minute.
const MAX_CONTENTS: usize = 1000;

/// Contents remembered at most as removed; of more, some may come back.
const MAX_REMOVED: usize = 10_000;

/// A content that failed (a full disk, no room in the quota) is tried again first so soon, then ever
/// later.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Contents by what became of them.
#[derive(Default)]
pub(super) struct Ledger {
    joined: BTreeMap<ContentId, Joined>,
    /// They were here, and somebody removed them or something else needed their room.
    removed: BTreeSet<ContentId>,
    is_full: bool,
}

struct Joined {
    backoff: Backoff,
    /// When to try again what failed.
    retry: Option<Instant>,
}

impl Ledger {
    /// Of what is wanted, that which is to be fetched now. `here` is what the peer has, or fetches.
    pub(super) fn due(
        &mut self,
        now: Instant,
        wanted: impl Iterator<Item = ContentId>,
        here: &BTreeMap<ContentId, &Phase>,
        rng: &mut impl Rng,
    ) -> Vec<ContentId> {
        self.note_removed(here);
        let is_due =
            |id: &ContentId| !self.removed.contains(id) && self.is_due(now, *id, here, rng);
        wanted.filter(is_due).collect()
    }

    fn note_removed(&mut self, here: &BTreeMap<ContentId, &Phase>) {
        let gone: Vec<_> =
            self.joined.keys().filter(|id| !here.contains_key(id)).copied().collect();
        for id in gone {
            info!(content_id = %id, "removed here, so it is not replicated any more");
            self.joined.remove(&id);
            if self.removed.len() == MAX_REMOVED {
                self.removed.pop_first();
            }
            self.removed.insert(id);
        }
    }

    fn is_due(
        &mut self,
        now: Instant,
        id: ContentId,
        here: &BTreeMap<ContentId, &Phase>,
        rng: &mut impl Rng,
    ) -> bool {
        let phase = here.get(&id);
        let Some(joined) = self.joined.get_mut(&id) else {
            return self.enter(id) && phase.is_none();
        };
        match (phase, joined.retry) {
            (Some(Phase::Failed(error)), None) => {
                let wait = joined.backoff.next(rng);
                info!(content_id = %id, %error, ?wait, "tried again later");
                joined.retry = Some(now + wait);
                false
            }
            (Some(Phase::Failed(_)), Some(at)) if now >= at => {
                joined.retry = None;
                true
            }
            (Some(Phase::Seeding), _) => {
                joined.backoff.reset();
                false
            }
            _ => false,
        }
    }

    /// Takes on one more; false if there are too many.
    fn enter(&mut self, id: ContentId) -> bool {
        if self.joined.len() >= MAX_CONTENTS {
            if !self.is_full {
                warn!(most = MAX_CONTENTS, "there are more contents than are replicated");
            }
            self.is_full = true;
            return false;
        }
        self.is_full = false;
        let backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        self.joined.insert(id, Joined { backoff, retry: None });
        true
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::store::StoreError;

    /// A ledger, asked about content 1 or several second by second.
    struct Bench {
        ledger: Ledger,
        now: Instant,
        rng: StdRng,
    }

    fn id(number: usize) -> ContentId {
        ContentId::of_manifest(&number.to_le_bytes())
    }

    fn failed() -> Phase {
        let error = StoreError::QuotaExceeded { needed: 2, missing: 1, quota: 1 };
        Phase::Failed(error.into())
    }

    impl Bench {
        fn new() -> Self {
            let rng = StdRng::seed_from_u64(1);
            Self { ledger: Ledger::default(), now: Instant::now(), rng }
        }

        /// Whether content 1 is to be fetched, a second later.
        fn is_due(&mut self, phase: Option<&Phase>) -> bool {
            self.now += Duration::from_secs(1);
            let here = phase.into_iter().map(|phase| (id(1), phase)).collect();
            let wanted = std::iter::once(id(1));
            !self.ledger.due(self.now, wanted, &here, &mut self.rng).is_empty()
        }
    }

    #[test]
    fn a_content_is_fetched_once() {
        let mut bench = Bench::new();
        assert!(bench.is_due(None));
        for phase in [Phase::Resolving, Phase::Downloading, Phase::Seeding] {
            assert!(!bench.is_due(Some(&phase)), "{phase:?}");
        }
    }

    #[test]
    fn what_is_here_already_is_not_fetched_but_tried_again_once_it_fails() {
        let mut bench = Bench::new();
        assert!(!bench.is_due(Some(&Phase::Seeding)));
        let failed = failed();
        assert!((0..5).any(|_| bench.is_due(Some(&failed))));
    }

    #[test]
    fn what_was_removed_does_not_come_back() {
        let mut bench = Bench::new();
        assert!(bench.is_due(None));
        assert!(!bench.is_due(Some(&Phase::Seeding)));
        for _ in 0..1000 {
            assert!(!bench.is_due(None));
        }
    }

    #[test]
    fn what_fails_is_tried_again_ever_later_until_it_is_here() {
        let mut bench = Bench::new();
        assert!(bench.is_due(None));
        let failed = failed();
        let mut attempts = Vec::new();
        for second in 0..3000 {
            if bench.is_due(Some(&failed)) {
                attempts.push(second);
            }
        }
        let waits: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(attempts[0] <= 4 && waits[0] <= 7, "{attempts:?}");
        let (longest, last) = (waits.iter().max(), waits.last());
        assert!(longest.is_some_and(|wait| *wait <= 302), "{waits:?}");
        assert!(last.is_some_and(|wait| *wait >= 150), "{waits:?}");
        assert!(!bench.is_due(Some(&Phase::Seeding)));
        let attempt = (0..300).find(|_| bench.is_due(Some(&failed)));
        assert!(attempt.is_some_and(|second| second <= 4), "{attempt:?}");
    }

    #[test]
    fn there_is_a_limit_and_removed_contents_do_not_count() {
        let mut bench = Bench::new();
        let most = MAX_CONTENTS;
        let all = || (0..2 * most).map(id);
        let nothing = BTreeMap::new();
        let due = bench.ledger.due(bench.now, all(), &nothing, &mut bench.rng);
        assert_eq!(due.len(), most);
        // None of them is here at the next look: all were removed.
        let due = bench.ledger.due(bench.now, all(), &nothing, &mut bench.rng);
        assert_eq!(due.len(), most);
        let due = bench.ledger.due(bench.now, all(), &nothing, &mut bench.rng);
        assert!(due.is_empty());
    }
}
