//! What is fetched, retried and given up, second by second.

use rand::{SeedableRng as _, rngs::StdRng};
use shoal_core::Address;

use super::*;
use crate::{options::Options, store::StoreError};

/// The wanted contents, looked at second by second.
struct Bench {
    contents: WantedContents,
    now: Instant,
    rng: StdRng,
    requested: BTreeSet<ContentId>,
}

fn id(number: usize) -> ContentId {
    ContentId::of_descriptor(&number.to_le_bytes())
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<ContentId> {
    numbers.into_iter().map(id).collect()
}

fn failed() -> Phase {
    let error = StoreError::QuotaExceeded { needed: 2, missing: 1, quota: 1 };
    Phase::Failed(error.into())
}

fn listing(lister: Lister, ids: &BTreeSet<ContentId>) -> Listing {
    Listing { lister, contents: ids.iter().map(|id| (*id, Options::default())).collect() }
}

fn tracker(number: u16) -> Lister {
    Lister::Tracker(Address::from(std::net::SocketAddr::from(([10, 0, 0, 1], number))))
}

/// What is here: all that was fetched and not given up, with these found.
#[derive(Default)]
struct Here(BTreeMap<ContentId, Phase>);

impl Here {
    fn follow(&mut self, due: &Due, real: &BTreeSet<ContentId>) {
        for id in &due.give_up {
            self.0.remove(id);
        }
        for id in &due.fetch {
            let phase = if real.contains(id) { Phase::Seeding } else { Phase::Resolving };
            self.0.insert(*id, phase);
        }
    }

    fn count(&self, phase: &Phase) -> usize {
        self.0.values().filter(|other| *other == phase).count()
    }
}

impl Bench {
    fn new() -> Self {
        let rng = StdRng::seed_from_u64(1);
        Self {
            contents: WantedContents::default(),
            now: Instant::now(),
            rng,
            requested: BTreeSet::new(),
        }
    }

    fn look(&mut self, listings: &[Listing], here: &Here) -> Due {
        let here = here.0.iter().map(|(id, phase)| (*id, phase)).collect();
        self.contents.due(self.now, listings, &here, &self.requested, &mut self.rng)
    }

    /// Looks every 5 s for a period. Returns everything that was fetched.
    fn looks(
        &mut self,
        listings: &[Listing],
        here: &mut Here,
        real: &BTreeSet<ContentId>,
        period: Duration,
    ) -> Vec<ContentId> {
        let (end, mut fetched) = (self.now + period, Vec::new());
        while self.now < end {
            self.now += Duration::from_secs(5);
            let due = self.look(listings, here);
            here.follow(&due, real);
            assert!(here.count(&Phase::Resolving) <= MAX_TRIALS);
            fetched.extend(due.fetch);
        }
        fetched
    }

    /// Whether content 1, which the settings list, is to be fetched, a second later.
    fn is_due(&mut self, phase: Option<&Phase>) -> bool {
        self.now += Duration::from_secs(1);
        let here = Here(phase.into_iter().map(|phase| (id(1), phase.clone())).collect());
        let due = self.look(&[listing(Lister::Settings, &ids([1]))], &here);
        assert_eq!(due.give_up, [], "what the settings list is kept");
        !due.fetch.is_empty()
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
fn a_content_that_is_here_is_fetched_only_once_it_fails() {
    let mut bench = Bench::new();
    assert!(!bench.is_due(Some(&Phase::Seeding)));
    let failed = failed();
    assert!((0..5).any(|_| bench.is_due(Some(&failed))));
}

#[test]
fn a_removed_content_does_not_come_back() {
    let mut bench = Bench::new();
    assert!(bench.is_due(None));
    assert!(!bench.is_due(Some(&Phase::Seeding)));
    for _ in 0..1000 {
        assert!(!bench.is_due(None));
    }
}

#[test]
fn a_failed_content_is_retried_after_growing_pauses() {
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
    let all = [listing(Lister::Settings, &ids(0..2 * MAX_CONTENTS))];
    assert_eq!(bench.look(&all, &Here::default()).fetch.len(), MAX_CONTENTS);
    // None of them is here at the next look: all were removed.
    assert_eq!(bench.look(&all, &Here::default()).fetch.len(), MAX_CONTENTS);
    assert_eq!(bench.look(&all, &Here::default()), Due::default());
}

#[test]
fn a_content_of_the_settings_is_searched_however_long_it_takes() {
    let mut bench = Bench::new();
    assert!(bench.is_due(None));
    for _ in 0..10_000 {
        assert!(!bench.is_due(Some(&Phase::Resolving)));
    }
}

#[test]
fn a_thousand_contents_without_a_peer_delay_a_real_one_by_a_few_turns() {
    let real = ids([1000]);
    for seed in 0..20 {
        let (mut bench, mut here) = (Bench::new(), Here::default());
        bench.rng = StdRng::seed_from_u64(seed);
        let listed = [listing(tracker(1), &ids(0..=1000))];
        // Four turns of 256, each over at a look.
        let fetched = bench.looks(&listed, &mut here, &real, 4 * TRIAL + Duration::from_secs(20));
        assert_eq!(here.0.get(&id(1000)), Some(&Phase::Seeding));
        assert_eq!(fetched.iter().collect::<BTreeSet<_>>().len(), 1001, "each was tried");
    }
}

#[test]
fn a_content_without_a_peer_is_tried_six_times_and_dropped() {
    let (mut bench, mut here) = (Bench::new(), Here::default());
    let listed = [listing(tracker(1), &ids([1]))];
    let hour = Duration::from_secs(3600);
    let fetched = bench.looks(&listed, &mut here, &BTreeSet::new(), 2 * hour);
    assert_eq!(fetched.len(), MAX_TRIES as usize);
    assert!(here.0.is_empty());
    assert_eq!(bench.looks(&listed, &mut here, &BTreeSet::new(), 20 * hour), []);
    // Its seeder has come back.
    let real = ids([1]);
    assert_eq!(bench.looks(&listed, &mut here, &real, 5 * hour), [id(1)]);
    assert_eq!(here.0.get(&id(1)), Some(&Phase::Seeding));
}

#[test]
fn contents_that_a_user_requested_or_had_are_not_given_up() {
    let (mut bench, mut here) = (Bench::new(), Here::default());
    here.0.insert(id(1), Phase::Resolving);
    bench.requested.insert(id(2));
    let listed = [listing(tracker(1), &ids([1, 2, 3]))];
    bench.looks(&listed, &mut here, &BTreeSet::new(), TRIAL + Duration::from_secs(10));
    assert_eq!(here.0.keys().copied().collect::<BTreeSet<_>>(), ids([1, 2]));
}

#[test]
fn junk_of_one_tracker_takes_no_turn_or_room_of_another() {
    let (mut bench, mut here) = (Bench::new(), Here::default());
    // What the first lists is there, and far too much; what the second lists is real too.
    let flood = ids(0..5000);
    let listed = [listing(tracker(1), &flood), listing(tracker(2), &ids(9000..9100))];
    let all = ids((0..5000).chain(9000..9100));
    bench.looks(&listed, &mut here, &all, Duration::from_secs(60));
    let of_second = (9000..9100).filter(|number| here.0.contains_key(&id(*number))).count();
    assert_eq!(of_second, 100);
    assert_eq!(here.0.len(), MAX_CONTENTS / 2 + 100);
    // The same with junk.
    let (mut bench, mut here) = (Bench::new(), Here::default());
    let real = ids(9000..9100);
    bench.looks(&listed, &mut here, &real, Duration::from_secs(10));
    assert_eq!(here.count(&Phase::Seeding), 100);
    assert_eq!(here.count(&Phase::Resolving), MAX_TRIALS / 2);
}
