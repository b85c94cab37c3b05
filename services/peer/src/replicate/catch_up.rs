//! Whether a new peer has caught up with its replicated contents, and so can replace an old one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use shoal_core::content::ContentId;

use crate::status::{Phase, Status};

/// A peer that received nothing for this long does not wait for the rest: perhaps no peer has it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The peer's progress.
pub(super) struct CatchUp {
    held_bytes: u64,
    grew: Instant,
}

impl CatchUp {
    pub(super) fn new(now: Instant) -> Self {
        Self { held_bytes: 0, grew: now }
    }

    /// Whether the peer holds everything it should, except for what the disk refused; or as much as
    /// is available at present. `is_partial`: not all wanted contents are known.
    pub(super) fn is_done(
        &mut self,
        now: Instant,
        wanted: &BTreeSet<ContentId>,
        is_partial: bool,
        here: &BTreeMap<ContentId, &Status>,
    ) -> bool {
        let held_bytes = wanted.iter().filter_map(|id| Some(here.get(id)?.held_bytes)).sum();
        if held_bytes > self.held_bytes {
            (self.held_bytes, self.grew) = (held_bytes, now);
        }
        let is_open = |id| {
            let phase = here.get(id).map(|status| &status.phase);
            !matches!(phase, Some(Phase::Seeding | Phase::Failed(_)))
        };
        !is_partial && !wanted.iter().any(is_open) || now - self.grew >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    /// A peer that is to hold contents 1 and 2, requested every second.
    struct Bench {
        catch_up: CatchUp,
        now: Instant,
    }

    fn id(number: u8) -> ContentId {
        ContentId::of_descriptor(&[number])
    }

    fn status(number: u8, phase: Phase, held_bytes: u64) -> Status {
        Status { phase, held_bytes, ..Status::unresolved(id(number)) }
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            Self { catch_up: CatchUp::new(now), now }
        }

        fn is_done(&mut self, is_partial: bool, here: &[Status]) -> bool {
            self.now += Duration::from_secs(1);
            let here = here.iter().map(|status| (status.id, status)).collect();
            self.catch_up.is_done(self.now, &[id(1), id(2)].into(), is_partial, &here)
        }
    }

    #[test]
    fn it_is_done_once_everything_wanted_is_here() {
        let mut bench = Bench::new();
        let first = status(1, Phase::Seeding, 100);
        assert!(!bench.is_done(false, &[]));
        assert!(!bench.is_done(false, std::slice::from_ref(&first)));
        assert!(!bench.is_done(false, &[first.clone(), status(2, Phase::Downloading, 99)]));
        assert!(!bench.is_done(true, &[first.clone(), status(2, Phase::Seeding, 100)]));
        assert!(bench.is_done(false, &[first, status(2, Phase::Seeding, 100)]));
    }

    #[test]
    fn it_does_not_wait_for_contents_that_the_disk_refused() {
        let error = StoreError::QuotaExceeded { needed: 2, missing: 1, quota: 1 };
        let refused = status(2, Phase::Failed(error.into()), 0);
        assert!(Bench::new().is_done(false, &[status(1, Phase::Seeding, 100), refused]));
    }

    #[test]
    fn it_waits_until_nothing_arrived_for_a_minute() {
        let mut bench = Bench::new();
        let part = |held_bytes| [status(1, Phase::Downloading, held_bytes)];
        assert!((1..=600).all(|second| !bench.is_done(false, &part(second))));
        let waited = (1..=600).find(|_| bench.is_done(false, &part(600)));
        assert_eq!(waited, Some(PATIENCE.as_secs()));
    }

    #[test]
    fn trackers_that_never_answer_delay_it_by_a_minute_at_most() {
        let mut bench = Bench::new();
        let waited = (1..=600).find(|_| bench.is_done(true, &[]));
        assert_eq!(waited, Some(PATIENCE.as_secs()));
    }
}
