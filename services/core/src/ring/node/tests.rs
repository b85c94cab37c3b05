//! When a node that does not answer counts as dead.

use super::*;
use crate::ring::{
    Position,
    testing::{epoch, node_at},
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn contact(number: u128) -> Contact {
    node_at(Position::from_u128(number))
}

/// A node in a ring with another one, which its membership knows as well.
fn pair(now: Instant) -> (Node, Contact) {
    let other = contact(2);
    let mut node = Node::new(contact(1), 1, NodeSettings::default(), 1, now);
    let state = State {
        node: other.clone(),
        standing: Standing::Member,
        predecessor: None,
        successors: Vec::new(),
    };
    node.handle(now, Input::Met(other.address.clone(), state), &mut Vec::new());
    assert_eq!(node.state().standing, Standing::Member);
    (node, other)
}

fn is_dead(node: &Node, other: &Contact) -> bool {
    node.membership().entry(other.position).is_some_and(|entry| entry.life == Life::Dead)
}

fn unanswered(node: &Contact, question: Question, asked: Instant) -> Input {
    Input::Unanswered { node: node.clone(), question, asked, why: Silence::NoAnswer }
}

#[test]
fn calls_that_waited_during_one_standstill_count_as_one_silence() {
    let start = epoch();
    let (mut node, other) = pair(start);
    let digest = node.membership().digest().clone();
    for question in [
        Question::State,
        Question::Gossip(Vec::new(), digest),
        Question::Notify(node.state()),
        Question::Probe(node.state()),
    ] {
        node.handle(start + ms(50), unanswered(&other, question, start), &mut Vec::new());
    }
    assert!(!is_dead(&node, &other));
    assert_eq!(node.state().successors, [other]);
}

#[test]
fn a_node_that_stays_silent_is_dead_once_it_was_asked_three_times_in_turn() {
    let start = epoch();
    let (mut node, other) = pair(start);
    for (asked, given_up, is_last) in [(0, 50, false), (50, 150, false), (150, 350, true)] {
        // The second waits beside the first, and its end comes a little later.
        for late in [0, 1] {
            let mut out = Vec::new();
            let silent = unanswered(&other, Question::State, start + ms(asked));
            node.handle(start + ms(given_up + late), silent, &mut out);
            if late == 0 {
                let is_asked_again = out.contains(&Output::Ask(other.clone(), Question::State));
                assert_eq!(is_asked_again, !is_last, "after {given_up} ms");
            }
            assert_eq!(is_dead(&node, &other), is_last, "after {given_up} ms");
        }
    }
    assert!(node.state().successors.is_empty());
}

#[test]
fn a_node_that_answers_in_between_is_not_silent() {
    let start = epoch();
    let (mut node, other) = pair(start);
    for round in 0..10 {
        let asked = start + ms(100 * round);
        node.handle(asked + ms(50), unanswered(&other, Question::State, asked), &mut Vec::new());
        let answered = Input::Answered(other.clone(), Answer::Noticed);
        node.handle(asked + ms(60), answered, &mut Vec::new());
    }
    assert!(!is_dead(&node, &other));
}

#[test]
fn a_refused_connection_means_a_dead_node() {
    let start = epoch();
    let (mut node, other) = pair(start);
    let why = Silence::Refused;
    let refused =
        Input::Unanswered { node: other.clone(), question: Question::State, asked: start, why };
    node.handle(start, refused, &mut Vec::new());
    assert!(is_dead(&node, &other));
}
