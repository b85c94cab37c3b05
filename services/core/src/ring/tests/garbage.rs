//! Whatever others send, a node's successor list stays in order.

use proptest::{collection::vec, option, prelude::*};

use super::network::{contact, position};
use crate::{
    address::address,
    ring::{ChordNode, Contact, Next, Standing, State},
};

/// What happens to a node.
#[derive(Clone, Debug)]
enum Event {
    Join(State),
    Answered(State),
    Notified(State),
    Dead(Contact),
    SetMax(usize),
    Found,
    Leave,
}

fn contacts() -> impl Strategy<Value = Contact> {
    (0..16u8, 0..3u8).prop_map(|(number, host)| Contact {
        address: address(&format!("host{host}:7073")),
        ..contact(number)
    })
}

fn states() -> impl Strategy<Value = State> {
    let standing = prop_oneof![
        1 => Just(Standing::Joining),
        8 => Just(Standing::Member),
        2 => Just(Standing::Leaving)
    ];
    (contacts(), standing, option::of(contacts()), vec(contacts(), 0..6)).prop_map(
        |(node, standing, predecessor, successors)| State {
            node,
            standing,
            predecessor,
            successors,
        },
    )
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => states().prop_map(Event::Join),
        8 => states().prop_map(Event::Answered),
        8 => states().prop_map(Event::Notified),
        4 => contacts().prop_map(Event::Dead),
        1 => (0..5usize).prop_map(Event::SetMax),
        2 => Just(Event::Found),
        1 => Just(Event::Leave),
    ]
}

fn handle(member: &mut ChordNode, event: &Event) -> Next {
    match event {
        Event::Join(state) => {
            let before = member.clone();
            if member.join(state).is_err() {
                assert_eq!(*member, before, "who could not join has learnt nothing");
            }
        }
        Event::Answered(state) => return member.answered(state),
        Event::Notified(state) => return member.notified(state),
        Event::Dead(node) => return member.dead(node),
        Event::SetMax(max) => member.set_max_successors(*max),
        Event::Found => member.found(),
        Event::Leave => drop(member.leave()),
    }
    Next::Rest
}

proptest! {
    #[test]
    fn no_node_can_disorder_anothers_list(
        me in 0..16u8,
        max in 0..5usize,
        events in vec(events(), 1..40),
    ) {
        let mut member = ChordNode::new(contact(me), max);
        let mut max = max.max(1);
        for event in events {
            let next = handle(&mut member, &event);
            if let Event::SetMax(set) = event {
                max = set.max(1);
            }
            let distances: Vec<_> = member
                .successors()
                .iter()
                .map(|node| position(me).distance_to(node.position))
                .collect();
            prop_assert!(!distances.contains(&0), "{member:?} holds itself");
            prop_assert!(distances.is_sorted_by(|a, b| a < b), "{member:?} is out of order");
            prop_assert!(distances.len() <= max, "{member:?} holds more than {max}");
            prop_assert!(member.predecessor().is_none_or(|node| node.position != position(me)));
            if let Next::Ask(node) | Next::Notify(node) = next {
                prop_assert_ne!(node.position, position(me), "it talks to itself");
            }
        }
    }

    #[test]
    fn a_node_outside_a_ring_learns_nothing(events in vec(events(), 1..20)) {
        let mut member = ChordNode::new(contact(7), 2);
        let unborn = member.clone();
        for event in events {
            if matches!(event, Event::Answered(_) | Event::Notified(_) | Event::Dead(_)) {
                prop_assert_eq!(handle(&mut member, &event), Next::Rest);
            }
        }
        prop_assert_eq!(member, unborn);
    }
}
