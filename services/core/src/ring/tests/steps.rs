//! What one message does.

use super::network::{Network, Number, Seeds, contact, numbers, position};
use crate::{
    address::address,
    ring::{ChordNode, Contact, JoinError, KeyRange, Next, Standing, State},
};

fn state(node: Number, predecessor: Option<Number>, successors: &[Number]) -> State {
    State {
        node: contact(node),
        standing: Standing::Member,
        predecessor: predecessor.map(contact),
        successors: successors.iter().copied().map(contact).collect(),
    }
}

/// Node 5 after it joined in 3's place in the textbook's ring, with a list of three.
fn member() -> ChordNode {
    let mut member = ChordNode::new(contact(5), 3);
    member.join(&state(3, Some(1), &[8, 10, 12])).expect("3 is the node before 5");
    member
}

fn moved(number: Number) -> Contact {
    Contact { address: address("elsewhere:7073"), ..contact(number) }
}

#[test]
fn a_founder_owns_every_key_and_a_joiner_none() {
    let mut member = ChordNode::new(contact(5), 3);
    assert_eq!((member.standing(), member.owned()), (Standing::Joining, None));
    member.found();
    assert_eq!(member.owned(), Some(KeyRange::whole(position(5))));
    assert_eq!(member.head(), None);
}

#[test]
fn a_joiner_tells_its_successor_and_its_predecessor() {
    let mut member = ChordNode::new(contact(5), 3);
    let told = member.join(&state(3, Some(1), &[8, 10, 12]));
    assert_eq!(told, Ok(vec![contact(8), contact(3)]));
    assert_eq!(numbers(member.successors()), [8, 10, 12]);
    assert_eq!(member.owned(), Some(KeyRange { after: position(3), last: position(5) }));
}

#[test]
fn in_a_ring_no_larger_than_a_list_a_joiners_list_ends_with_its_predecessor() {
    for (known, list) in [(&[8, 10][..], &[8, 10, 3][..]), (&[8], &[8, 3]), (&[], &[3])] {
        let mut member = ChordNode::new(contact(5), 3);
        member.join(&state(3, None, known)).expect("3 is the node before 5");
        assert_eq!(numbers(member.successors()), list);
    }
}

#[test]
fn a_node_joins_only_after_the_member_before_it() {
    let mut joiner = ChordNode::new(contact(5), 3);
    let unborn = joiner.clone();
    let far = joiner.join(&state(1, None, &[3, 8]));
    assert_eq!(far, Err(JoinError::NoPredecessor(contact(1))));
    let itself = joiner.join(&state(5, None, &[]));
    assert_eq!(itself, Err(JoinError::NoPredecessor(contact(5))));
    for standing in [Standing::Joining, Standing::Leaving] {
        let other = State { standing, ..state(3, None, &[8]) };
        assert_eq!(joiner.join(&other), Err(JoinError::NoMember(contact(3))));
    }
    assert_eq!(joiner, unborn);
    assert_eq!(member().join(&state(3, None, &[8])), Err(JoinError::NotJoining));
}

#[test]
fn a_node_that_was_started_again_joins_although_its_predecessor_still_knows_its_earlier_life() {
    let mut joiner = ChordNode::new(contact(5), 3);
    joiner.join(&state(3, Some(1), &[5, 8, 10])).expect("3 is the node before 5");
    assert_eq!(numbers(joiner.successors()), [8, 10, 3]);
}

#[test]
fn the_list_of_the_closest_successor_replaces_ones_own() {
    let mut member = member();
    let next = member.answered(&state(8, Some(5), &[12, 15, 1]));
    assert_eq!(next, Next::Notify(contact(8)));
    assert_eq!(numbers(member.successors()), [8, 12, 15]);
}

#[test]
fn a_closer_node_is_asked_before_it_is_followed() {
    let mut member = member();
    assert_eq!(member.answered(&state(8, Some(6), &[10, 12])), Next::Ask(contact(6)));
    assert_eq!(numbers(member.successors()), [8, 10, 12]);
    assert_eq!(member.answered(&state(6, Some(5), &[8, 10])), Next::Notify(contact(6)));
    assert_eq!(numbers(member.successors()), [6, 8, 10]);
}

#[test]
fn the_closest_successor_is_notified_although_the_node_it_named_is_dead() {
    let mut member = member();
    assert_eq!(member.answered(&state(8, Some(6), &[10, 12])), Next::Ask(contact(6)));
    assert_eq!(member.dead(&contact(6)), Next::Notify(contact(8)));
}

#[test]
fn a_late_answer_of_a_former_closest_successor_changes_nothing() {
    let mut member = member();
    let _ = member.notified(&state(6, Some(5), &[8, 10]));
    let before = member.clone();
    assert_eq!(member.answered(&state(8, Some(5), &[10, 12])), Next::Rest);
    assert_eq!(member, before);
}

#[test]
fn when_successors_die_the_next_is_asked_and_last_the_predecessor() {
    let mut member = member();
    assert_eq!(member.dead(&contact(10)), Next::Rest);
    assert_eq!(member.dead(&contact(8)), Next::Ask(contact(12)));
    assert_eq!(member.dead(&contact(12)), Next::Ask(contact(3)));
    assert_eq!(member.dead(&contact(3)), Next::Rest);
    assert_eq!((member.head(), member.owned()), (None, Some(KeyRange::whole(position(5)))));
}

#[test]
fn a_predecessor_gives_way_to_a_closer_node_and_when_it_is_dead() {
    let mut member = member();
    assert_eq!(member.notified(&state(4, Some(3), &[5, 8])), Next::Rest);
    assert_eq!(member.predecessor(), Some(&contact(4)));
    assert_eq!(member.notified(&state(1, Some(15), &[5, 8])), Next::Ask(contact(4)));
    assert_eq!(member.predecessor(), Some(&contact(4)));
    assert_eq!(member.dead(&contact(4)), Next::Rest);
    assert_eq!(member.predecessor(), Some(&contact(1)));
}

#[test]
fn a_predecessor_that_answers_keeps_its_place_for_good() {
    let mut member = member();
    assert_eq!(member.notified(&state(1, Some(15), &[5, 8])), Next::Ask(contact(3)));
    assert_eq!(member.answered(&state(3, Some(1), &[5, 8])), Next::Rest);
    let _ = member.dead(&contact(3));
    assert_eq!(member.predecessor(), None);
}

#[test]
fn a_joiner_behind_a_node_does_not_pass_for_its_predecessor() {
    let mut member = member();
    let _ = member.dead(&contact(3));
    assert_eq!(member.notified(&state(6, Some(5), &[8, 10, 12])), Next::Rest);
    assert_eq!((member.predecessor(), member.head()), (None, Some(&contact(6))));
}

#[test]
fn a_leaver_is_left_out_at_once_and_closes_the_gap() {
    let mut member = member();
    let leaves = |state| State { standing: Standing::Leaving, ..state };
    let next = member.notified(&leaves(state(8, Some(5), &[10, 12, 15])));
    assert_eq!(next, Next::Ask(contact(10)));
    assert_eq!(numbers(member.successors()), [10, 12, 15]);
    assert_eq!(member.notified(&leaves(state(3, Some(1), &[5, 8]))), Next::Rest);
    assert_eq!(member.predecessor(), Some(&contact(1)));
    let next = member.answered(&leaves(state(10, Some(8), &[])));
    assert_eq!(next, Next::Ask(contact(12)));
    assert_eq!(numbers(member.successors()), [12, 15]);
}

#[test]
fn a_leaver_tells_its_neighbours_each_once() {
    assert_eq!(numbers(&member().leave()), [8, 3]);
    let mut network = Network::ring([3, 5], 2);
    assert_eq!(numbers(&network[3].leave()), [5]);
    assert_eq!(network[3].state().standing, Standing::Leaving);
}

#[test]
fn a_node_that_was_started_again_is_followed_only_after_it_has_joined() {
    let mut member = member();
    let unborn = ChordNode::new(contact(8), 3).state();
    assert_eq!(member.answered(&unborn), Next::Ask(contact(10)));
    assert_eq!(numbers(member.successors()), [10, 12]);
    let _ = member.notified(&state(8, Some(5), &[10, 12]));
    assert_eq!(numbers(member.successors()), [8, 10, 12]);
}

#[test]
fn a_node_at_a_new_address_keeps_its_place_and_the_silence_of_the_old_one_does_not_count() {
    let mut member = member();
    let _ = member.answered(&State { node: moved(10), ..state(10, Some(8), &[12]) });
    let _ = member.answered(&State { node: moved(3), ..state(3, Some(1), &[5]) });
    assert_eq!(member.successors(), [contact(8), moved(10), contact(12)]);
    assert_eq!(member.predecessor(), Some(&moved(3)));
    let before = member.clone();
    assert_eq!((member.dead(&contact(10)), member.dead(&contact(3))), (Next::Rest, Next::Rest));
    assert_eq!(member, before);
}

#[test]
fn only_a_node_before_the_closest_successor_is_considered() {
    let mut member = member();
    assert!(member.consider(&contact(7)));
    for number in [5, 8, 9, 3] {
        assert!(!member.consider(&contact(number)), "{number}");
    }
    for number in [8, 10, 12, 3] {
        let _ = member.dead(&contact(number));
    }
    assert!(member.consider(&contact(9)));
    assert!(!member.consider(&contact(5)));
    assert!(!ChordNode::new(contact(5), 3).consider(&contact(9)));
}

#[test]
fn a_list_is_as_long_as_it_may_be() {
    let mut member = member();
    member.set_max_successors(2);
    assert_eq!(numbers(member.successors()), [8, 10]);
    member.set_max_successors(4);
    let _ = member.answered(&state(8, Some(5), &[10, 12, 15, 1]));
    assert_eq!(numbers(member.successors()), [8, 10, 12, 15]);
    member.set_max_successors(0);
    assert_eq!(numbers(member.successors()), [8]);
}

#[test]
fn one_hint_joins_two_rings() {
    let mut network = Network::ring([0, 4, 8], 2);
    network.absorb(Network::ring([2, 6, 10], 2));
    let candidate = contact(2);
    assert!(network[0].consider(&candidate));
    network.follow(0, Next::Ask(candidate));
    assert!(network.settle(Seeds::NoneIsKnown));
    assert_eq!(network.shape(), network.one_ring());
}
