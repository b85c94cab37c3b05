//! Whatever credible counts others send, nothing overflows, and nothing is disabled.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use crate::{
    address::address,
    ring::{
        Ballot, Configurations, Contact, Entry, Introducer, KeyRange, Life, Lineage, Membership,
        NodeId, Position, Proposal, Refusal, ReplicaSet, Stamp, Version, proposals, testing::epoch,
    },
};

/// The highest credible count. Few follow from it while a test lasts: none overflows.
const HIGHEST: u64 = u64::MAX / 2;
const WHOLE: KeyRange = KeyRange::whole(Position::from_u128(0));

fn node(number: u128) -> Contact {
    let id = NodeId::new(Uuid::from_u128(number));
    Contact { position: Position::from_u128(number << 100), id, address: address("10.0.0.1:1") }
}

/// Counts of a real ring, and invented ones.
fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![0..5_u64, 0..=HIGHEST, HIGHEST - 3..=HIGHEST]
}

fn set(founding: u128, epoch: u64) -> ReplicaSet {
    let lineage = Lineage(Uuid::from_u128(founding));
    ReplicaSet { lineage, epoch, members: (1..=3).map(node).collect() }
}

/// A message about a range that anybody may send to a node.
#[derive(Clone, Debug)]
enum Word {
    Learn(ReplicaSet),
    Prepare(ReplicaSet, Ballot),
    Accept(ReplicaSet, Proposal),
    Supply(ReplicaSet, Ballot),
}

fn words() -> impl Strategy<Value = (usize, Word)> {
    let sets = || (1..3_u128, counts()).prop_map(|(founding, epoch)| set(founding, epoch));
    let ballots = || {
        (counts(), 1..5_u128).prop_map(|(round, number)| Ballot { round, node: node(number).id })
    };
    let word = prop_oneof![
        sets().prop_map(Word::Learn),
        (sets(), ballots()).prop_map(|(set, ballot)| Word::Prepare(set, ballot)),
        (sets(), ballots(), sets())
            .prop_map(|(set, ballot, next)| Word::Accept(set, Proposal { ballot, next })),
        (sets(), ballots()).prop_map(|(set, ballot)| Word::Supply(set, ballot)),
    ];
    (0..3_usize, word)
}

fn say(configurations: &mut Configurations, word: Word) {
    match word {
        Word::Learn(set) => drop(configurations.learn(WHOLE, &set)),
        Word::Prepare(set, ballot) => drop(configurations.prepare(WHOLE, &set, ballot)),
        Word::Accept(set, proposal) => drop(configurations.accept(WHOLE, &set, &proposal)),
        Word::Supply(set, ballot) => drop(configurations.supply(WHOLE, &set, ballot)),
    }
}

/// One attempt of the first node to have the next set chosen, as services make it.
fn attempt(nodes: &mut [Configurations; 3], round: &mut u64) -> Result<ReplicaSet, Refusal> {
    let known = nodes[0].at(Position::from_u128(0)).expect("the set is known");
    let present = known.present.clone();
    *round = round.checked_add(1).expect("there is a next round");
    let ballot = Ballot { round: *round, node: node(1).id };
    let next = present.epoch.checked_add(1).expect("there is a next epoch");
    let wanted = ReplicaSet { epoch: next, ..present.clone() };
    let mut accepted = Vec::new();
    for configurations in nodes.iter_mut() {
        accepted.extend(configurations.prepare(WHOLE, &present, ballot)?);
    }
    let accepted = accepted.into_iter().filter(|(_, it)| it.next.comes_after(&present));
    let chosen = proposals(WHOLE, accepted, &wanted).remove(0).1;
    for configurations in nodes.iter_mut() {
        configurations.accept(WHOLE, &present, &Proposal { ballot, next: chosen.clone() })?;
    }
    for configurations in nodes.iter_mut() {
        configurations.learn(WHOLE, &chosen);
    }
    Ok(chosen)
}

proptest! {
    /// Three nodes keep a range, and anybody sends them anything.
    #[test]
    fn no_credible_count_makes_a_range_unusable(words in vec(words(), 0..30)) {
        let mut nodes = [1, 2, 3].map(|number| Configurations::new(node(number).id));
        for configurations in &mut nodes {
            configurations.learn(WHOLE, &set(2, 1));
        }
        for (to, word) in words {
            say(&mut nodes[to], word);
        }
        let mut round = 0;
        let mut chosen = None;
        for _ in 0..12 {
            match attempt(&mut nodes, &mut round) {
                Ok(set) => chosen = Some(set),
                Err(Refusal::Outbid(ballot)) => round = round.max(ballot.round),
                Err(Refusal::Superseded(by)) => {
                    for (range, set) in by {
                        nodes[0].learn(range, &set);
                    }
                }
                Err(refusal) => prop_assert!(false, "{refusal}"),
            }
        }
        let chosen = chosen.expect("a next set is chosen");
        for configurations in &mut nodes {
            let taken = configurations.write(Position::from_u128(0), WHOLE, &chosen);
            prop_assert_eq!(taken, Ok(()));
        }
    }

    /// Whatever others report about a node, it refutes itself.
    #[test]
    fn every_credible_report_is_refuted_by_the_node_itself(
        own in counts(),
        reports in vec((counts(), 0..3_usize, any::<bool>()), 1..20),
    ) {
        let now = epoch();
        let kept = Duration::from_secs(3600);
        let (me, other) = (node(1), node(2));
        let source = Introducer::of_address(&address("10.0.0.9:1"));
        let mut mine = Membership::new(me.clone(), own, kept, now);
        let mut theirs = Membership::new(other, 1, kept, now);
        for (incarnation, life, elsewhere) in reports {
            let address = if elsewhere { address("192.0.2.1:9") } else { me.address.clone() };
            let contact = Contact { address, ..me.clone() };
            let life = [Life::Alive, Life::Dead, Life::Left][life];
            theirs.heard(now, &source, &[Entry { contact, incarnation, life }]);
        }
        let told = theirs.entry(me.position).cloned();
        mine.heard(now, &source, &told.into_iter().collect::<Vec<_>>());
        let refuted = mine.own().cloned().expect("it speaks of itself");
        theirs.heard(now, &source, &[refuted]);
        let believed = theirs.entry(me.position).expect("it is heard of");
        prop_assert_eq!((&believed.contact, believed.life), (&me, Life::Alive));
        mine.leave(now);
        theirs.heard(now, &source, &[mine.own().cloned().expect("it speaks of itself")]);
        prop_assert_eq!(theirs.entry(me.position).map(|entry| entry.life), Some(Life::Left));
    }

    /// Epochs of versions are taken as they are: nothing is ever added to them.
    #[test]
    fn a_version_with_any_epoch_has_a_later_one(
        version in (any::<u64>(), 0..1_u64 << 60, any::<u32>(), any::<u128>()),
        written_again: u64,
        set_epoch: u64,
        now_ms in 0..1_u64 << 60,
    ) {
        let (epoch, wall_ms, counter, number) = version;
        let id = NodeId::new(Uuid::from_u128(number));
        let mut above = Stamp::of(Version { epoch, wall_ms, counter, node: id });
        above.epoch = above.epoch.max(written_again);
        let next = Stamp::of(Version::next(node(1).id, now_ms, set_epoch, Some(above)));
        prop_assert!(next > above);
        let after = Version::next(node(1).id, now_ms, set_epoch, Some(next));
        prop_assert!(Stamp::of(after) > next);
    }
}
