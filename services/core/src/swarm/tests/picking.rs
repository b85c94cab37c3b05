//! Which pieces are requested, how many, and from which neighbours.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    content::{Layout, PieceIndex, PieceLength},
    swarm::{Input, LinkKey, Output, PeerMessage, Priority, Settings, testing::*},
};

fn prioritise(bench: &mut Bench, pieces: &[u32], priority: Priority) -> Vec<Output> {
    let pieces = pieces.iter().copied().map(PieceIndex::new).collect();
    bench.tell(Input::Prioritise { content: CONTENT, pieces, priority })
}

/// Fetches everything from one neighbour, and returns the order of the pieces.
fn order_from(bench: &mut Bench, link: LinkKey) -> Vec<u32> {
    let mut order = Vec::new();
    let mut calls = bench.unchokes_us(link);
    while let Some(call) = calls.pop() {
        order.extend(call.ranges.iter().map(|range| range.piece.get()));
        calls.extend(asked(&bench.deliver(&call)));
        bench.pass(Duration::from_secs(1));
    }
    order
}

#[test]
fn rarest_first_picks_the_rarest() {
    for rng_seed in 0..20 {
        let mut bench = Bench::with(Settings::default(), rng_seed);
        bench.add(8, 0..4);
        let alice = bench.neighbour(0..8);
        bench.neighbour(0..7);
        bench.neighbour(0..6);
        assert_eq!(order_from(&mut bench, alice)[..2], [7, 6]);
    }
}

#[test]
fn a_have_makes_a_piece_less_rare() {
    let mut bench = Bench::new();
    bench.add(6, 0..4);
    let alice = bench.neighbour([4, 5]);
    let bob = bench.neighbour([4]);
    let carol = bench.neighbour([]);
    bench.say(bob, have([5]));
    bench.say(carol, have([5]));
    assert_eq!(order_from(&mut bench, alice), [4, 5]);
}

#[test]
fn one_of_equally_rare_pieces_is_picked_at_random() {
    let first = |rng_seed| {
        let mut bench = Bench::with(Settings::default(), rng_seed);
        bench.add(40, 0..4);
        let alice = bench.neighbour(0..40);
        order_from(&mut bench, alice)[0]
    };
    assert!((0..20).map(first).collect::<BTreeSet<_>>().len() > 8);
}

#[test]
fn the_first_4_pieces_are_picked_at_random() {
    let common_came_first = |rng_seed| {
        let mut bench = Bench::with(Settings::default(), rng_seed);
        bench.add(40, []);
        let alice = bench.neighbour(0..40);
        bench.neighbour(0..20);
        order_from(&mut bench, alice)[0] < 20
    };
    let count = (0..40).filter(|rng_seed| common_came_first(*rng_seed)).count();
    assert!((8..=32).contains(&count), "{count}");
}

#[test]
fn pieces_begun_are_finished_first() {
    let mut bench = Bench::new();
    bench.add(40, 0..4);
    let alice = bench.neighbour(0..40);
    let begun = bench.unchokes_us(alice).remove(0);
    let mut first_half = begun.ranges[0];
    first_half.length /= 2;
    bench.arrive(begun.fetch, first_half);
    bench.tell(Input::LinkDown { link: alice });
    let bob = bench.neighbour(0..40);
    let rest = bench.unchokes_us(bob).remove(0).ranges[0];
    assert_eq!((rest.piece, rest.offset, rest.end()), (first_half.piece, PIECE / 2, PIECE));
}

#[test]
fn a_piece_comes_whole_from_one_source() {
    let mut bench = Bench::new();
    bench.add(40, []);
    let links: Vec<_> = (0..8).map(|_| bench.neighbour(0..40)).collect();
    let calls: Vec<_> = links.iter().flat_map(|link| bench.unchokes_us(*link)).collect();
    let pieces: Vec<_> = calls.iter().flat_map(|call| &call.ranges).collect();
    assert!(pieces.iter().all(|range| range.length == PIECE));
    let distinct: BTreeSet<_> = pieces.iter().map(|range| range.piece).collect();
    assert_eq!((calls.len(), distinct.len()), (8, pieces.len()));
}

#[test]
fn a_suggested_piece_goes_before_the_rarest() {
    let mut bench = Bench::new();
    bench.add(8, 0..4);
    let alice = bench.neighbour(0..8);
    bench.neighbour(0..7);
    bench.say(alice, PeerMessage::Suggest(vec![PieceIndex::new(2), PieceIndex::new(5)]));
    assert_eq!(order_from(&mut bench, alice)[..2], [5, 7]);
}

#[test]
fn in_sequential_mode_pieces_come_in_their_order() {
    let mut bench = Bench::new();
    let Input::AddContent { content, layout, held, super_seeding, .. } =
        add_content(CONTENT, 12, [3])
    else {
        unreachable!()
    };
    bench.tell(Input::AddContent { content, layout, held, sequential: true, super_seeding });
    bench.neighbour(0..2);
    let alice = bench.neighbour(0..12);
    bench.say(alice, PeerMessage::Suggest(vec![PieceIndex::new(9)]));
    assert_eq!(order_from(&mut bench, alice), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn high_goes_before_normal_and_low_comes_last() {
    let mut bench = Bench::new();
    bench.add(8, 0..4);
    let alice = bench.neighbour(0..8);
    bench.neighbour([6]);
    prioritise(&mut bench, &[4], Priority::Low);
    prioritise(&mut bench, &[6], Priority::High);
    bench.say(alice, PeerMessage::Suggest(vec![PieceIndex::new(4)]));
    let order = order_from(&mut bench, alice);
    assert_eq!((order[0], order[3]), (6, 4));
}

#[test]
fn a_skipped_piece_is_not_fetched_and_not_missed() {
    let mut bench = Bench::new();
    bench.add(6, 0..4);
    let alice = bench.neighbour(1..6);
    prioritise(&mut bench, &[5], Priority::Skip);
    let call = bench.unchokes_us(alice).remove(0);
    assert_eq!(call.ranges, [whole(4)]);
    let outputs = bench.deliver(&call);
    assert!(outputs.contains(&Output::Completed { content: CONTENT }));
    assert!(said(&outputs, alice).contains(&PeerMessage::NotInterested));
    let outputs = prioritise(&mut bench, &[5], Priority::Normal);
    assert!(said(&outputs, alice).contains(&PeerMessage::Interested));
    assert_eq!(pieces_asked(&outputs), [5]);
}

#[test]
fn changes_of_interest_are_sent() {
    let mut bench = Bench::new();
    bench.add(2, [0]);
    let alice = bench.connect();
    let outputs = bench.say(alice, PeerMessage::Bitfield(bitfield(2, [0])));
    assert!(said(&outputs, alice).is_empty());
    let outputs = bench.say(alice, have([1]));
    assert_eq!(said(&outputs, alice), [PeerMessage::Interested]);
}

#[test]
fn a_slow_neighbour_is_asked_for_one_piece_ahead() {
    let mut bench = Bench::new();
    bench.add(40, []);
    let alice = bench.neighbour(0..40);
    let first = bench.unchokes_us(alice);
    assert_eq!(first.iter().map(|call| call.ranges.len()).sum::<usize>(), 1);
    bench.pass(Duration::from_secs(1));
    let block = |part: u32| {
        let mut block = first[0].ranges[0];
        (block.offset, block.length) = (part * PIECE / 4, PIECE / 4);
        block
    };
    for part in [0, 1] {
        let outputs = bench.arrive(first[0].fetch, block(part));
        bench.pass(Duration::from_millis(300));
        let expected = usize::from(part == 1);
        assert_eq!(pieces_asked(&outputs).len(), expected, "after block {part}");
    }
}

#[test]
fn requests_to_a_fast_neighbour_and_to_all_are_bounded() {
    let mut bench = Bench::new();
    bench.add(8_000, []);
    let links: Vec<_> = (0..12).map(|_| bench.neighbour(0..8_000)).collect();
    let mut calls: Vec<_> = links.iter().flat_map(|link| bench.unchokes_us(*link)).collect();
    for _ in 0..300 {
        bench.now += Duration::from_micros(50);
        let call = calls.remove(0);
        calls.extend(asked(&bench.deliver(&call)));
    }
    let status = |link: &LinkKey| bench.swarm.link_status(*link, bench.now).unwrap();
    let outstanding: Vec<_> = links.iter().map(|link| status(link).outstanding).collect();
    assert!(outstanding.iter().all(|bytes| *bytes <= 4 << 20), "{outstanding:?}");
    let sum: u64 = outstanding.iter().sum();
    assert!((16 << 20..=32 << 20).contains(&sum), "{sum}");
    assert!(calls.iter().all(|call| call.ranges.len() <= 64));
}

#[test]
fn a_round_trip_falls_at_once_and_rises_slowly() {
    let mut bench = Bench::new();
    bench.add(1, []);
    let link = bench.connect();
    let mut measure = |ms| {
        bench.tell(Input::RoundTrip { link, round_trip: Duration::from_millis(ms) });
        bench.swarm.link_status(link, bench.now).unwrap().round_trip.as_micros()
    };
    assert_eq!(measure(9), 2_000);
    assert_eq!(measure(10), 3_000);
    assert_eq!(measure(1), 1_000);
}

#[test]
fn haves_go_out_in_batches_and_soon() {
    let mut bench = Bench::new();
    bench.add(40, []);
    let alice = bench.neighbour(0..40);
    let bob = bench.neighbour([]);
    let mut outputs = Vec::new();
    for piece in 0..10 {
        outputs.extend(bench.store(piece));
        outputs.extend(bench.pass(Duration::from_millis(1)));
    }
    outputs.extend(bench.pass(Duration::from_millis(10)));
    let haves = said(&outputs, bob);
    assert_eq!(haves.len(), 2, "{haves:?}");
    assert!(said(&outputs, alice).is_empty(), "who holds the pieces is told later");
    let later = said(&bench.pass(Duration::from_secs(1)), alice);
    assert_eq!(later, [have(0..10)]);
}

#[test]
fn a_neighbour_with_enough_to_request_gets_haves_later() {
    let mut bench = Bench::new();
    bench.add(40, 0..16);
    let newcomer = bench.neighbour([]);
    let old_hand = bench.neighbour(0..1);
    let mut outputs = bench.store(20);
    outputs.extend(bench.pass(Duration::from_millis(10)));
    assert_eq!(said(&outputs, old_hand), [have([20])], "it knew of 15 that it lacks");
    assert!(said(&outputs, newcomer).is_empty(), "it knew of 16 that it lacks");
    let later = said(&bench.pass(Duration::from_secs(1)), newcomer);
    assert_eq!(later, [have([20])]);
}

#[test]
fn until_the_manifest_is_known_only_its_pieces_are_requested() {
    const BLOB_PIECES: u32 = 8;
    let manifest_bytes = 2 * u64::from(Layout::MANIFEST_PIECE.get());
    let partial = Layout::of_manifest(manifest_bytes, PieceLength::MIN, BLOB_PIECES).unwrap();
    let blob = u64::from(BLOB_PIECES) * u64::from(PIECE);
    let layout = Layout::new(manifest_bytes, PieceLength::MIN, [blob]).unwrap();
    let count = layout.piece_count();
    let mut bench = Bench::new();
    bench.tell(add_layout(partial));
    let seeder = bench.neighbour(0..count);
    let mut requested = bench.unchokes_us(seeder);
    let mut pieces = BTreeSet::new();
    while let Some(call) = requested.pop() {
        for range in call.ranges {
            pieces.insert(range.piece.get());
            requested.extend(asked(&bench.arrive(call.fetch, range)));
            requested.extend(asked(&bench.store(range.piece.get())));
        }
    }
    assert_eq!(pieces, BTreeSet::from([0, 1]));
    let status = bench.swarm.content_status(CONTENT).unwrap();
    assert_eq!((status.held, status.missing), (2, BLOB_PIECES), "it is not complete");
    let outputs = bench.tell(Input::LayoutKnown { content: CONTENT, layout });
    let requested = pieces_asked(&outputs);
    assert!(!requested.is_empty() && requested.iter().all(|piece| *piece >= 2), "{requested:?}");
}

#[test]
fn a_manifest_is_requested_ahead_however_long_the_pieces_of_its_blobs_are() {
    const BLOB_PIECES: u32 = 8;
    let piece = u64::from(Layout::MANIFEST_PIECE.get());
    let layout = Layout::of_manifest(16 * piece, PieceLength::MAX, BLOB_PIECES).unwrap();
    let count = layout.piece_count();
    let settings = Settings { min_window: 4 * piece, ..Settings::default() };
    let mut bench = Bench::with(settings, 1);
    bench.tell(add_layout(layout));
    let seeder = bench.neighbour(0..count);
    let calls = bench.unchokes_us(seeder);
    let requested: usize = calls.iter().map(|call| call.ranges.len()).sum();
    assert_eq!(requested, 4, "a window of pieces: {calls:?}");
}
