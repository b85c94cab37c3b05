//! Short histories that break Chord as it was published, step by step.

use super::network::{Network, Seeds, contact};

#[test]
fn a_ring_of_which_three_die_while_two_join_becomes_one_ring() {
    let mut network = Network::ring([0, 1, 2], 2);
    network.fail(0);
    network.stabilise(2);
    network.fail(1);
    network.join_silently(3, 2);
    network.stabilise(3);
    network.join_silently(1, 3);
    network.stabilise(1);
    network.fail(2);
    assert!(network.settle(Seeds::NoneIsKnown));
    assert_eq!(network.members(), [1, 3]);
    assert_eq!(network.shape(), network.one_ring());
}

#[test]
fn a_ring_all_of_whose_first_nodes_leave_becomes_one_ring_of_the_joiners() {
    for depart in [Network::leave, Network::fail] {
        let mut network = Network::ring([0, 1, 2], 2);
        network.join_silently(3, 2);
        network.stabilise(3);
        network.notify(3, &contact(2));
        depart(&mut network, 0);
        depart(&mut network, 1);
        network.join_silently(0, 3);
        depart(&mut network, 2);
        assert!(network.settle(Seeds::NoneIsKnown));
        assert_eq!(network.members(), [0, 3]);
        assert_eq!(network.shape(), network.one_ring());
    }
}

/// Two nodes joined one after the other; their predecessor and all successors that they took over
/// from it die before anybody else hears of them.
fn torn_apart() -> Network {
    let mut network = Network::ring([0, 6, 8, 10, 12], 2);
    network.join_silently(2, 0);
    network.join_silently(4, 2);
    for number in [0, 6, 8] {
        network.fail(number);
    }
    network
}

#[test]
fn joiners_unknown_to_others_form_a_ring_of_their_own() {
    let mut network = torn_apart();
    assert!(network.settle(Seeds::NoneIsKnown));
    let pair = |other: u8| (Some(other), vec![other]);
    let shape = [(2, pair(4)), (4, pair(2)), (10, pair(12)), (12, pair(10))];
    assert_eq!(network.shape(), shape.into());
}

#[test]
fn a_probe_joins_two_rings() {
    let mut network = torn_apart();
    assert!(network.settle(Seeds::OneIsKnown));
    assert_eq!(network.shape(), network.one_ring());
}
