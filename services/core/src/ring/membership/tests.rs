use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::{collection::vec, prelude::*, sample::select};
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    address::address,
    ring::testing::{epoch, four, node, node_at, numbers},
};

const KEEP: Duration = Duration::from_secs(60);

/// A source that has told nothing yet.
fn anybody() -> Introducer {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Introducer::of_address(&address(&format!("host{number}:1")))
}

/// The membership of the node at 0.
fn membership(now: Instant) -> Membership {
    Membership::new(node(0), 1, KEEP, now)
}

fn entry(number: u128, incarnation: u64, life: Life) -> Entry {
    Entry { contact: node(number), incarnation, life }
}

fn alive(numbers: impl IntoIterator<Item = u128>) -> Vec<Entry> {
    numbers.into_iter().map(|number| entry(number, 1, Life::Alive)).collect()
}

/// All that it would tell.
fn told(membership: &Membership) -> Vec<Entry> {
    let others = Digest::new(membership.digest.hashes().map(|hash| !hash));
    let mut entries =
        membership.entries_differing(&others, usize::MAX, &mut StdRng::seed_from_u64(1));
    entries.sort_by_key(|entry| entry.contact.position);
    entries.dedup();
    entries
}

#[test]
fn the_closest_successor_is_the_next_one_that_lives() {
    let now = epoch();
    let mut membership = membership(now);
    membership.heard(now, &anybody(), &alive([4, 8, 12]));
    assert!(membership.observe(now, &node(8), Life::Dead));
    assert_eq!(membership.owner_of(four(5)), Some(&node(12)));
    assert_eq!(membership.owner_of(four(13)), Some(&node(0)));
    assert_eq!(numbers(membership.preceding(four(12))), [4, 0, 12]);
    assert_eq!(numbers(membership.live_nodes().from(four(1))), [4, 12, 0]);
    assert_eq!(membership.len(), 3);
}

#[test]
fn within_an_incarnation_the_worse_report_wins_and_a_later_incarnation_refutes_it() {
    let now = epoch();
    let mut membership = membership(now);
    membership.heard(now, &anybody(), &[entry(4, 3, Life::Alive)]);
    assert!(membership.heard(now, &anybody(), &[entry(4, 2, Life::Dead)]).is_empty());
    assert_eq!(
        membership.heard(now, &anybody(), &[entry(4, 3, Life::Dead)]),
        [entry(4, 3, Life::Dead)]
    );
    assert!(membership.heard(now, &anybody(), &alive([4])).is_empty());
    assert_eq!(
        membership.heard(now, &anybody(), &[entry(4, 4, Life::Alive)]),
        [entry(4, 4, Life::Alive)]
    );
    assert_eq!(membership.len(), 2);
}

#[test]
fn a_node_that_left_is_not_reported_dead_later() {
    let now = epoch();
    let mut membership = membership(now);
    membership.heard(now, &anybody(), &[entry(4, 3, Life::Left)]);
    assert!(!membership.observe(now, &node(4), Life::Dead));
    assert_eq!(membership.entry(four(4)).map(|entry| entry.life), Some(Life::Left));
}

#[test]
fn a_node_refutes_its_own_end_while_it_lives() {
    let now = epoch();
    let mut membership = membership(now);
    for (incarnation, life) in [(1, Life::Dead), (9, Life::Left), (20, Life::Alive)] {
        let refuted = membership.heard(now, &anybody(), &[entry(0, incarnation, life)]);
        assert_eq!(refuted, [entry(0, incarnation + 1, Life::Alive)]);
        assert_eq!(membership.rumours(1), refuted);
    }
    membership.leave(now);
    assert!(membership.heard(now, &anybody(), &[entry(0, 30, Life::Dead)]).is_empty());
    assert_eq!(membership.own(), Some(&entry(0, 22, Life::Left)));
    assert!(membership.is_empty());
}

#[test]
fn an_incarnation_that_cannot_be_raised_does_no_harm() {
    let now = epoch();
    let mut membership = membership(now);
    membership.heard(
        now,
        &anybody(),
        &[entry(0, u64::MAX, Life::Dead), entry(0, u64::MAX, Life::Left)],
    );
    assert_eq!(membership.own(), Some(&entry(0, u64::MAX, Life::Alive)));
    membership.leave(now);
    assert_eq!(membership.own(), Some(&entry(0, u64::MAX, Life::Left)));
}

#[test]
fn a_node_that_answers_although_it_is_reported_dead_hears_of_it() {
    let now = epoch();
    let mut membership = membership(now);
    membership.heard(now, &anybody(), &[entry(4, 1, Life::Dead)]);
    while !membership.rumours(64).is_empty() {}
    assert!(!membership.observe(now, &node(4), Life::Alive));
    assert_eq!(membership.rumours(64), [entry(4, 1, Life::Dead)]);
}

#[test]
fn a_rumour_is_told_three_times_for_each_doubling_the_least_told_first() {
    let now = epoch();
    let mut membership = membership(now);
    membership.heard(now, &anybody(), &alive([4, 8]));
    let newest_first =
        [entry(8, 1, Life::Alive), entry(4, 1, Life::Alive), entry(0, 1, Life::Alive)];
    assert_eq!(membership.rumours(64), newest_first);
    membership.heard(now, &anybody(), &alive([12]));
    assert_eq!(membership.rumours(2), [entry(12, 1, Life::Alive), entry(8, 1, Life::Alive)]);
    let mut tellings = BTreeMap::from([(0, 1), (4, 1), (8, 2), (12, 1)]);
    loop {
        let entries = membership.rumours(3);
        let Some(last) = entries.last() else { break };
        let least = tellings.values().min().copied();
        assert!(tellings.values().filter(|times| Some(**times) == least).count() >= 1, "{last:?}");
        for number in numbers(entries.iter().map(|entry| &entry.contact)) {
            *tellings.entry(number).or_default() += 1;
        }
    }
    // Four nodes and the one that may have joined by now: three doublings.
    assert!(tellings.values().all(|times| *times == 9), "{tellings:?}");
}

#[test]
fn an_end_is_told_for_a_while_then_only_remembered_then_forgotten() {
    let now = epoch();
    let mut membership = membership(now);
    membership.heard(now, &anybody(), &alive([4]));
    membership.observe(now, &node(4), Life::Dead);
    membership.expire(now + KEEP.saturating_sub(Duration::from_secs(1)));
    assert_eq!(told(&membership).len(), 2);
    membership.expire(now + KEEP);
    assert_eq!(told(&membership), [entry(0, 1, Life::Alive)]);
    assert!(
        membership.heard(now + KEEP, &anybody(), &alive([4])).is_empty(),
        "the living who do not know yet"
    );
    assert!(
        membership.heard(now + KEEP, &anybody(), &[entry(4, 1, Life::Dead)]).is_empty(),
        "nor a reminder"
    );
    membership.expire(now + KEEP * 2);
    assert_eq!(membership.entry(four(4)), None);
    assert_eq!(membership.digest(), self::membership(now).digest());
}

#[test]
fn two_memberships_that_differ_converge_by_repair_alone() {
    let now = epoch();
    let mut rng = StdRng::seed_from_u64(7);
    let (mut ours, mut theirs) = (membership(now), Membership::new(node(1), 1, KEEP, now));
    for _ in 0..2_000 {
        let contact = node_at(Position::from_u128(rng.random()));
        let [a, b] = [&mut ours, &mut theirs].map(|membership| {
            let life = [Life::Alive, Life::Dead, Life::Left][rng.random_range(0..3)];
            let incarnation = rng.random_range(0..3);
            let entry = Entry { contact: contact.clone(), incarnation, life };
            !membership.heard(now, &anybody(), &[entry]).is_empty()
        });
        assert!(a && b);
    }
    let mut rounds = 0;
    while ours.digest() != theirs.digest() {
        rounds += 1;
        assert!(rounds < 100, "it does not end");
        let pushed = ours.entries_differing(theirs.digest(), 256, &mut rng);
        assert!(pushed.len() <= 256);
        theirs.heard(now, &anybody(), &pushed);
        ours.heard(now, &anybody(), &theirs.entries_differing(ours.digest(), 256, &mut rng));
    }
    assert_eq!(told(&ours), told(&theirs));
    assert!(ours.entries_differing(theirs.digest(), 256, &mut rng).is_empty());
}

#[test]
fn a_difference_in_one_part_of_the_circle_sends_only_that_part() {
    let now = epoch();
    let mut rng = StdRng::seed_from_u64(7);
    let everybody: Vec<_> = (0..10_000)
        .map(|_| Entry {
            contact: node_at(Position::from_u128(rng.random())),
            incarnation: 1,
            life: Life::Alive,
        })
        .collect();
    let (mut ours, mut theirs) = (membership(now), membership(now));
    for message in everybody.chunks(Membership::MAX_HEARD) {
        ours.heard(now, &anybody(), message);
        theirs.heard(now, &anybody(), message);
    }
    theirs.observe(now, &everybody[5].contact, Life::Dead);
    let sent = ours.entries_differing(theirs.digest(), usize::MAX, &mut rng);
    assert!((100..220).contains(&sent.len()), "{}", sent.len());
    assert!(sent.contains(&everybody[5]));
}

#[test]
fn a_full_membership_evicts_ended_nodes_for_live_ones_and_then_refuses() {
    let now = epoch();
    let mut membership = membership(now);
    let at = |number: u128| node_at(Position::from_u128(number << 64));
    let last = Membership::MAX_ENTRIES as u128 - 1;
    let entries: Vec<_> = (1..=last)
        .map(|number| Entry { contact: at(number), incarnation: 1, life: Life::Alive })
        .collect();
    entries
        .chunks(Membership::MAX_HEARD)
        .for_each(|message| drop(membership.heard(now, &anybody(), message)));
    assert_eq!(membership.len(), Membership::MAX_ENTRIES);
    assert!(!membership.observe(now, &at(last + 1), Life::Alive));
    assert!(membership.observe(now, &at(last), Life::Dead));
    assert!(membership.observe(now, &at(last + 1), Life::Alive));
    assert_eq!(membership.len(), Membership::MAX_ENTRIES);
    assert_eq!(membership.entry(at(last).position), None);
}

#[test]
fn one_source_introduces_so_many_and_others_as_many_more() {
    let now = epoch();
    let mut membership = membership(now);
    let most = Membership::MAX_OF_SOURCE as u128;
    let at = |number: u128| Contact {
        address: address("10.0.0.9:1"),
        ..node_at(Position::from_u128(number))
    };
    let told = |numbers: std::ops::Range<u128>| -> Vec<_> {
        let alive = |number| Entry { contact: at(number), incarnation: 1, life: Life::Alive };
        numbers.map(alive).collect()
    };
    let [stranger, member] =
        ["10.0.0.1:1", "10.0.0.2:1"].map(|text| Introducer::of_address(&address(text)));
    assert_eq!(membership.heard(now, &stranger, &told(1..most + 1)).len(), most as usize);
    assert_eq!(membership.heard(now, &stranger, &told(most + 1..most + 9)), []);
    assert!(!membership.claimed(now, &stranger, &at(most + 1), Life::Alive));
    // What is there already is news from anybody.
    let dead = Entry { contact: at(1), incarnation: 1, life: Life::Dead };
    assert_eq!(membership.heard(now, &stranger, std::slice::from_ref(&dead)), [dead]);
    assert_eq!(membership.heard(now, &member, &told(most + 1..most + 9)).len(), 8);
    // A node that answers where it is said to be counts for its own host.
    assert!(!membership.observe(now, &at(2), Life::Alive));
    assert_eq!(membership.heard(now, &stranger, &told(most + 9..most + 19)).len(), 1);
    check(&mut membership);
}

/// A node gossips twice a second, and others with it as often.
#[test]
fn a_node_that_joins_ten_thousand_knows_all_after_a_few_exchanges() {
    const NODES: u128 = 10_000;
    const EXCHANGES: usize = 20;
    let now = epoch();
    let at = |number: u128| Contact {
        address: address(&format!("10.0.{}.{}:7073", number / 256, number % 256)),
        ..node_at(Position::from_u128(number * (u128::MAX / NODES)))
    };
    let mut member = Membership::new(at(1), 1, KEEP, now);
    for number in 2..=NODES {
        member.observe(now, &at(number), Life::Alive);
    }
    let mut joiner = Membership::new(at(0), 1, KEEP, now);
    joiner.observe(now, &at(1), Life::Alive);
    let mut rng = StdRng::seed_from_u64(1);
    let mut exchanges = 0;
    while joiner.len() <= NODES as usize {
        exchanges += 1;
        assert!(exchanges <= EXCHANGES, "{} are known after {exchanges} exchanges", joiner.len());
        // All members know the same. Each tells for itself.
        let other = joiner.random(&mut rng).expect("it knows the one it joined through");
        let source = Introducer::of_address(&other.address);
        let told = member.entries_differing(joiner.digest(), Membership::MAX_HEARD, &mut rng);
        joiner.heard(now, &source, &told);
    }
    check(&mut joiner);
}

#[test]
fn a_host_at_which_thousands_answer_does_not_fill_the_membership() {
    let now = epoch();
    let mut membership = membership(now);
    let at = |number: u128| Contact {
        address: address("10.0.0.9:1"),
        ..node_at(Position::from_u128(number))
    };
    for number in 1..=2 * Membership::MAX_OF_SOURCE as u128 {
        membership.observe(now, &at(number), Life::Alive);
    }
    assert_eq!(membership.len(), 1 + Membership::MAX_OF_SOURCE);
    check(&mut membership);
}

#[test]
fn a_message_is_read_up_to_its_limit() {
    let now = epoch();
    let mut membership = membership(now);
    let entries: Vec<_> = (1..=Membership::MAX_HEARD as u128 + 1)
        .map(|number| Entry {
            contact: node_at(Position::from_u128(number)),
            incarnation: 1,
            life: Life::Alive,
        })
        .collect();
    assert_eq!(membership.heard(now, &anybody(), &entries).len(), Membership::MAX_HEARD);
}

#[test]
fn each_other_node_that_lives_is_drawn_about_as_often() {
    let now = epoch();
    let mut rng = StdRng::seed_from_u64(7);
    let mut membership = membership(now);
    assert_eq!(membership.random(&mut rng), None);
    membership.heard(now, &anybody(), &alive([4, 8, 12, 14]));
    membership.observe(now, &node(14), Life::Dead);
    let mut drawn = BTreeMap::<_, usize>::new();
    for _ in 0..3_000 {
        let contact = membership.random(&mut rng).expect("three others live");
        *drawn.entry(crate::ring::testing::FOUR.value(contact.position)).or_default() += 1;
    }
    assert_eq!(drawn.keys().copied().collect::<Vec<_>>(), [4, 8, 12]);
    assert!(drawn.values().all(|times| (900..1_100).contains(times)), "{drawn:?}");
    membership.leave(now);
    assert!(membership.random(&mut rng).is_some());
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let life = select(vec![Life::Alive, Life::Dead, Life::Left]);
    let one = (1..6_u128, 0..3_u64, life, any::<bool>()).prop_map(
        |(number, incarnation, life, moved)| {
            let address = if moved { address("elsewhere:7073") } else { node(number).address };
            Entry { contact: Contact { address, ..node(number) }, incarnation, life }
        },
    );
    vec(one, 0..30)
}

proptest! {
    #[test]
    fn memberships_converge_whatever_the_order_and_number_of_reports(
        entries in entries().prop_shuffle(), shuffled_with: u64, split in 1..30_usize
    ) {
        let now = epoch();
        let (mut one, mut other) = (membership(now), membership(now));
        one.heard(now, &anybody(), &entries);
        let mut again = entries.clone();
        rand::seq::SliceRandom::shuffle(&mut again[..], &mut StdRng::seed_from_u64(shuffled_with));
        again.extend(entries);
        again.chunks(split).for_each(|message| drop(other.heard(now, &anybody(), message)));
        prop_assert_eq!(told(&one), told(&other));
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(one.live_nodes(), other.live_nodes());
        // And by telling a third what they came to.
        let mut third = membership(now);
        third.heard(now, &anybody(), &told(&one));
        prop_assert_eq!(third.digest(), one.digest());
    }

    #[test]
    fn the_indexes_stay_consistent_with_the_records(
        steps in vec((entries(), any::<bool>(), 0..90_u64, 0..5_usize), 0..20)
    ) {
        let mut now = epoch();
        let mut membership = membership(now);
        for (entries, observe, seconds, rumours) in steps {
            now += Duration::from_secs(seconds);
            membership.expire(now);
            if observe {
                for entry in &entries {
                    membership.observe(now, &entry.contact, entry.life);
                }
            } else {
                membership.heard(now, &anybody(), &entries);
            }
            prop_assert!(membership.rumours(rumours).len() <= rumours);
            check(&mut membership);
        }
    }
}

/// The invariants of the module's header.
fn check(membership: &mut Membership) {
    let living: Vec<_> =
        membership.records.values().filter(|record| record.entry.life == Life::Alive).collect();
    let positions: Vec<_> = living.iter().map(|record| record.entry.contact.position).collect();
    assert_eq!(membership.live.keys().copied().collect::<Vec<_>>(), positions);
    assert_eq!(membership.pool.len(), positions.len());
    assert!(membership.live.iter().all(|(position, index)| membership.pool[*index] == *position));
    let ends: BTreeSet<_> =
        membership.records.iter().filter_map(|(p, record)| Some((record.end?.due, *p))).collect();
    assert_eq!(membership.ends, ends);
    assert_eq!(membership.ends.len() + living.len(), membership.records.len());
    let news = membership
        .records
        .iter()
        .filter_map(|(p, record)| record.news.map(|(t, c)| (t, Reverse(c), *p)));
    assert_eq!(news.collect::<BTreeSet<_>>(), membership.news);
    let mut introduced = HashMap::new();
    for record in membership.records.values() {
        *introduced.entry(record.introduction.clone()).or_default() += 1;
    }
    assert_eq!(membership.introduced, introduced);
    assert!(introduced.values().all(|count| *count <= Membership::MAX_OF_SOURCE));
    let mut digest = Digest::empty();
    membership
        .records
        .values()
        .filter(|record| record.is_told())
        .for_each(|record| digest.toggle(&record.entry));
    assert_eq!(membership.digest, digest);
    let contacts = living.iter().map(|record| record.entry.contact.clone()).collect::<Vec<_>>();
    assert_eq!(membership.live_nodes(), LiveNodes::new(contacts));
}
