//! The textbook's ring of 4 bits (Kurose and Ross, "Computer Networking", section 2.6 of the sixth
//! edition): nodes 1, 3, 4, 5, 8, 10, 12 and 15, each of which knows its first and second successor.

use super::network::{Network, numbers};

fn textbook() -> Network {
    Network::ring([1, 15, 3, 12, 4, 10, 5, 8], 2)
}

#[test]
fn nodes_that_join_in_any_order_become_one_ring() {
    let network = textbook();
    assert_eq!(network.members(), [1, 3, 4, 5, 8, 10, 12, 15]);
    assert_eq!(network.shape(), network.one_ring());
    assert_eq!(network.shape()[&12], (Some(10), vec![15, 1]));
}

#[test]
fn a_key_lives_at_its_closest_successor() {
    let mut network = textbook();
    assert_eq!(network.owner(11), Some(12));
    assert_eq!(network.owner(15), Some(15));
    network.leave(15);
    for key in [13, 14, 15, 0, 1] {
        assert_eq!(network.owner(key), Some(1), "{key}");
    }
}

#[test]
fn when_5_leaves_4_takes_8_and_10_for_its_successors() {
    let mut network = textbook();
    network.leave(5);
    assert_eq!(network.shape()[&4], (Some(3), vec![8, 10]));
    assert_eq!(network.shape()[&8].0, Some(4));
    assert_eq!(network.shape()[&3].1, [4, 5]);
    network.stabilise(3);
    assert_eq!(network.shape()[&3].1, [4, 8]);
    assert_eq!(network.shape(), network.one_ring());
}

#[test]
fn when_5_dies_4_finds_out_and_takes_8_and_10_for_its_successors() {
    let mut network = textbook();
    network.fail(5);
    network.stabilise(4);
    assert_eq!(network.shape()[&4], (Some(3), vec![8, 10]));
    assert_eq!(network.shape()[&8].0, Some(4));
    network.stabilise(3);
    assert_eq!(network.shape(), network.one_ring());
}

#[test]
fn when_13_joins_by_asking_1_it_ends_between_12_and_15_and_both_learn_of_it() {
    let mut network = textbook();
    let told = network.join_silently(13, 1);
    assert_eq!(numbers(&told), [15, 12]);
    assert_eq!(network.shape()[&13], (Some(12), vec![15, 1]));
    for neighbour in told {
        network.notify(13, &neighbour);
    }
    assert_eq!(network.shape()[&12].1, [13, 15]);
    assert_eq!(network.shape()[&15].0, Some(13));
    network.stabilise(10);
    assert_eq!(network.shape(), network.one_ring());
}

#[test]
fn when_13_tells_nobody_its_own_stabilising_and_12s_make_it_known() {
    let mut network = textbook();
    network.join_silently(13, 1);
    network.stabilise(13);
    assert_eq!(network.shape()[&15].0, Some(13));
    network.stabilise(12);
    network.stabilise(10);
    assert_eq!(network.shape(), network.one_ring());
}
