//! Which node founds the ring, and when.

use uuid::Uuid;

use super::{
    super::{Input, NodeSettings},
    *,
};
use crate::{
    address::address,
    ring::{NodeId, Position, testing::epoch},
};

/// A node of a small world in which each answers at some addresses.
struct Starter {
    node: Node,
    answers_at: Vec<&'static str>,
    join: Vec<&'static str>,
    starts_after: Duration,
}

/// A node that advertises the first of the addresses at which it answers.
fn starter(number: u128, answers_at: &[&'static str], join: &[&'static str]) -> Starter {
    let id = NodeId::new(Uuid::from_u128(number));
    let me = Contact { position: Position::of_node(id, 0), id, address: address(answers_at[0]) };
    Starter {
        node: Node::new(me, 1, NodeSettings::default(), number as u64, epoch()),
        answers_at: answers_at.to_vec(),
        join: join.to_vec(),
        starts_after: Duration::ZERO,
    }
}

fn seeds(join: &[&'static str]) -> Seeds {
    let founding = if join.is_empty() { Founding::Anyway } else { Founding::Smallest };
    let addresses = join.iter().map(|text| address(text)).collect();
    Seeds { addresses, unresolved: BTreeSet::new(), founding }
}

/// Which of the nodes have founded a ring after so long. They only meet: other questions are lost.
fn founders(starters: &mut [Starter], after: Duration) -> Vec<usize> {
    const STEP: Duration = Duration::from_millis(50);
    let start = epoch();
    for starter in starters.iter_mut() {
        let Contact { id, .. } = starter.node.member.me().clone();
        let me = starter.node.member.me().clone();
        let now = start + starter.starts_after;
        let seed = u64::from(id.as_bytes()[15]);
        starter.node = Node::new(me, 1, NodeSettings::default(), seed, now);
    }
    let mut elapsed = Duration::ZERO;
    while elapsed < after {
        elapsed += STEP;
        for index in 0..starters.len() {
            if starters[index].starts_after >= elapsed {
                continue;
            }
            let now = start + elapsed;
            let mut out = Vec::new();
            let seeds = seeds(&starters[index].join);
            starters[index].node.handle(now, Input::Seeds(seeds), &mut out);
            for output in out {
                let Output::Meet(at) = output else { continue };
                let text = at.to_string();
                let other = starters.iter().find(|other| {
                    other.starts_after < elapsed && other.answers_at.contains(&&*text)
                });
                let met = other.map(|other| other.node.state());
                let input = match met {
                    Some(state) => Input::Met(at, state),
                    None => Input::Unmet(at),
                };
                starters[index].node.handle(now, input, &mut Vec::new());
            }
        }
    }
    let all = starters.iter().enumerate();
    all.filter(|(_, starter)| starter.node.has_founded()).map(|(index, _)| index).collect()
}

const SOON: Duration = Duration::from_secs(12);
const A: &str = "10.0.0.9:7071";
const B: &str = "10.0.0.10:7071";
const C: &str = "10.0.0.11:7071";

#[test]
fn nodes_configured_with_all_others_but_not_themselves_have_one_founder() {
    let mut starters =
        [starter(1, &[C], &[A, B]), starter(2, &[B], &[A, C]), starter(3, &[A], &[B, C])];
    assert_eq!(founders(&mut starters, SOON), [2]);
}

#[test]
fn a_node_that_is_in_its_own_seeds_founds_before_a_smaller_one_that_is_not() {
    let mut starters =
        [starter(1, &[B], &[B, C]), starter(2, &[C], &[B, C]), starter(3, &[A], &[B, C])];
    assert_eq!(founders(&mut starters, SOON), [0]);
}

#[test]
fn a_name_may_stand_for_several_addresses_of_each_node() {
    let all = &["10.0.0.1:1", "10.9.0.1:1", "10.0.0.2:2", "10.9.0.2:2"];
    for answers in [[&all[..2], &all[2..]], [&["10.9.0.1:1", "10.0.0.1:1"], &all[2..]]] {
        let mut starters = [starter(1, answers[0], all), starter(2, answers[1], all)];
        assert_eq!(founders(&mut starters, SOON).len(), 1, "{answers:?}");
    }
}

#[test]
fn an_address_family_without_answers_delays_no_dial() {
    let all = &["127.0.0.1:1", "[::1]:1", "127.0.0.1:2", "[::1]:2"];
    let mut starters = [starter(1, &all[..1], all), starter(2, &all[2..3], all)];
    assert_eq!(founders(&mut starters, Duration::from_secs(6)), [0]);
    let mut starters = [starter(1, &all[1..2], &all[2..]), starter(2, &all[3..], &all[..2])];
    assert_eq!(founders(&mut starters, SOON), [0]);
}

#[test]
fn nodes_that_advertise_one_address_by_mistake_still_have_one_founder() {
    let mut starters = [starter(1, &["a:1", A], &[A, B]), starter(2, &["a:1", B], &[A, B])];
    assert_eq!(founders(&mut starters, SOON).len(), 1);
}

#[test]
fn a_node_with_seeds_that_do_not_answer_founds_no_ring_and_reports_what_it_waits_for() {
    let mut alone = [starter(1, &[A], &[B, C])];
    assert_eq!(founders(&mut alone, Duration::from_secs(60)), [0; 0]);
    let wait = alone[0].node.wait(epoch() + Duration::from_secs(60)).expect("it waits");
    assert_eq!(wait.awaited, Awaited::AnyNode);
    assert_eq!(wait.silent, [B, C].map(address));
    assert!(wait.waited > Duration::from_secs(50), "{wait:?}");
}

#[test]
fn a_node_whose_seeds_start_late_joins_their_ring_rather_than_found_its_own() {
    let mut starters =
        [starter(1, &[A], &[B, C]), starter(2, &[B], &[B, C]), starter(3, &[C], &[B, C])];
    starters[1].starts_after = Duration::from_secs(8);
    starters[2].starts_after = Duration::from_secs(8);
    assert_eq!(founders(&mut starters, Duration::from_secs(25)), [1]);
}

#[test]
fn a_waiting_node_names_what_it_waits_for() {
    let now = epoch();
    let mut node = starter(1, &[B], &[]).node;
    let mut told = |input| {
        node.handle(now, input, &mut Vec::new());
        node.wait(now).map(|wait| wait.awaited)
    };
    assert_eq!(told(Input::Tick), Some(Awaited::Names));
    assert_eq!(told(Input::Seeds(seeds(&[A, B]))), Some(Awaited::AnyNode));
    let smaller = starter(2, &[A], &[]).node.state();
    assert_eq!(told(Input::Met(address(A), smaller.clone())), Some(Awaited::Founder));
    assert_eq!(told(Input::Unmet(address(A))), Some(Awaited::AnyNode));
    let larger = starter(2, &[C], &[]).node.state();
    assert_eq!(told(Input::Met(address(A), larger)), Some(Awaited::OwnTime));
    let member =
        State { standing: Standing::Member, successors: vec![smaller.node.clone()], ..smaller };
    assert_ne!(told(Input::Met(address(A), member)), Some(Awaited::OwnTime));
}
