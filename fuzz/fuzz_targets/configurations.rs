//! A node's configurations under any sequence of requests and answers of other nodes.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use shoal_common::fuzzing::Receiver;
use shoal_core::ring::{Configuration, Configurations, Version};
use shoal_dht_node::fuzzing::{
    ANSWERED, ASKED, Asked, asked, is_answer, keep_configurations, kept_configurations,
};
use shoal_fuzz::{
    receive,
    ring::{Ballot, ME, NODES, Range, Set, contact, id},
};
use shoal_proto::dht::v1 as pb;

#[derive(Arbitrary, Debug)]
enum Step {
    Ask { range: Range, set: Set, ask: Ask },
    AskBytes { method: u8, bytes: Vec<u8> },
    AnswerBytes { method: u8, bytes: Vec<u8>, range: Range },
    Merged { range: Range, set: Set },
    Restart,
}

#[derive(Arbitrary, Debug)]
enum Ask {
    Prepare(Ballot),
    Accept(Ballot, Set),
    Learn,
    Replicate(Vec<u8>),
    Supply(Option<Ballot>, Vec<u8>),
}

fuzz_target!(|steps: Vec<Step>| {
    let mut configurations = Configurations::new(id(ME));
    for step in steps {
        let before = configurations.clone();
        take(&mut configurations, step);
        for place in (0..NODES).map(|number| contact(number).position) {
            check(before.at(place), configurations.at(place));
        }
    }
});

fn take(configurations: &mut Configurations, step: Step) {
    match step {
        Step::Ask { range, set, ask } => {
            let (method, request) = request(range, &set, ask);
            answer(configurations, method, &request);
        }
        Step::AskBytes { method, bytes } => {
            answer(configurations, ASKED[usize::from(method) % ASKED.len()], &bytes);
        }
        Step::AnswerBytes { method, bytes, range } => {
            let method = ANSWERED[usize::from(method) % ANSWERED.len()];
            let parse = |message| Some(is_answer(method, message, range.range(), &[]));
            receive(&path(method), Receiver::Client, &bytes, parse);
        }
        Step::Merged { range, set } => {
            let request = pb::LearnRequest { chosen: set.of(range) };
            if let Some(Asked::Learn(range, set)) = parse("Learn", &request.encode_to_vec()) {
                configurations.merged(range, &set);
            }
        }
        Step::Restart => {
            let kept = kept_configurations(&keep_configurations(configurations), id(ME));
            assert_eq!(kept.as_ref(), Some(&*configurations), "configurations change on disk");
        }
    }
}

fn path(method: &str) -> String {
    format!("/shoal.dht.v1.ReplicaService/{method}")
}

fn parse(method: &str, request: &[u8]) -> Option<Asked> {
    receive(&path(method), Receiver::Server, request, |message| asked(method, message))
}

fn request(range: Range, set: &Set, ask: Ask) -> (&'static str, Vec<u8>) {
    let present = set.of(range);
    match ask {
        Ask::Prepare(ballot) => {
            let request =
                pb::PrepareRequest { present, ballot: ballot.message(), primary_agrees: true };
            ("Prepare", request.encode_to_vec())
        }
        Ask::Accept(ballot, next) => {
            let proposal = pb::Proposal { ballot: ballot.message(), replica_set: next.message() };
            let request = pb::AcceptRequest { present, proposal: Some(proposal) };
            ("Accept", request.encode_to_vec())
        }
        Ask::Learn => ("Learn", pb::LearnRequest { chosen: present }.encode_to_vec()),
        Ask::Replicate(keys) => {
            let request = pb::ReplicateRequest { present, records: records(&keys) };
            ("Replicate", request.encode_to_vec())
        }
        Ask::Supply(ballot, keys) => {
            let ballot = ballot.and_then(Ballot::message);
            let request = pb::SupplyRequest { present, ballot, records: records(&keys) };
            ("Supply", request.encode_to_vec())
        }
    }
}

fn records(keys: &[u8]) -> Vec<pb::Record> {
    let version = Version { epoch: 1, wall_ms: 1, counter: 0, node: id(1) }.to_string();
    let record = |key: &u8| pb::Record {
        key: vec![*key].into(),
        version: version.clone(),
        ..Default::default()
    };
    keys.iter().map(record).collect()
}

/// Handles a request as the local replica does.
fn answer(configurations: &mut Configurations, method: &str, request: &[u8]) {
    match parse(method, request) {
        None => {}
        Some(Asked::Prepare(range, present, ballot)) => {
            let _ = configurations.prepare(range, &present, ballot);
        }
        Some(Asked::Accept(range, present, proposal)) => {
            let _ = configurations.accept(range, &present, &proposal);
        }
        Some(Asked::Learn(range, chosen)) => drop(configurations.learn(range, &chosen)),
        Some(Asked::Replicate(range, set, records)) => {
            for position in records.iter().map(|record| record.key.position()) {
                if !range.contains(position) || configurations.write(position, range, &set).is_err()
                {
                    continue;
                }
                let known = configurations.at(position).expect("a written range has a set");
                assert!(
                    !known.is_sealed() && set.holds(id(ME)),
                    "it accepted a write that it must refuse"
                );
                assert_eq!(known.present.epoch, set.epoch);
            }
        }
        Some(Asked::Supply(range, present, ballot, _)) => {
            drop(match ballot {
                Some(ballot) => configurations.supply(range, &present, ballot),
                None => configurations.copy(range, &present),
            });
        }
    }
}

/// A set is replaced only by a later one; promises are kept until then.
fn check(before: Option<&Configuration>, after: Option<&Configuration>) {
    let Some(after) = after else { return assert!(before.is_none(), "a set is forgotten") };
    if let Some(accepted) = &after.accepted {
        assert!(accepted.next.comes_after(&after.present));
        assert!(after.promised.is_some_and(|promised| promised >= accepted.ballot));
    }
    let Some(before) = before else { return };
    if before.present != after.present {
        return assert!(after.present.supersedes(&before.present), "an earlier set has returned");
    }
    let ballot = |known: &Configuration| known.accepted.as_ref().map(|accepted| accepted.ballot);
    assert!(after.promised >= before.promised, "a promise is broken");
    assert!(ballot(after) >= ballot(before), "an accepted ballot is forgotten");
}
