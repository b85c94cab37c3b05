//! The ring node's state machine under any sequence of messages, answers, unanswered calls and
//! time.

#![no_main]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use shoal_common::fuzzing::Receiver;
use shoal_core::ring::{
    Founding, Input, Introducer, Life, Membership, MembershipDigest, Node, NodeSettings, Output,
    Seeds, Silence, Standing,
};
use shoal_dht_node::fuzzing::{gossip, notified};
use shoal_fuzz::{
    epoch, receive,
    ring::{ME, Place, Reply, Rumour, State, answered, contact, unanswered},
};
use shoal_proto::dht::v1 as pb;

#[derive(Arbitrary, Debug)]
struct Step {
    milliseconds: u16,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Seeds {
        numbers: Vec<u8>,
        alone: bool,
    },
    Notify(State),
    NotifyBytes(Vec<u8>),
    Gossip {
        rumours: Vec<Rumour>,
        digest: Digest,
    },
    GossipBytes(Vec<u8>),
    /// To one of the waiting calls.
    Answer {
        question: u8,
        reply: Reply,
    },
    AnswerBytes {
        question: u8,
        bytes: Vec<u8>,
    },
    Silence {
        question: u8,
        refused: bool,
    },
    Find(Place),
    Leave,
    Tick,
}

#[derive(Arbitrary, Debug)]
enum Digest {
    None,
    Own,
    Zero,
    Short,
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = epoch();
    let mut node = Node::new(contact(ME), 1, NodeSettings::default(), 1, now);
    let mut waiting = Vec::new();
    for Step { milliseconds, what } in steps {
        now += Duration::from_millis(milliseconds.into());
        if let Some(input) = input(&mut node, now, what, &mut waiting) {
            node.handle(now, input, &mut waiting);
        }
        check(&mut node, &waiting);
        waiting.retain(|output| *output != Output::Changed);
    }
    // Whatever happened, it comes to rest: one tick may found a ring, and the next begins a
    // member's work.
    now = now.max(node.next_deadline());
    node.handle(now, Input::Tick, &mut waiting);
    node.handle(now, Input::Tick, &mut waiting);
    assert!(node.next_deadline() > now, "ticks leave work behind");
});

fn input(node: &mut Node, now: Instant, what: What, waiting: &mut Vec<Output>) -> Option<Input> {
    match what {
        What::Seeds { numbers, alone } => {
            let addresses = numbers.iter().map(|number| contact(*number).address).collect();
            let founding = if alone { Founding::Anyway } else { Founding::Smallest };
            Some(Input::Seeds(Seeds { addresses, unresolved: [].into(), founding }))
        }
        What::Notify(state) => {
            notify(&pb::NotifyRequest { state: state.message() }.encode_to_vec())
        }
        What::NotifyBytes(bytes) => notify(&bytes),
        What::Gossip { rumours, digest } => {
            let rumours = rumours.into_iter().map(Rumour::message).collect();
            let digest = match digest {
                Digest::None => Vec::new(),
                Digest::Own => node.membership().digest().hashes().to_vec(),
                Digest::Zero => vec![0; MembershipDigest::BUCKETS],
                Digest::Short => vec![0; MembershipDigest::BUCKETS - 1],
            };
            hear(node, now, &pb::GossipRequest { rumours, digest }.encode_to_vec())
        }
        What::GossipBytes(bytes) => hear(node, now, &bytes),
        What::Answer { question, reply } => {
            let asked = take(waiting, question)?;
            let response = reply.message(&asked);
            answered(now, asked, &response)
        }
        What::AnswerBytes { question, bytes } => answered(now, take(waiting, question)?, &bytes),
        What::Silence { question, refused } => {
            let why = if refused { Silence::Refused } else { Silence::NoAnswer };
            unanswered(now, take(waiting, question)?, why)
        }
        What::Find(place) => {
            let table = node.routing_table();
            let found = table.find_successor(place.position());
            assert!(!found.owns || found.successors.first() == Some(&table.state.node));
            None
        }
        What::Leave => Some(Input::Leave),
        What::Tick => Some(Input::Tick),
    }
}

/// One of the calls that wait for an answer.
fn take(waiting: &mut Vec<Output>, number: u8) -> Option<Output> {
    let index = usize::from(number).checked_rem(waiting.len())?;
    Some(waiting.swap_remove(index))
}

/// The source of all calls.
const SEEN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn notify(bytes: &[u8]) -> Option<Input> {
    let path = "/shoal.dht.v1.DhtService/Notify";
    let state = receive(path, Receiver::Server, bytes, |message| notified(message, SEEN))?;
    Some(Input::Notified(Introducer::of_ip(SEEN), state))
}

fn hear(node: &mut Node, now: Instant, bytes: &[u8]) -> Option<Input> {
    let path = "/shoal.dht.v1.DhtService/Gossip";
    let (entries, digest) = receive(path, Receiver::Server, bytes, gossip)?;
    let news = node.gossiped(now, &Introducer::of_ip(SEEN), &entries, digest.as_ref());
    assert!(news.len() <= 2 * Membership::MAX_RUMOURS, "{} rumours", news.len());
    None
}

/// Whatever others send, the node knows itself, its successors are in order, and it calls only
/// others.
fn check(node: &mut Node, waiting: &[Output]) {
    let state = node.state();
    let me = contact(ME);
    assert_eq!(state.node, me);
    let distances = state.successors.iter().map(|node| me.position.distance_to(node.position));
    let distances: Vec<_> = distances.collect();
    assert!(distances.is_sorted_by(|a, b| a < b) && !distances.contains(&0), "{state:?}");
    assert!(state.predecessor.is_none_or(|node| node.position != me.position));
    let Some(own) = node.membership().own() else {
        return assert_eq!(state.standing, Standing::Leaving, "it forgot itself");
    };
    let is_alive = own.life == Life::Alive;
    assert_eq!(is_alive, state.standing != Standing::Leaving, "others decide whether it is alive");
    assert!(own.incarnation < u64::MAX, "it cannot refute the next report");
    let (own, entries) = (own.clone(), node.membership().len());
    let live_nodes = node.routing_table().live_nodes.expect("the node gossips");
    assert_eq!(live_nodes.len(), entries);
    assert_eq!(
        live_nodes.owner_of(me.position).is_some_and(|owner| *owner == own.contact),
        is_alive
    );
    for asked in waiting {
        let Output::Ask(other, _) = asked else { continue };
        assert_ne!(other.position, me.position, "it calls itself: {asked:?}");
    }
}
