//! Endgame, churn, corruption, lies, and what must not happen.

use std::time::Duration;

use proptest::prelude::*;

use crate::{
    content::{BLOCK_UNIT, BlockRange, PieceIndex},
    swarm::{
        Attempt, BanReason, FetchEnd, FetchKey, Input, LinkKey, Output, PeerMessage, ServeKey,
        testing::*,
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn block(piece: u32, number: u32) -> BlockRange {
    BlockRange { piece: PieceIndex::new(piece), offset: number * BLOCK_UNIT, length: BLOCK_UNIT }
}

/// The present attempt at a piece fails; its bytes are of these neighbours.
fn corrupt(bench: &mut Bench, piece: u32, contributors: &[LinkKey]) -> Vec<Output> {
    let attempt = bench.attempt(piece);
    bench.corrupt(piece, attempt, contributors)
}

#[test]
fn a_content_that_is_being_removed_is_not_requested() {
    let mut bench = Bench::new();
    bench.add(1, []);
    for _ in 0..8 {
        let neighbour = bench.neighbour([0]);
        bench.unchokes_us(neighbour);
    }
    let outputs = bench.tell(Input::RemoveContent { content: CONTENT });
    assert!(asked(&outputs).is_empty(), "{outputs:?}");
}

#[test]
fn endgame_takes_a_piece_from_its_end_and_cancels_the_loser() {
    let mut bench = Bench::new();
    bench.add(1, []);
    let alice = bench.neighbour([0]);
    let bob = bench.neighbour([0]);
    let slow = bench.unchokes_us(alice).remove(0);
    bench.pass(SECOND);
    bench.arrive(slow.fetch, block(0, 0));
    let quick = bench.unchokes_us(bob).remove(0);
    assert_eq!(quick.ranges, [block(0, 3), block(0, 2), block(0, 1)]);
    for range in &quick.ranges[..2] {
        assert!(bench.arrive(quick.fetch, *range).is_empty());
    }
    let outputs = bench.arrive(quick.fetch, quick.ranges[2]);
    assert_eq!(outputs, [Output::CancelFetch { fetch: slow.fetch }]);
    bench.arrive(slow.fetch, block(0, 1));
    assert_eq!(bench.swarm.totals(CONTENT).duplicate, u64::from(BLOCK_UNIT));
    assert!(bench.store(0).contains(&Output::Completed { content: CONTENT }));
}

#[test]
fn endgame_waits_for_a_neighbour_that_sends_but_not_for_a_silent_one() {
    let turn = Duration::from_millis(400);
    let mut bench = Bench::new();
    bench.add(8, []);
    let alice = bench.neighbour(0..4);
    let bob = bench.neighbour(4..8);
    let mut calls = [bench.unchokes_us(alice), bench.unchokes_us(bob)];
    for _ in 0..3 {
        bench.pass(turn);
        for calls in &mut calls {
            let call = calls.remove(0);
            calls.extend(asked(&bench.deliver(&call)));
        }
    }
    bench.pass(turn);
    bench.say(bob, have(0..4));
    let last = calls[1].remove(0);
    let outputs = bench.deliver(&last);
    assert!(asked(&outputs).is_empty(), "the last piece is due, bob would take as long again");
    let taken_over = asked(&bench.pass(turn / 2));
    assert_eq!(taken_over.iter().map(|call| call.link).collect::<Vec<_>>(), [bob]);
}

#[test]
fn a_peer_may_leave_with_a_subset_and_return() {
    let mut bench = Bench::new();
    bench.add(10, 0..4);
    let alice = bench.neighbour(0..10);
    let call = bench.unchokes_us(alice).remove(0);
    bench.deliver(&call);
    let held = bench.swarm.held(CONTENT).unwrap().clone();
    assert_eq!(held.held(), 5);
    bench.tell(Input::RemoveContent { content: CONTENT });
    assert_eq!(bench.swarm.link_status(alice, bench.now).map(|status| status.wanted), None);

    let mut bench = Bench::new();
    bench.add(10, held.iter().map(PieceIndex::get));
    let alice = bench.neighbour(0..10);
    let mut calls = bench.unchokes_us(alice);
    let mut fetched = 0;
    while let Some(call) = calls.pop() {
        fetched += call.ranges.len();
        calls.extend(asked(&bench.deliver(&call)));
    }
    assert_eq!(fetched, 5);
    assert!(bench.swarm.content_status(CONTENT).unwrap().missing == 0);
}

#[test]
fn completion_is_reported_once() {
    let mut bench = Bench::new();
    bench.add(2, [0]);
    let completed = |outputs: &[Output]| outputs.contains(&Output::Completed { content: CONTENT });
    assert!(completed(&bench.store(1)));
    assert!(!completed(&bench.store(1)));
    assert!(completed(&Bench::new().add(2, 0..2)), "also of what was complete when added");
}

#[test]
fn two_complete_peers_close_the_link() {
    let mut bench = Bench::new();
    bench.add(2, [0]);
    let alice = bench.neighbour(0..2);
    let bob = bench.neighbour([0]);
    let outputs = bench.store(1);
    assert!(outputs.contains(&Output::Close { link: alice }));
    assert_eq!(bench.say(bob, have([1])), [Output::Close { link: bob }]);
}

#[test]
fn a_neighbour_that_sent_all_of_a_corrupt_piece_is_banned() {
    let mut bench = Bench::new();
    bench.add(10, 0..4);
    let alice = bench.neighbour(0..10);
    let bob = bench.neighbour(0..10);
    let call = bench.unchokes_us(alice).remove(0);
    bench.unchokes_us(bob);
    bench.arrive(call.fetch, call.ranges[0]);
    let outputs = corrupt(&mut bench, call.ranges[0].piece.get(), &[alice]);
    assert!(outputs.contains(&Output::Ban { link: alice, reason: BanReason::Corruption }));
    assert!(bench.swarm.link_status(alice, bench.now).is_none());
    assert_eq!(bench.swarm.totals(CONTENT).wasted, u64::from(PIECE));
}

#[test]
fn a_corrupt_piece_of_two_is_fetched_from_one() {
    let mut bench = Bench::new();
    bench.add(1, []);
    let alice = bench.neighbour([0]);
    let bob = bench.neighbour([0]);
    let first = bench.unchokes_us(alice).remove(0);
    bench.pass(SECOND);
    bench.arrive(first.fetch, block(0, 0));
    let second = bench.unchokes_us(bob).remove(0);
    for range in &second.ranges {
        bench.arrive(second.fetch, *range);
    }
    let outputs = corrupt(&mut bench, 0, &[alice, bob]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Ban { .. })));
    let again = asked(&outputs);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].ranges, [whole(0)]);
    assert!(asked(&bench.pass(SECOND)).is_empty(), "nobody takes it over");
    bench.arrive(again[0].fetch, whole(0));
    bench.store(0);
    let outputs = bench.tell(Input::CaughtLying { link: alice });
    assert!(outputs.is_empty(), "its link was closed as that of a complete peer");
}

#[test]
fn a_neighbour_caught_lying_is_banned() {
    let mut bench = Bench::new();
    bench.add(2, []);
    let alice = bench.neighbour([0]);
    let outputs = bench.tell(Input::CaughtLying { link: alice });
    assert_eq!(outputs[0], Output::Ban { link: alice, reason: BanReason::Corruption });
}

#[test]
fn a_neighbour_that_unchokes_and_never_sends_does_not_hang_the_download() {
    let mut bench = Bench::new();
    bench.add(5, 0..4);
    let silent = bench.neighbour(0..5);
    let call = bench.unchokes_us(silent).remove(0);
    let mut outputs = bench.pass(11 * SECOND);
    assert!(outputs.contains(&Output::CancelFetch { fetch: call.fetch }));
    assert!(asked(&outputs).is_empty(), "not of the same at once");
    let bob = bench.neighbour([4]);
    outputs = bench.say(bob, PeerMessage::Unchoke);
    assert_eq!(asked(&outputs)[0].ranges, [whole(4)]);
    outputs = bench.pass(60 * SECOND);
    assert!(outputs.contains(&Output::Close { link: silent }), "of no use");
}

#[test]
fn a_neighbour_that_claims_pieces_and_refuses_is_asked_again_later() {
    let mut bench = Bench::new();
    bench.add(5, 0..4);
    let liar = bench.neighbour(0..5);
    let call = bench.unchokes_us(liar).remove(0);
    let end = FetchEnd::Refused { retry_after: 3 * SECOND };
    assert!(asked(&bench.tell(Input::FetchEnded { fetch: call.fetch, end })).is_empty());
    assert!(asked(&bench.pass(2 * SECOND)).is_empty());
    assert_eq!(asked(&bench.pass(2 * SECOND)).len(), 1);
    let bob = bench.neighbour([4]);
    let outputs = bench.say(bob, PeerMessage::Unchoke);
    assert_eq!(asked(&outputs).len(), 1, "endgame");
}

#[test]
fn a_neighbour_that_breaks_the_protocol_is_banned() {
    let broken = [
        PeerMessage::Bitfield(bitfield(8, [])),
        PeerMessage::Bitfield(bitfield(9, [])),
        have([8]),
        have([u32::MAX]),
        PeerMessage::Suggest(vec![PieceIndex::new(8)]),
    ];
    for message in broken {
        let mut bench = Bench::new();
        bench.add(8, []);
        let alice = bench.neighbour([]);
        let outputs = bench.say(alice, message.clone());
        let ban = Output::Ban { link: alice, reason: BanReason::Protocol };
        assert_eq!(outputs[0], ban, "{message:?}");
    }
    let mut bench = Bench::new();
    bench.add(8, []);
    let alice = bench.connect();
    let ban = Output::Ban { link: alice, reason: BanReason::Protocol };
    assert!(bench.say(alice, have([1])).contains(&ban), "HAVE before the bitfield");
}

#[test]
fn a_block_that_was_not_asked_for_is_counted_or_punished() {
    let mut bench = Bench::new();
    bench.add(8, []);
    let alice = bench.neighbour(0..8);
    bench.arrive(FetchKey(77), whole(0));
    assert_eq!(bench.swarm.totals(CONTENT).duplicate, u64::from(PIECE));
    let call = bench.unchokes_us(alice).remove(0);
    let outputs = bench.arrive(call.fetch, block((call.ranges[0].piece.get() + 1) % 8, 0));
    assert!(outputs.contains(&Output::Ban { link: alice, reason: BanReason::Protocol }));
}

#[test]
fn starvation_is_reported_but_not_constantly() {
    let mut bench = Bench::new();
    bench.add(8, []);
    bench.neighbour([]);
    let outputs = bench.pass(21 * SECOND);
    let cries = outputs.iter().filter(|output| matches!(output, Output::Starving { .. })).count();
    assert!((3..=5).contains(&cries), "{cries}");
}

#[test]
fn an_idle_swarm_waits_for_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.swarm.next_deadline(), None);
    bench.add(8, 0..8);
    assert_eq!(bench.swarm.next_deadline(), None);
}

/// Any input of a shell, or of a stranger through it; keys may be wrong.
fn any_input() -> impl Strategy<Value = Input> {
    let link = (0_u64..6).prop_map(LinkKey);
    let pieces = prop::collection::vec((0_u32..14).prop_map(PieceIndex::new), 0..6);
    let range = (0_u32..13, 0_u32..4, 1_u32..5).prop_map(|(piece, first, count)| {
        let length = count.min(4 - first) * BLOCK_UNIT;
        BlockRange { piece: PieceIndex::new(piece), offset: first * BLOCK_UNIT, length }
    });
    let ranges = prop::collection::vec(range.clone(), 0..5);
    let message = prop_oneof![
        prop::collection::vec(0_u32..12, 0..12)
            .prop_map(|has| PeerMessage::Bitfield(bitfield(12, has))),
        pieces.clone().prop_map(PeerMessage::Have),
        pieces.prop_map(PeerMessage::Suggest),
        Just(PeerMessage::Choke),
        Just(PeerMessage::Unchoke),
        Just(PeerMessage::Interested),
        Just(PeerMessage::NotInterested),
    ];
    let piece = (0_u32..13).prop_map(PieceIndex::new);
    let serve = (0_u64..8).prop_map(ServeKey);
    let fetch = (0_u64..20).prop_map(FetchKey);
    let retry_after = SECOND;
    let end = prop_oneof![
        Just(FetchEnd::Done),
        Just(FetchEnd::Failed),
        Just(FetchEnd::Refused { retry_after })
    ];
    prop_oneof![
        8 => (link.clone(), message).prop_map(|(link, message)| Input::Message { link, message }),
        1 => link.clone().prop_map(|link| Input::LinkDown { link }),
        8 => (fetch.clone(), range).prop_map(|(fetch, block)| Input::BlockArrived { content: CONTENT, fetch, block }),
        2 => (fetch, end).prop_map(|(fetch, end)| Input::FetchEnded { fetch, end }),
        2 => piece.clone().prop_map(|piece| Input::PieceStored { content: CONTENT, piece }),
        2 => (piece, 0_u64..20, prop::collection::vec(link.clone(), 0..3)).prop_map(
            |(piece, attempt, contributors)| Input::PieceCorrupt {
                content: CONTENT, piece, attempt: Attempt(attempt), contributors,
            },
        ),
        3 => (serve.clone(), link, ranges).prop_map(|(serve, link, ranges)| {
            Input::ServeRequested { serve, content: CONTENT, link: Some(link), ranges }
        }),
        3 => (serve.clone(), 1_u32..100_000)
            .prop_map(|(serve, bytes)| Input::BlockSent { serve, bytes }),
        1 => serve.prop_map(|serve| Input::ServeDropped { serve }),
        4 => Just(Input::Tick),
    ]
}

proptest! {
    #[test]
    fn no_message_of_a_stranger_causes_a_panic(
        inputs in prop::collection::vec((any_input(), 0_u64..500), 0..200),
    ) {
        let mut bench = Bench::new();
        bench.add(12, 0..3);
        for _ in 0..5 {
            bench.connect();
        }
        for (input, wait) in inputs {
            bench.pass(Duration::from_millis(wait));
            bench.tell(input);
            bench.swarm.check_pieces();
        }
        bench.pass(100 * SECOND);
        let status = bench.swarm.content_status(CONTENT).unwrap();
        prop_assert!(status.held + status.missing == status.pieces);
        for link in bench.swarm.links(CONTENT).collect::<Vec<_>>() {
            let status = bench.swarm.link_status(link, bench.now).unwrap();
            prop_assert!(status.outstanding <= 12 * u64::from(PIECE));
        }
    }
}
