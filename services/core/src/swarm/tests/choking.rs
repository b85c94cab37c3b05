//! Which neighbours we serve.

use std::{collections::BTreeSet, time::Duration};

use crate::swarm::{
    ContentKey, FetchEnd, Input, LinkKey, Output, PeerMessage, RefuseReason, Settings, testing::*,
};

const SECOND: Duration = Duration::from_secs(1);

/// A leecher whose uplink is busy, so that no slot is lent.
fn busy_leecher(rng_seed: u64) -> Bench {
    let settings = Settings { stall: Duration::from_secs(1_000), ..Settings::default() };
    let mut bench = Bench::with(settings, rng_seed);
    bench.add(4_000, 0..10);
    let filler = bench.keep_uplink_busy();
    bench.say(filler, have(0..10));
    bench.say(filler, PeerMessage::NotInterested);
    bench
}

/// An interested neighbour that holds the pieces from 1,000 on.
fn interested(bench: &mut Bench) -> LinkKey {
    let link = bench.neighbour(1_000..4_000);
    bench.say(link, PeerMessage::Interested);
    link
}

/// Each neighbour sends at its rate, in pieces a second, for 20 s: older rates are forgotten.
fn send_at_rates(bench: &mut Bench, links: &[LinkKey], rates: &[usize]) {
    send_for(bench, 20, links, rates);
}

fn send_for(bench: &mut Bench, seconds: usize, links: &[LinkKey], rates: &[usize]) {
    for _ in 0..seconds {
        for (link, rate) in links.iter().zip(rates) {
            let mut calls = bench.unchokes_us(*link);
            for _ in 0..*rate {
                let Some(call) = calls.pop() else { break };
                calls.extend(asked(&bench.deliver(&call)));
            }
            bench.say(*link, PeerMessage::Choke);
            for call in calls {
                let end = FetchEnd::Refused { retry_after: SECOND };
                bench.tell(Input::FetchEnded { fetch: call.fetch, end });
            }
        }
        bench.pass(SECOND);
    }
}

/// A leecher with a busy uplink and no optimistic slot.
fn ranking_leecher() -> Bench {
    let settings = Settings {
        optimistic_slots: 0,
        stall: 1_000 * SECOND,
        pipeline_slack: Duration::from_millis(5),
        ..Settings::default()
    };
    let mut bench = Bench::with(settings, 1);
    bench.add(4_000, 0..10);
    bench.keep_uplink_busy();
    bench
}

#[test]
fn the_four_fastest_are_unchoked_and_ranked_anew_each_10_s() {
    let mut bench = ranking_leecher();
    let links: Vec<_> = (0..7).map(|_| interested(&mut bench)).collect();
    send_at_rates(&mut bench, &links, &[1, 2, 3, 4, 5, 6, 7]);
    bench.pass(10 * SECOND);
    assert_eq!(bench.unchoked(&links), links[3..]);
    send_at_rates(&mut bench, &links, &[7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bench.unchoked(&links), links[..4]);
}

#[test]
fn each_30_s_another_is_unchoked_at_random() {
    let mut bench = busy_leecher(1);
    let links: Vec<_> = (0..12).map(|_| interested(&mut bench)).collect();
    let mut chosen = Vec::new();
    for _ in 0..8 {
        send_at_rates(&mut bench, &links, &[5, 5, 5, 5]);
        bench.pass(10 * SECOND);
        let unchoked = bench.unchoked(&links);
        assert_eq!(unchoked.len(), 5, "4 + 1");
        assert_eq!(unchoked[..4], links[..4], "the fastest");
        chosen.push(unchoked[4]);
    }
    assert!(chosen.windows(2).all(|pair| pair[0] != pair[1]), "{chosen:?}");
    assert!(chosen.iter().collect::<BTreeSet<_>>().len() > 3, "{chosen:?}");
}

#[test]
fn newcomers_weigh_3() {
    let newcomer_is_chosen = |rng_seed: &u64| {
        let mut bench = busy_leecher(*rng_seed);
        let mut links: Vec<_> = (0..8).map(|_| interested(&mut bench)).collect();
        bench.pass(39 * SECOND);
        links.push(interested(&mut bench));
        bench.pass(SECOND);
        bench.unchoked(&links).contains(&links[8])
    };
    // One newcomer among four others without a slot, one of which had the last turn: 3 of 3 + 3.
    let count = (0..200).filter(newcomer_is_chosen).count();
    assert!((70..=130).contains(&count), "{count}");
}

#[test]
fn a_snubbed_neighbour_loses_its_slot() {
    let mut bench = ranking_leecher();
    let links: Vec<_> = (0..5).map(|_| interested(&mut bench)).collect();
    send_at_rates(&mut bench, &links, &[5, 4, 3, 2, 1]);
    assert_eq!(bench.unchoked(&links), links[..4]);
    let owed = bench.unchokes_us(links[0]);
    assert_eq!(owed.len(), 1);
    bench.pass(10 * SECOND);
    assert!(bench.swarm.link_status(links[0], bench.now).unwrap().snubbed);
    assert_eq!(bench.unchoked(&links), links[1..]);
}

#[test]
fn two_contents_share_slots() {
    let mut bench = busy_leecher(1);
    let other = ContentKey(1);
    bench.tell(add_content(other, 100, 0..10));
    let mut links = Vec::new();
    for content in [CONTENT, other].into_iter().cycle().take(20) {
        let link = bench.connect_for(content);
        bench.say(link, PeerMessage::Interested);
        links.push(link);
    }
    assert_eq!(bench.unchoked(&links).len(), 5);
    bench.pass(11 * SECOND);
    assert_eq!(bench.unchoked(&links).len(), 5);
}

#[test]
fn another_slot_opens_while_the_uplink_is_idle() {
    let mut bench = Bench::new();
    bench.add(40, 0..10);
    let links: Vec<_> = (0..12).map(|_| bench.neighbour(10..40)).collect();
    for link in &links {
        bench.say(*link, PeerMessage::Interested);
    }
    bench.pass(SECOND);
    assert_eq!(bench.unchoked(&links), links);
}

#[test]
fn a_seeder_unchokes_all_it_keeps() {
    let mut bench = Bench::new();
    bench.add(40, 0..40);
    bench.keep_uplink_busy();
    let links: Vec<_> = (0..49).map(|_| bench.neighbour([])).collect();
    for link in &links {
        bench.say(*link, PeerMessage::Interested);
    }
    assert_eq!(bench.unchoked(&links), links);
}

#[test]
fn a_slow_seeder_serves_as_many_as_it_can_give_a_piece_each_in_2_s() {
    let mut bench = Bench::new();
    bench.add(400, 0..400);
    let links: Vec<_> = (0..20).map(|_| bench.neighbour([])).collect();
    let mut turns = Vec::new();
    for link in &links {
        bench.say(*link, PeerMessage::Interested);
        turns.extend(granted(&bench.request(Some(*link), &[0; 64]).1));
    }
    // Four pieces a second, for a little longer than until slots are assigned again.
    for _ in 0..170 {
        bench.pass(Duration::from_millis(62));
        let serve = turns[turns.len() - 1];
        turns.extend(granted(&bench.tell(Input::BlockSent { serve, bytes: PIECE / 4 })));
    }
    let served = bench.unchoked(&links).len();
    assert!((7..=9).contains(&served), "{served}");
}

#[test]
fn a_slot_given_up_is_anothers() {
    let mut bench = busy_leecher(1);
    let links: Vec<_> = (0..6).map(|_| interested(&mut bench)).collect();
    assert_eq!(bench.unchoked(&links), links[..5]);
    let outputs = bench.say(links[2], PeerMessage::NotInterested);
    assert_eq!(said(&outputs, links[5]), [PeerMessage::Unchoke]);
}

#[test]
fn a_choked_neighbours_waiting_calls_are_refused_and_what_was_granted_is_sent() {
    let settings = Settings {
        optimistic_slots: 0,
        stall: 1_000 * SECOND,
        pipeline_slack: Duration::from_millis(5),
        ..Settings::default()
    };
    let mut bench = Bench::with(settings, 1);
    bench.add(4_000, 0..10);
    let alice = bench.neighbour(1_000..4_000);
    bench.say(alice, PeerMessage::Interested);
    let (begun, outputs) = bench.request(Some(alice), &[1, 2]);
    assert_eq!(granted(&outputs), [begun]);
    let (waiting, _) = bench.request(Some(alice), &[3]);
    let links: Vec<_> = (0..4).map(|_| interested(&mut bench)).collect();
    send_for(&mut bench, 5, &links, &[1; 4]);
    let outputs = bench.pass(10 * SECOND);
    assert_eq!(said(&outputs, alice), [PeerMessage::Choke]);
    for serve in [begun, waiting] {
        assert!(outputs.contains(&Output::Refuse { serve, reason: RefuseReason::Choked }));
    }
    let (_, again) = bench.request(Some(alice), &[4]);
    assert_eq!(refused(&again), Some(RefuseReason::Choked));
    assert!(granted(&bench.send(begun)).is_empty());
}
