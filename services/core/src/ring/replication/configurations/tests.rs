//! The promises and sets of one node, message by message.

use uuid::Uuid;

use super::*;
use crate::ring::{
    Lineage, proposals,
    testing::{four, node},
};

fn range(after: u128, last: u128) -> KeyRange {
    KeyRange { after: four(after), last: four(last) }
}

fn id(number: u128) -> NodeId {
    node(number).id
}

fn set(epoch: u64, members: &[u128]) -> ReplicaSet {
    let members = members.iter().map(|member| node(*member)).collect();
    ReplicaSet { lineage: Lineage(Uuid::nil()), epoch, members }
}

fn ballot(round: u64, number: u128) -> Ballot {
    Ballot { round, node: id(number) }
}

fn knowing(range: KeyRange, set: &ReplicaSet) -> Configurations {
    let mut configurations = Configurations::new(id(5));
    assert_eq!(configurations.learn(range, set), []);
    configurations
}

#[test]
fn a_later_set_goes_before_an_earlier_one_and_says_so() {
    let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
    let mut configurations = knowing(range(1, 5), &first);
    assert_eq!(configurations.learn(range(1, 4), &second), []);
    assert_eq!(configurations.learn(range(1, 5), &first), [(range(1, 4), second.clone())]);
    assert_eq!(configurations.at(four(4)).map(|known| &known.present), Some(&second));
    assert_eq!(configurations.at(four(5)).map(|known| &known.present), Some(&first));
}

#[test]
fn the_older_lineage_goes_before_the_younger_one_whatever_the_epochs() {
    let young = ReplicaSet { lineage: Lineage(Uuid::max()), ..set(9, &[1, 5]) };
    let mut configurations = knowing(range(0, 0), &young);
    assert_eq!(configurations.learn(range(0, 0), &set(1, &[2])), []);
    assert_eq!(configurations.learn(range(0, 0), &young), [(range(0, 0), set(1, &[2]))]);
    let displaced = |configurations: &Configurations| configurations.at(four(3))?.displaced.clone();
    assert_eq!(displaced(&configurations), Some(young));
}

#[test]
fn records_of_a_younger_lineage_are_kept_until_they_are_handed_in() {
    let founded = |founding, members: &[u128]| ReplicaSet {
        lineage: Lineage(Uuid::from_u128(founding)),
        ..set(1, members)
    };
    let (oldest, middle, youngest) = (founded(1, &[1]), founded(2, &[2]), founded(3, &[5]));
    let mut configurations = knowing(range(0, 0), &youngest);
    configurations.learn(range(0, 0), &middle);
    configurations.learn(range(0, 0), &oldest);
    let ballot = ballot(1, 1);
    assert_eq!(configurations.discardable(range(0, 0)), []);
    assert_eq!(configurations.supply(range(1, 5), &oldest, ballot), Err(Refusal::Unmerged));
    configurations.merged(range(1, 5), &oldest);
    assert_eq!(configurations.discardable(range(0, 0)), [range(1, 5)]);
    assert_eq!(configurations.supply(range(1, 5), &oldest, ballot), Ok(vec![range(1, 5)]));
    assert_eq!(configurations.discardable(range(0, 0)), [], "what was handed in is kept");
    let late = Ballot { round: 0, ..ballot };
    assert_eq!(configurations.supply(range(1, 5), &oldest, late), Err(Refusal::Outbid(ballot)));
    configurations.learn(range(1, 5), &ReplicaSet { epoch: 2, ..oldest });
    assert_eq!(configurations.discardable(range(0, 0)), [range(1, 5)], "somebody else was chosen");
}

#[test]
fn a_member_that_promised_refuses_writes_until_it_knows_the_next_set() {
    let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
    let mut configurations = knowing(range(1, 5), &first);
    let whole = range(1, 5);
    assert_eq!(configurations.write(four(3), whole, &first), Ok(()));
    assert_eq!(configurations.prepare(range(1, 4), &first, ballot(1, 4)), Ok(vec![]));
    assert_eq!(configurations.write(four(3), whole, &first), Err(WriteRefusal::Sealed));
    assert_eq!(configurations.write(four(5), whole, &first), Ok(()), "the rest is not sealed");
    assert_eq!(
        configurations.write(four(3), range(1, 4), &second),
        Ok(()),
        "a write tells of a set"
    );
    let newer = vec![(range(1, 4), second)];
    assert_eq!(configurations.write(four(3), whole, &first), Err(WriteRefusal::Superseded(newer)));
}

#[test]
fn a_lower_ballot_is_refused_after_a_higher_one() {
    let first = set(1, &[5, 8, 10]);
    let mut configurations = knowing(range(1, 5), &first);
    assert_eq!(configurations.prepare(range(3, 5), &first, ballot(2, 8)), Ok(vec![]));
    let outbid = Err(Refusal::Outbid(ballot(2, 8)));
    assert_eq!(configurations.prepare(range(1, 5), &first, ballot(1, 4)), outbid);
    let low = Proposal { ballot: ballot(1, 4), next: set(2, &[4, 5, 8]) };
    assert!(configurations.accept(range(1, 5), &first, &low).is_err());
    assert_eq!(configurations.at(four(2)).and_then(|known| known.promised), None);
}

/// Ranges of 2^118 positions each, 1,024 in all.
fn sliver(number: u128) -> KeyRange {
    let at = |number: u128| Position::from_u128((number << 118).wrapping_sub(1));
    KeyRange { after: at(number), last: at(number + 1) }
}

#[test]
fn promised_ranges_beyond_the_limit_count_as_lost() {
    let own = sliver(0);
    let first = set(1, &[5, 8, 10]);
    let mut configurations = knowing(own, &first);
    // Every other one, and each part of a known range.
    for number in 1..1024 {
        configurations.learn(sliver(number), &set(number as u64 % 2 + 2, &[5, 8, 10]));
    }
    let full = configurations.ranges.count();
    assert!(full <= Configurations::MAX_RANGES && full > Configurations::MAX_RANGES - 4, "{full}");
    let middle = |range: KeyRange| {
        let half = |at: Position| Position::from_u128(at.to_u128().wrapping_add(1 << 110));
        KeyRange { after: half(range.after), last: half(half(range.after)) }
    };
    for number in 0..1023 {
        let part = middle(sliver(number));
        configurations.learn(part, &set(9, &[5, 8, 10]));
        let known = configurations.at(part.last).expect("it is known").present.clone();
        assert!(configurations.prepare(part, &known, ballot(1, 8)).is_err() || known.epoch == 9);
        assert!(configurations.supply(part, &known, ballot(1, 8)).is_err() || known.epoch == 9);
        assert!(configurations.ranges.count() <= Configurations::MAX_RANGES);
    }
    assert_eq!(
        configurations.prepare(middle(own), &first, ballot(1, 8)),
        Err(Refusal::TooManyRanges)
    );
    let write = configurations.write(middle(own).last, middle(own), &set(2, &[5, 8, 10]));
    assert_eq!(write, Err(WriteRefusal::TooManyRanges));
    // What makes no more of them continues.
    assert_eq!(configurations.write(own.last, own, &first), Ok(()));
    assert_eq!(configurations.prepare(own, &first, ballot(1, 8)), Ok(vec![]));
    let proposal = Proposal { ballot: ballot(1, 8), next: set(2, &[5, 8]) };
    assert_eq!(configurations.accept(own, &first, &proposal), Ok(()));
    assert_eq!(configurations.learn(own, &set(2, &[5, 8])), []);
    assert_eq!(configurations.write(own.last, own, &set(2, &[5, 8])), Ok(()));
    assert_eq!(configurations.learn(KeyRange::whole(own.last), &set(20, &[5, 8])), []);
    assert_eq!(
        configurations.ranges.count(),
        1,
        "one message about the whole circle leaves one range"
    );
}

#[test]
fn a_value_that_may_have_been_chosen_is_proposed_again() {
    let (first, wanted) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
    let (earlier, later) = (set(2, &[8, 10, 12]), set(2, &[10, 12, 15]));
    let mut configurations = knowing(range(1, 5), &first);
    let proposal = Proposal { ballot: ballot(2, 8), next: later.clone() };
    assert_eq!(configurations.accept(range(2, 4), &first, &proposal), Ok(()));
    let accepted = configurations.prepare(range(1, 5), &first, ballot(3, 4)).expect("it is higher");
    assert_eq!(accepted, [(range(2, 4), proposal)]);
    let other = Proposal { ballot: ballot(1, 10), next: earlier };
    let accepted = accepted.into_iter().chain([(range(2, 3), other)]);
    assert_eq!(
        proposals(range(1, 5), accepted, &wanted),
        [(range(1, 2), wanted.clone()), (range(2, 4), later), (range(4, 5), wanted)]
    );
}

#[test]
fn a_member_that_missed_the_last_choice_learns_it_when_asked_for_the_next() {
    let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
    let mut configurations = knowing(range(1, 5), &first);
    assert_eq!(configurations.prepare(range(1, 4), &second, ballot(1, 3)), Ok(vec![]));
    let newer = vec![(range(1, 4), second)];
    assert_eq!(
        configurations.prepare(range(1, 5), &first, ballot(9, 8)),
        Err(Refusal::Superseded(newer))
    );
}
