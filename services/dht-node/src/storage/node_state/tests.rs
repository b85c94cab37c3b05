use proptest::prelude::*;

use super::*;
use crate::counters::is_credible;

fn node(number: u128) -> Contact {
    let id = NodeId::new(Uuid::from_u128(number));
    let address = format!("10.0.0.{number}:7071").parse().expect("an address");
    Contact { position: Position::of_node(id, 0), id, address }
}

fn set(epoch: u64) -> ReplicaSet {
    ReplicaSet { lineage: Lineage(Uuid::nil()), epoch, members: vec![node(1), node(2)] }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: node(1).id }
}

fn range() -> KeyRange {
    KeyRange { after: node(2).position, last: node(1).position }
}

/// Everything that a node can know of a range.
fn configuration() -> Configuration {
    Configuration {
        present: set(3),
        promised: Some(ballot(7)),
        accepted: Some(Proposal { ballot: ballot(6), next: set(4) }),
        displaced: Some(set(2)),
        supplied: true,
    }
}

fn configurations_of(configuration: &Configuration) -> Configurations {
    let mut configurations = Configurations::new(node(1).id);
    configurations.restore(range(), configuration);
    configurations
}

fn read(bytes: &[u8]) -> Option<Configurations> {
    parse_configurations(bytes, node(1).id)
}

#[test]
fn a_row_is_read_as_it_was_written() {
    let configurations = configurations_of(&configuration());
    assert_eq!(read(&encode_configurations(&configurations)), Some(configurations));
    let nodes = [node(1), node(2)];
    assert_eq!(parse_nodes(&encode_nodes(&nodes)), nodes.map(|node| node.address));
}

/// As written before rows named their format.
#[test]
fn rows_without_a_format_are_read() {
    let custody = include_bytes!("../../../tests/fixtures/rows-without-format/custody");
    assert_eq!(read(custody), Some(configurations_of(&configuration())));
    let contacts = include_bytes!("../../../tests/fixtures/rows-without-format/contacts");
    assert_eq!(parse_nodes(contacts), [node(1), node(2)].map(|node| node.address));
    // Earlier versions skip the format, and read the rest.
    assert!(encode_configurations(&configurations_of(&configuration())).starts_with(custody));
    assert!(encode_nodes(&[node(1), node(2)]).starts_with(contacts));
}

#[test]
fn a_row_of_a_later_format_or_without_members_is_not_read() {
    let known =
        StoredConfigurations::decode(&*encode_configurations(&configurations_of(&configuration())));
    let known = known.expect("it was encoded");
    let later = StoredConfigurations { format: FORMAT + 1, ..known.clone() };
    assert_eq!(read(&later.encode_to_vec()), None);
    let mut nobody = known;
    let present =
        nobody.configurations[0].present.as_mut().and_then(|present| present.set.as_mut());
    present.expect("there is one").members.clear();
    assert_eq!(read(&nobody.encode_to_vec()), None);
}

proptest! {
    /// Whatever an earlier version has stored, there is a next epoch and a next round.
    #[test]
    fn no_row_on_the_disk_disables_a_range(
        epoch: u64,
        promised: u64,
        round: u64,
        next: u64,
        displaced: u64,
    ) {
        let kept = Configuration {
            present: set(epoch),
            promised: Some(ballot(promised)),
            accepted: Some(Proposal { ballot: ballot(round), next: set(next) }),
            displaced: Some(set(displaced)),
            supplied: true,
        };
        let read = read(&encode_configurations(&configurations_of(&kept))).expect("it is read");
        let known = read.at(node(1).position).expect("it is known");
        let (ballot, accepted) = (known.promised.expect("a promise"), known.accepted.as_ref());
        let accepted = accepted.expect("a proposal");
        for count in [
            known.present.epoch,
            ballot.round,
            accepted.ballot.round,
            accepted.next.epoch,
            known.displaced.as_ref().expect("a set").epoch,
        ] {
            prop_assert!(is_credible(count + 1));
        }
        if is_credible(epoch) {
            prop_assert_eq!(known.present.epoch, epoch);
        }
    }

    #[test]
    fn no_row_reaches_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (read(&bytes), parse_nodes(&bytes));
    }
}
