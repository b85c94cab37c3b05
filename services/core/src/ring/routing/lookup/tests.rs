use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    address::address,
    ring::{
        Bits, FingerBase, Fingers, LiveNodes, RoutingTable, Standing, State,
        testing::{FOUR, four, node, numbers},
    },
};

const TEXTBOOK: [u128; 8] = [1, 3, 4, 5, 8, 10, 12, 15];

/// The lookup of the Chord paper.
const ONE_BY_ONE: LookupSettings =
    LookupSettings { branches: 1, branches_after_timeout: 1, max_asks: 64 };

/// Nodes that answer at once, or never.
#[derive(Clone)]
struct Ring {
    tables: BTreeMap<u128, RoutingTable>,
    silent: BTreeSet<u128>,
}

impl Ring {
    /// A ring of 4 bits whose lists hold so many.
    fn new(members: &[u128], successors: usize) -> Self {
        let all = LiveNodes::new(members.iter().copied().map(node));
        let table = |number: &u128| {
            let me = four(*number);
            let mut fingers = Fingers::new(me, FOUR, FingerBase::Two);
            fingers.fill_from(&all);
            let others: Vec<_> = all.from(me.next()).take(members.len() - 1).cloned().collect();
            let state = State {
                node: node(*number),
                standing: Standing::Member,
                predecessor: others.last().cloned(),
                successors: others.into_iter().take(successors).collect(),
            };
            (*number, RoutingTable { state, fingers: fingers.into(), live_nodes: None })
        };
        Self { tables: members.iter().map(table).collect(), silent: BTreeSet::new() }
    }

    fn textbook(successors: usize) -> Self {
        Self::new(&TEXTBOOK, successors)
    }

    fn without_shortcuts(mut self) -> Self {
        for (number, table) in &mut self.tables {
            table.fingers = Fingers::new(four(*number), FOUR, FingerBase::Two).into();
        }
        self
    }

    fn silence(mut self, numbers: &[u128]) -> Self {
        self.silent.extend(numbers);
        self
    }

    /// All believe that these nodes are alive.
    fn with_live_nodes(mut self, living: &[u128]) -> Self {
        let live_nodes = LiveNodes::new(living.iter().copied().map(node));
        self.tables.values_mut().for_each(|table| table.live_nodes = Some(live_nodes.clone()));
        self
    }

    fn table(&mut self, number: u128) -> &mut RoutingTable {
        self.tables.get_mut(&number).expect("it is a node of this ring")
    }

    fn lookup(&self, from: u128, key: u128, settings: LookupSettings) -> Lookup {
        let start = self.tables[&from].find_for_lookup(four(key));
        Lookup::new(four(key), &start, settings)
    }

    fn look_up(&self, from: u128, key: u128, settings: LookupSettings) -> Outcome {
        self.run(four(key), self.lookup(from, key, settings)).expect("somebody owns it")
    }

    fn run(&self, key: Position, lookup: Lookup) -> Result<Outcome, Failure> {
        run(lookup, |asked| {
            let number = FOUR.value(asked.position);
            let table = self.tables.get(&number).filter(|_| !self.silent.contains(&number))?;
            Some(table.find_successor(key))
        })
    }
}

/// Runs a lookup to its end; the node asked first answers first. None means no answer.
fn run(
    mut lookup: Lookup,
    mut answer: impl FnMut(&Contact) -> Option<Found>,
) -> Result<Outcome, Failure> {
    let mut under_way = VecDeque::new();
    loop {
        under_way.extend(lookup.next_asks());
        if let Some(outcome) = lookup.outcome() {
            return outcome.clone();
        }
        let asked = under_way.pop_front().expect("a lookup waits for somebody or is over");
        match answer(&asked) {
            Some(found) => lookup.answered(&asked, &found),
            None => lookup.failed(&asked),
        }
    }
}

/// An answer of the node with this number.
fn found(by: u128, successors: &[u128], closer: &[u128]) -> Found {
    let contacts = |numbers: &[u128]| numbers.iter().copied().map(node).collect();
    Found {
        node: node(by),
        owns: successors.first() == Some(&by),
        successors: contacts(successors),
        closer: contacts(closer),
    }
}

/// A lookup of 11 by node 1, which knows these nodes before it.
fn of_eleven(closer: &[u128]) -> Lookup {
    Lookup::new(four(11), &found(1, &[], closer), LookupSettings::default())
}

fn asks(lookup: &mut Lookup) -> Vec<u128> {
    numbers(&lookup.next_asks())
}

fn tell(lookup: &mut Lookup, found: &Found) {
    lookup.answered(&found.node, found);
}

fn owner(lookup: &Lookup) -> Option<u128> {
    let outcome = lookup.outcome()?.as_ref().expect("it found the owner");
    Some(FOUR.value(outcome.owner.position))
}

#[test]
fn without_shortcuts_a_lookup_walks_the_circle_and_with_them_it_leaps() {
    let ring = Ring::textbook(1);
    let leap = ring.look_up(1, 15, ONE_BY_ONE);
    assert_eq!((numbers(&leap.path), leap.hops), (vec![10, 12, 15], 2));
    let walk = ring.without_shortcuts().look_up(1, 15, ONE_BY_ONE);
    assert_eq!((numbers(&walk.path), walk.hops), (vec![3, 4, 5, 8, 10, 12, 15], 6));
}

#[test]
fn hops_are_the_steps_to_the_keys_predecessor() {
    let ring = Ring::textbook(1);
    for (key, owner, hops) in [(1, 1, 0), (0, 1, 0), (2, 3, 0), (4, 4, 1), (5, 5, 2), (12, 12, 1)] {
        let outcome = ring.look_up(1, key, ONE_BY_ONE);
        assert_eq!((FOUR.value(outcome.owner.position), outcome.hops), (owner, hops), "{key}");
    }
}

#[test]
fn from_any_node_any_key_is_found() {
    for settings in [ONE_BY_ONE, LookupSettings::default()] {
        for (from, key) in TEXTBOOK.into_iter().flat_map(|from| (0..16).map(move |key| (from, key)))
        {
            let outcome = Ring::textbook(2).look_up(from, key, settings.clone());
            let all = LiveNodes::new(TEXTBOOK.map(node));
            assert_eq!(Some(&outcome.owner), all.owner_of(four(key)), "{from} {key}");
            if outcome.predecessor.is_some() {
                assert_eq!(outcome.successors[0], outcome.owner, "{from} {key}");
            }
            assert_eq!(outcome.timeouts, 0);
        }
    }
}

#[test]
fn two_are_asked_at_once_and_two_more_as_soon_as_one_is_closer() {
    let mut lookup = of_eleven(&[8, 5, 4]);
    assert_eq!(asks(&mut lookup), [8, 5]);
    tell(&mut lookup, &found(5, &[], &[10, 9, 6]));
    assert_eq!(asks(&mut lookup), [10, 9]);
    tell(&mut lookup, &found(8, &[], &[10]));
    assert_eq!(asks(&mut lookup), [0; 0], "10 and 9 are under way");
    tell(&mut lookup, &found(10, &[12, 15], &[]));
    assert_eq!(asks(&mut lookup), [12, 15]);
    tell(&mut lookup, &found(12, &[12, 15, 1], &[10]));
    assert_eq!(owner(&lookup), Some(12));
    assert_eq!(asks(&mut lookup), [0; 0], "it is over");
}

#[test]
fn a_round_is_a_timeout_if_nobody_answers_and_the_next_is_wider() {
    let mut lookup = of_eleven(&[10, 9, 8, 5, 4, 3, 2]);
    assert_eq!(asks(&mut lookup), [10, 9]);
    lookup.failed(&node(9));
    assert_eq!(asks(&mut lookup), [8]);
    lookup.failed(&node(10));
    assert_eq!(asks(&mut lookup), [5, 4]);
    tell(&mut lookup, &found(4, &[], &[7, 6, 5]));
    assert_eq!(asks(&mut lookup), [7, 6]);
    // These were asked before something better was known.
    lookup.failed(&node(8));
    lookup.failed(&node(5));
    tell(&mut lookup, &found(7, &[12], &[]));
    assert_eq!(asks(&mut lookup), [12]);
    tell(&mut lookup, &found(12, &[], &[]));
    let outcome = lookup.outcome().expect("12 is next").clone().expect("12 lives");
    assert_eq!((outcome.timeouts, outcome.asked), (1, 8));
}

#[test]
fn an_owner_with_a_late_answer_is_not_considered_dead() {
    let mut lookup = of_eleven(&[10]);
    assert_eq!(asks(&mut lookup), [10]);
    tell(&mut lookup, &found(10, &[12, 15, 1, 3], &[]));
    assert_eq!(asks(&mut lookup), [12, 15]);
    lookup.late(&node(12));
    tell(&mut lookup, &found(15, &[], &[]));
    assert_eq!(asks(&mut lookup), [0; 0]);
    assert_eq!(owner(&lookup), None, "15 does not say that it is the owner");
    let mut other = lookup.clone();
    tell(&mut lookup, &found(12, &[12, 15], &[]));
    assert_eq!(owner(&lookup), Some(12));
    other.failed(&node(12));
    assert_eq!(owner(&other), Some(15));
}

#[test]
fn an_owner_is_accepted_only_from_the_node_before_the_position() {
    // 5 is too far away to know 12, which joined lately, and 14 is dead.
    let mut lookup = of_eleven(&[5]);
    assert_eq!(asks(&mut lookup), [5]);
    tell(&mut lookup, &found(5, &[14, 15], &[10]));
    assert_eq!(asks(&mut lookup), [14, 15]);
    lookup.failed(&node(14));
    tell(&mut lookup, &found(15, &[], &[14]));
    assert_eq!((owner(&lookup), asks(&mut lookup)), (None, vec![10]));
    tell(&mut lookup, &found(10, &[12, 14, 15], &[]));
    assert_eq!(asks(&mut lookup), [12]);
    tell(&mut lookup, &found(12, &[12], &[]));
    assert_eq!(owner(&lookup), Some(12));
}

#[test]
fn a_lookup_routes_around_silent_nodes() {
    let ring = Ring::textbook(3).silence(&[10, 12]);
    let outcome = ring.look_up(1, 11, LookupSettings::default());
    assert_eq!(FOUR.value(outcome.owner.position), 15);
    assert_eq!(outcome.predecessor, Some(node(8)));
    assert_eq!(numbers(&outcome.successors), [15]);
}

#[test]
fn a_lookup_reports_that_all_nodes_are_silent() {
    let ring = Ring::textbook(2).silence(&TEXTBOOK);
    let lookup = ring.lookup(1, 11, LookupSettings::default());
    assert_eq!(ring.run(four(11), lookup), Err(Failure::NoAnswer(4)));
}

#[test]
fn if_all_named_nodes_are_dead_earlier_ones_are_asked() {
    let mut lookup = of_eleven(&[8, 5]);
    assert_eq!(asks(&mut lookup), [8, 5]);
    tell(&mut lookup, &found(8, &[], &[10]));
    assert_eq!(asks(&mut lookup), [10]);
    lookup.failed(&node(10));
    tell(&mut lookup, &found(5, &[], &[9]));
    assert_eq!(asks(&mut lookup), [9]);
}

#[test]
fn nodes_no_closer_than_the_node_that_named_them_are_not_asked() {
    let mut lookup = of_eleven(&[8]);
    assert_eq!(asks(&mut lookup), [8]);
    // The first might be the owner by the membership.
    tell(&mut lookup, &found(8, &[], &[9, 5, 4, 8, 1]));
    assert_eq!(asks(&mut lookup), [9]);
    tell(&mut lookup, &found(9, &[], &[]));
    assert_eq!(asks(&mut lookup), [0; 0]);
    assert_eq!(lookup.outcome(), Some(&Err(Failure::NoAnswer(2))));
}

#[test]
fn nodes_that_name_each_other_in_circles_are_asked_once() {
    let circle = |asked: &Contact| {
        let number = FOUR.value(asked.position);
        let all = TEXTBOOK.into_iter().cycle().skip_while(|other| *other != number);
        Some(found(number, &[], &all.skip(1).take(7).collect::<Vec<_>>()))
    };
    let failure = run(of_eleven(&[3]), circle).expect_err("nobody owns it");
    assert!(matches!(failure, Failure::NoAnswer(asked) if asked < 8), "{failure}");
}

#[test]
fn successors_count_up_to_the_first_out_of_order() {
    let mut lookup = of_eleven(&[10]);
    assert_eq!(asks(&mut lookup), [10]);
    tell(&mut lookup, &found(10, &[12, 15, 13, 14], &[]));
    assert_eq!(asks(&mut lookup), [12, 15]);
    lookup.failed(&node(15));
    assert_eq!(asks(&mut lookup), [0; 0]);
}

#[test]
fn a_node_that_answers_at_the_address_of_another_counts_as_silent() {
    let stranger = Contact { id: node(3).id, ..node(10) };
    for liar in [stranger, node(11)] {
        let mut lookup = of_eleven(&[10, 8]);
        assert_eq!(asks(&mut lookup), [10, 8]);
        lookup.answered(&node(10), &Found { node: liar, ..found(10, &[12], &[]) });
        tell(&mut lookup, &found(8, &[12], &[10]));
        assert_eq!(asks(&mut lookup), [12]);
    }
}

#[test]
fn unsolicited_answers_are_ignored() {
    let mut lookup = of_eleven(&[10, 8]);
    assert_eq!(asks(&mut lookup), [10, 8]);
    tell(&mut lookup, &found(12, &[12], &[]));
    lookup.answered(&Contact { id: node(3).id, ..node(10) }, &found(10, &[12], &[]));
    lookup.failed(&node(5));
    assert_eq!(lookup.outcome(), None);
    assert_eq!(asks(&mut lookup), [0; 0]);
}

#[test]
fn the_number_of_calls_is_limited() {
    let settings = LookupSettings { max_asks: 3, ..LookupSettings::default() };
    let ring = Ring::textbook(1).without_shortcuts();
    let lookup = ring.lookup(1, 12, settings);
    assert_eq!(ring.run(four(12), lookup), Err(Failure::TooManyAsked(3)));
}

#[test]
fn a_lookup_that_passed_the_owner_walks_back() {
    // 9 joined, and only 10 knows.
    let mut ring = Ring::textbook(2);
    let mut nine = ring.table(8).clone();
    nine.state = State { node: node(9), predecessor: Some(node(8)), ..ring.table(8).state.clone() };
    ring.tables.insert(9, nine);
    ring.table(10).state.predecessor = Some(node(9));
    for settings in [ONE_BY_ONE, LookupSettings::default()] {
        assert_eq!(ring.look_up(1, 9, settings).owner, node(9));
    }
}

#[test]
fn a_node_that_leaves_is_passed_over_for_the_one_after_it() {
    let mut ring = Ring::textbook(2);
    ring.table(12).state.standing = Standing::Leaving;
    for settings in [ONE_BY_ONE, LookupSettings::default()] {
        let outcome = ring.look_up(1, 11, settings);
        assert_eq!(outcome.owner, node(15));
        assert_eq!(numbers(&outcome.successors), [15]);
    }
}

#[test]
fn with_the_membership_the_owner_is_asked_first() {
    let ring = Ring::textbook(2).with_live_nodes(&TEXTBOOK);
    let mut lookup = ring.lookup(1, 11, LookupSettings::default());
    assert_eq!(asks(&mut lookup), [12], "alone");
    tell(&mut lookup, &ring.tables[&12].find_successor(four(11)));
    assert_eq!(owner(&lookup), Some(12));
}

#[test]
fn the_first_of_the_own_list_is_asked_alone_until_it_is_late() {
    let ring = Ring::textbook(4);
    let mut lookup = ring.lookup(8, 11, LookupSettings::default());
    assert_eq!(asks(&mut lookup), [12], "alone");
    lookup.late(&node(12));
    assert_eq!(asks(&mut lookup), [15, 1, 10]);
    tell(&mut lookup, &ring.tables[&12].find_successor(four(11)));
    assert_eq!(owner(&lookup), Some(12));
}

#[test]
fn a_wrong_membership_costs_little() {
    let unknown = Ring::textbook(2).with_live_nodes(&[1, 3, 15]);
    assert_eq!(unknown.look_up(1, 11, LookupSettings::default()).owner, node(12));
    let dead = Ring::textbook(2).with_live_nodes(&TEXTBOOK).silence(&[12]);
    let outcome = dead.look_up(1, 11, LookupSettings::default());
    assert_eq!((outcome.owner, outcome.timeouts), (node(15), 1));
    let never_was = Ring::textbook(2).with_live_nodes(&[1, 11, 12]);
    assert_eq!(never_was.look_up(1, 11, LookupSettings::default()).owner, node(12));
}

#[test]
fn a_joiner_finds_the_live_node_before_its_place() {
    let ring = Ring::textbook(2).silence(&[12]);
    let lookup = Lookup::of_joiner(&node(13), &[node(1)], LookupSettings::default());
    let outcome = ring.run(four(13), lookup).expect("10 knows 15");
    assert_eq!((outcome.owner, outcome.predecessor), (node(15), Some(node(10))));
}

#[test]
fn a_joiner_that_others_remember_does_not_find_itself() {
    let ring = Ring::textbook(2);
    let again = Contact { address: address("elsewhere:7071"), ..node(12) };
    let seeds = [again.clone(), node(5)];
    let lookup = Lookup::of_joiner(&again, &seeds, LookupSettings::default());
    let outcome = ring.run(four(12), lookup).expect("10 knows 15");
    assert_eq!((outcome.owner, outcome.predecessor), (node(15), Some(node(10))));
    assert!(!numbers(&outcome.path).contains(&12));
}

#[test]
fn a_joiner_is_told_if_no_seed_answers() {
    let ring = Ring::textbook(2).silence(&TEXTBOOK);
    let lookup = Lookup::of_joiner(&node(13), &[node(1), node(3)], LookupSettings::default());
    assert_eq!(ring.run(four(13), lookup), Err(Failure::NoAnswer(2)));
}

fn any_contact() -> impl Strategy<Value = Contact> {
    (0..64_u128, 0..3_u128).prop_map(|(place, lie)| {
        let position = Bits::new(6).expect("six bits are a ring").position(place);
        Contact { id: node(lie).id, position, address: address("node:7073") }
    })
}

/// Any answer that names its sender.
fn any_found() -> impl Strategy<Value = Found> {
    (any_contact(), any::<bool>(), vec(any_contact(), 0..12), vec(any_contact(), 0..12))
        .prop_map(|(node, owns, successors, closer)| Found { node, owns, successors, closer })
}

proptest! {
    #[test]
    fn a_lookup_ends_and_asks_no_node_twice_whatever_the_answers(
        start in any_found(),
        is_joiner: bool,
        answers in vec(prop::option::weighted(0.8, (any_found(), any::<bool>())), 200),
        branches in 0..4_usize,
        max_asks in select(vec![0, 1, 5, 20, 128]),
    ) {
        let settings = LookupSettings { branches, branches_after_timeout: branches + 1, max_asks };
        let key = start.node.position.advanced(1 << 127);
        let lookup = if is_joiner {
            Lookup::of_joiner(&Contact { position: key, ..start.node }, &start.closer, settings)
        } else {
            Lookup::new(key, &start, settings)
        };
        let mut asked = BTreeSet::new();
        let mut answers = answers.into_iter().cycle();
        let outcome = run(lookup, |node| {
            assert!(asked.insert(node.position), "asked twice: {node:?}");
            let (found, is_itself) = answers.next().flatten()?;
            Some(if is_itself { Found { node: node.clone(), ..found } } else { found })
        });
        let count = match &outcome {
            Ok(outcome) => outcome.asked,
            Err(Failure::NoAnswer(count) | Failure::TooManyAsked(count)) => *count,
        };
        prop_assert!(asked.len() <= count && count <= max_asks);
        if let Ok(Outcome { owner, path, .. }) = outcome {
            prop_assert!(path.contains(&owner) || owner.position == start.node.position);
        }
    }

    #[test]
    fn with_any_members_silent_the_owner_is_the_first_that_lives(
        silent in prop::sample::subsequence(TEXTBOOK[1..].to_vec(), 0..7),
        key in 0..16_u128,
    ) {
        // A list of all others is never lost whole.
        let ring = Ring::textbook(7).silence(&silent);
        let living = TEXTBOOK.into_iter().filter(|number| !silent.contains(number));
        let expected = LiveNodes::new(living.map(node)).owner_of(four(key)).cloned();
        let outcome = ring.look_up(1, key, LookupSettings::default());
        prop_assert_eq!(Some(outcome.owner), expected);
    }
}
