//! In which order neighbours are served.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    content::PieceIndex,
    swarm::{
        Input, LinkKey, Output, PeerMessage, RefuseReason, ServeKey, Settings, UplinkIdle,
        testing::*,
    },
};

fn interested(bench: &mut Bench) -> LinkKey {
    let link = bench.neighbour([]);
    bench.say(link, PeerMessage::Interested);
    link
}

/// A seeder of 40 pieces.
fn seeder() -> Bench {
    let mut bench = Bench::new();
    bench.add(40, 0..40);
    bench
}

#[test]
fn the_uplink_sends_one_piece_after_another() {
    let mut bench = seeder();
    let alice = interested(&mut bench);
    let bob = interested(&mut bench);
    let (first, outputs) = bench.request(Some(alice), &[0]);
    assert_eq!(granted(&outputs), [first]);
    let (second, outputs) = bench.request(Some(bob), &[1]);
    assert!(granted(&outputs).is_empty());
    bench.now += Duration::from_millis(20);
    assert_eq!(granted(&bench.send(first)), [second]);
}

#[test]
fn a_seeder_serves_the_neighbours_that_it_served_least() {
    let mut bench = seeder();
    let links = [interested(&mut bench), interested(&mut bench), interested(&mut bench)];
    let pieces: Vec<u32> = (0..12).collect();
    let serves: Vec<ServeKey> =
        links.iter().map(|link| bench.request(Some(*link), &pieces).0).collect();
    let mut turns = vec![serves[0]];
    for _ in 0..8 {
        bench.now += Duration::from_millis(30);
        let next = granted(&bench.send(turns[turns.len() - 1]));
        assert_eq!(next.len(), 1);
        turns.extend(next);
    }
    for serve in serves {
        assert_eq!(turns.iter().filter(|turn| **turn == serve).count(), 3);
    }
}

#[test]
fn a_newcomer_starts_level_with_the_others() {
    let mut bench = seeder();
    let alice = interested(&mut bench);
    let (first, _) = bench.request(Some(alice), &(0..20).collect::<Vec<_>>());
    for _ in 0..10 {
        bench.now += Duration::from_millis(30);
        bench.send(first);
    }
    let bob = interested(&mut bench);
    let (second, _) = bench.request(Some(bob), &(0..20).collect::<Vec<_>>());
    let mut turns = granted(&bench.send(first));
    for _ in 0..7 {
        bench.now += Duration::from_millis(30);
        turns.extend(granted(&bench.send(turns[turns.len() - 1])));
    }
    let newcomers = turns.iter().filter(|turn| **turn == second).count();
    assert!((4..=5).contains(&newcomers), "{turns:?}");
}

#[test]
fn a_leecher_serves_the_neighbour_that_gave_most_first() {
    let settings = Settings { free_turn_interval: u64::MAX, ..Settings::default() };
    let mut bench = Bench::with(settings, 1);
    bench.add(100, 0..10);
    let filler = interested(&mut bench);
    let (busy, _) = bench.request(Some(filler), &[0]);
    let alice = bench.neighbour(20..100);
    let bob = bench.neighbour(20..100);
    for link in [alice, bob] {
        bench.say(link, PeerMessage::Interested);
    }
    let call = bench.unchokes_us(bob).remove(0);
    bench.deliver(&call);
    let (_, outputs) = bench.request(Some(alice), &[1]);
    assert!(granted(&outputs).is_empty());
    let (to_bob, _) = bench.request(Some(bob), &[1]);
    bench.now += Duration::from_millis(20);
    assert_eq!(granted(&bench.send(busy)), [to_bob]);
}

#[test]
fn a_neighbour_that_gave_nothing_has_its_turn_too() {
    let mut bench = Bench::new();
    bench.add(4_000, 0..40);
    let alice = bench.neighbour(40..4_000);
    let bob = bench.neighbour(40..50);
    for link in [alice, bob] {
        bench.say(link, PeerMessage::Interested);
    }
    let mut calls = bench.unchokes_us(alice);
    for _ in 0..40 {
        let call = calls.remove(0);
        calls.extend(asked(&bench.deliver(&call)));
    }
    let pieces: Vec<u32> = (0..30).collect();
    let (to_alice, outputs) = bench.request(Some(alice), &pieces);
    let (to_bob, _) = bench.request(Some(bob), &pieces);
    let mut turns = granted(&outputs);
    for _ in 0..20 {
        bench.now += Duration::from_millis(30);
        turns.extend(granted(&bench.send(turns[turns.len() - 1])));
    }
    let count = |serve| turns.iter().filter(|turn| **turn == serve).count();
    assert!((1..=5).contains(&count(to_bob)), "{turns:?}");
    assert!(count(to_alice) >= 16, "{turns:?}");
}

#[test]
fn a_receiver_that_is_full_does_not_block_the_uplink() {
    let mut bench = seeder();
    let alice = interested(&mut bench);
    let bob = interested(&mut bench);
    let (stuck, _) = bench.request(Some(alice), &[0, 1]);
    let (waiting, outputs) = bench.request(Some(bob), &[1, 2]);
    assert!(granted(&outputs).is_empty());
    let outputs = bench.pass(Duration::from_millis(300));
    assert_eq!(granted(&outputs), [waiting]);
    bench.now += Duration::from_millis(10);
    assert_eq!(granted(&bench.send(waiting)), [waiting], "the stuck one has its piece still");
    assert!(granted(&bench.send(stuck)).is_empty());
    bench.now += Duration::from_millis(10);
    assert_eq!(granted(&bench.send(waiting)), [stuck]);
}

#[test]
fn at_a_high_rate_more_is_granted_ahead() {
    let mut bench = Bench::new();
    bench.add(2_000, 0..2_000);
    let alice = interested(&mut bench);
    let pieces: Vec<u32> = (0..2_000).collect();
    let (serve, outputs) = bench.request(Some(alice), &pieces);
    let mut granted_ahead = granted(&outputs).len();
    for _ in 0..1_000 {
        bench.now += Duration::from_micros(50);
        granted_ahead += granted(&bench.send(serve)).len();
        granted_ahead -= 1;
    }
    let bytes = granted_ahead * PIECE as usize;
    assert!((1 << 20..16 << 20).contains(&bytes), "{bytes} of 1.3 GB/s");
}

#[test]
fn a_stranger_is_served_while_a_slot_is_free() {
    let mut bench = Bench::new();
    bench.add(40, 0..10);
    for _ in 0..4 {
        interested(&mut bench);
    }
    let (first, outputs) = bench.request(None, &[0]);
    assert_eq!(granted(&outputs), [first]);
    let (_, outputs) = bench.request(None, &[0]);
    assert!(matches!(refused(&outputs), Some(RefuseReason::Busy { .. })));
    bench.send(first);
    let (third, outputs) = bench.request(None, &[0]);
    assert_eq!(granted(&outputs), [third]);
}

#[test]
fn a_stranger_waits_while_a_neighbour_does() {
    let mut bench = seeder();
    let alice = interested(&mut bench);
    let (first, outputs) = bench.request(None, &[0]);
    assert_eq!(granted(&outputs), [first]);
    let (of_stranger, outputs) = bench.request(None, &[1]);
    assert!(granted(&outputs).is_empty(), "the uplink has one piece to send");
    let (of_alice, _) = bench.request(Some(alice), &[0, 1]);
    assert_eq!(granted(&bench.send(first)), [of_alice]);
    assert_eq!(granted(&bench.send(of_alice)), [of_alice]);
    assert_eq!(granted(&bench.send(of_alice)), [of_stranger]);
}

#[test]
fn strangers_have_few_calls_at_a_time() {
    let mut bench = seeder();
    let refusals = (0..100).filter_map(|_| refused(&bench.request(None, &[0]).1));
    assert_eq!(refusals.count(), 96);
}

#[test]
fn a_stranger_that_takes_nothing_loses_its_slot() {
    let mut bench = seeder();
    let calls: Vec<_> = (0..4).map(|_| bench.request(None, &[0, 1]).0).collect();
    let mut ended = BTreeSet::new();
    for tick in 0..60 {
        bench.now += Duration::from_millis(100);
        let mut outputs = bench.tell(Input::Tick);
        if tick == 30 {
            outputs.extend(bench.send(calls[0]));
        }
        ended.extend(outputs.iter().filter_map(|output| match output {
            Output::Refuse { serve, .. } => Some(*serve),
            _ => None,
        }));
    }
    assert_eq!(ended, calls[1..].iter().copied().collect());
    assert!(refused(&bench.request(None, &[0]).1).is_none(), "their slots are free");
}

#[test]
fn a_flood_of_requests_is_bounded() {
    let mut bench = seeder();
    let alice = interested(&mut bench);
    let refusals = (0..1_000).filter_map(|_| refused(&bench.request(Some(alice), &[0; 64]).1));
    let refusals: Vec<_> = refusals.collect();
    assert_eq!(refusals.len(), 996);
    assert!(refusals.iter().all(|reason| matches!(reason, RefuseReason::Busy { .. })));
}

#[test]
fn a_request_for_a_missing_piece_is_refused() {
    let mut bench = Bench::new();
    bench.add(40, 0..10);
    let alice = interested(&mut bench);
    for pieces in [&[0, 10][..], &[], &[u32::MAX]] {
        let (_, outputs) = bench.request(Some(alice), pieces);
        assert_eq!(refused(&outputs), Some(RefuseReason::NotHeld), "{pieces:?}");
    }
    assert_eq!(bench.swarm.uplink_idle(), Some(UplinkIdle::NothingAsked));
}

#[test]
fn a_dropped_call_makes_room() {
    let mut bench = seeder();
    let alice = interested(&mut bench);
    let (first, _) = bench.request(Some(alice), &[0, 1, 2]);
    let (second, _) = bench.request(Some(alice), &[3]);
    let outputs = bench.tell(Input::ServeDropped { serve: first });
    assert_eq!(granted(&outputs), [second]);
}

fn suggestions(outputs: &[Output], link: LinkKey) -> Vec<PieceIndex> {
    let suggested = said(outputs, link).into_iter().filter_map(|message| match message {
        PeerMessage::Suggest(pieces) => Some(pieces),
        _ => None,
    });
    suggested.flatten().collect()
}

#[test]
fn a_seeder_suggests_each_neighbour_another_piece() {
    let mut bench = seeder();
    let first = interested(&mut bench);
    let links: Vec<_> = (0..20).map(|_| interested(&mut bench)).collect();
    let mut suggested = BTreeSet::new();
    for (number, link) in links.iter().enumerate() {
        let (serve, mut outputs) = bench.request(Some(*link), &[number as u32]);
        bench.now += Duration::from_millis(30);
        outputs.extend(bench.send(serve));
        suggested.extend(suggestions(&outputs, *link));
    }
    bench.request(Some(first), &[39]);
    assert!(suggested.len() >= 15, "{suggested:?}");
}

fn super_seeder() -> Bench {
    let mut bench = Bench::new();
    let Input::AddContent { content, layout, held, sequential, .. } =
        add_content(CONTENT, 40, 0..40)
    else {
        unreachable!()
    };
    bench.tell(Input::AddContent { content, layout, held, sequential, super_seeding: true });
    bench
}

fn shown(link: LinkKey, outputs: &[Output]) -> Vec<u32> {
    let haves = said(outputs, link).into_iter().filter_map(|message| match message {
        PeerMessage::Have(pieces) => Some(pieces),
        _ => None,
    });
    haves.flatten().map(PieceIndex::get).collect()
}

#[test]
fn a_super_seeder_shows_another_piece_when_one_was_passed_on() {
    let mut bench = super_seeder();
    let mut link_up = |number: u64| {
        let link = LinkKey(number);
        let outputs = bench.tell(Input::LinkUp {
            link,
            content: CONTENT,
            peer: crate::PeerId::new(uuid::Uuid::from_u128(u128::from(number))),
            capabilities: crate::swarm::Capabilities { reciprocates: true, serves: true },
            round_trip: Duration::from_millis(1),
        });
        bench.say(link, PeerMessage::Bitfield(bitfield(40, [])));
        (link, outputs)
    };
    let (alice, to_alice) = link_up(101);
    let (bob, to_bob) = link_up(102);
    assert_eq!(said(&to_alice, alice)[0], PeerMessage::Bitfield(bitfield(40, [])));
    let (to_alice, to_bob) = (shown(alice, &to_alice), shown(bob, &to_bob));
    assert!(to_alice.iter().all(|piece| !to_bob.contains(piece)), "distinct pieces");
    assert!(bench.say(alice, have(to_alice.clone())).is_empty(), "fetched, not passed on");
    let outputs = bench.say(bob, have([to_alice[0]]));
    assert_eq!(shown(alice, &outputs).len(), 1);
    assert!(shown(bob, &outputs).is_empty());
}

#[test]
fn a_receiver_that_turns_out_full_between_two_grants_leaves_no_bytes_behind() {
    let settings = Settings { uplink_ahead: Duration::from_millis(200), ..Settings::default() };
    let mut bench = Bench::with(settings, 1);
    bench.add(100, 0..100);
    let bob = interested(&mut bench);
    let (measured, _) = bench.request(Some(bob), &[0, 1, 2, 3, 4, 5]);
    for _ in 0..6 {
        bench.now += Duration::from_millis(30);
        bench.send(measured);
    }
    let alice = interested(&mut bench);
    let (stuck, _) = bench.request(Some(alice), &[0]);
    let (flowing, _) = bench.request(Some(alice), &(1..20).collect::<Vec<_>>());
    for _ in 0..6 {
        bench.now += Duration::from_millis(20);
        bench.send(flowing);
        bench.tell(Input::Tick);
    }
    for serve in [stuck, flowing] {
        bench.tell(Input::ServeDropped { serve });
    }
    let (next, outputs) = bench.request(Some(bob), &[6]);
    assert_eq!(granted(&outputs), [next]);
}

#[test]
fn a_leaving_peer_offers_the_pieces_that_no_neighbour_holds() {
    let mut bench = Bench::new();
    bench.add(6, 0..6);
    let [alice, bob] = [bench.neighbour([0]), bench.neighbour([1])];
    let idler = bench.neighbour([]);
    for link in [alice, bob] {
        bench.say(link, PeerMessage::Interested);
    }
    let mut outputs = Vec::new();
    bench.swarm.offer_last_copies(&mut outputs);
    let suggest = |pieces: [u32; 2]| PeerMessage::Suggest(pieces.map(PieceIndex::new).to_vec());
    assert_eq!(said(&outputs, alice), [suggest([2, 4])]);
    assert_eq!(said(&outputs, bob), [suggest([3, 5])]);
    assert!(said(&outputs, idler).is_empty(), "it wants nothing");
    bench.say(alice, have([2, 4]));
    assert!(bench.swarm.holds_last_copies());
    bench.say(bob, have([3, 5]));
    assert!(!bench.swarm.holds_last_copies());
}
