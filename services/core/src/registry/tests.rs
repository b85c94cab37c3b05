use std::collections::HashSet;

use proptest::{collection::vec, prelude::*};
use rand::{SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use super::*;
use crate::address::{Address, address};

const INTERVAL: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    Settings {
        interval: INTERVAL,
        max_swarms: 10,
        max_peers: 10_000,
        max_peers_per_swarm: 10_000,
        max_peers_per_address: 10_000,
        near_percent: 50,
    }
}

fn content(n: u8) -> ContentId {
    ContentId::from_bytes([n; 32])
}

fn peer_id(n: usize) -> PeerId {
    PeerId::new(Uuid::from_u128(n as u128))
}

fn source(n: usize) -> IpAddr {
    IpAddr::from([10, 0, (n >> 8) as u8, n as u8])
}

/// Peer `n`, which announces content 0 from an address of its own.
fn announce(n: usize) -> Announce {
    Announce {
        content: content(0),
        peer: Peer {
            id: peer_id(n),
            address: address(&format!("{}:7072", source(n))),
            location: Location::default(),
            complete: false,
        },
        source: source(n),
        numwant: 50,
    }
}

fn complete(n: usize) -> Announce {
    let mut announce = announce(n);
    announce.peer.complete = true;
    announce
}

fn located(n: usize, zone: &str, node: &str) -> Announce {
    let mut announce = announce(n);
    announce.peer.location =
        Location { region: "eu".to_owned(), zone: zone.to_owned(), node: node.to_owned() };
    announce
}

/// A registry, a clock and a generator.
struct World {
    registry: Registry,
    now: Instant,
    rng: StdRng,
}

impl World {
    fn new(settings: Settings) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an Instant can be made in no other way")]
        let now = Instant::now();
        let registry = Registry::new(settings, Tally::default(), now);
        Self { registry, now, rng: StdRng::seed_from_u64(7) }
    }

    fn with_peers(count: usize) -> Self {
        let mut world = Self::new(settings());
        for n in 0..count {
            world.announce(announce(n)).expect("there is room");
        }
        world
    }

    fn announce(&mut self, announce: Announce) -> Result<Handout, Refusal> {
        self.registry.announce(self.now, announce, &mut self.rng)
    }

    fn counts(&mut self) -> Option<Counts> {
        let swarm = self.registry.swarm(self.now, content(0), 0, &mut self.rng);
        swarm.map(|(counts, _)| counts)
    }
}

fn ids(handout: &Handout) -> HashSet<PeerId> {
    handout.peers.iter().map(|peer| peer.id).collect()
}

#[test]
fn a_peer_learns_of_the_others_and_not_of_itself() {
    let mut world = World::with_peers(3);
    let handout = world.announce(announce(3)).expect("there is room");
    assert_eq!(ids(&handout), (0..3).map(peer_id).collect());
    assert_eq!(handout.counts, Counts { complete: 0, incomplete: 4 });
}

#[test]
fn a_handout_has_no_duplicates_and_at_most_the_requested_number() {
    let mut world = World::with_peers(500);
    for numwant in [0, 1, 50, 499, 600] {
        let handout = world.announce(Announce { numwant, ..announce(0) }).expect("it is known");
        assert_eq!(handout.peers.len(), numwant.min(499));
        assert_eq!(ids(&handout).len(), handout.peers.len());
        assert!(!ids(&handout).contains(&peer_id(0)));
    }
}

/// Chi-square over how often each of 4,999 others is named in 20,000 handouts of 50. A handout
/// names nobody twice, which makes the counts a little more even than independent draws would.
#[test]
fn a_swarm_of_5000_is_handed_out_uniformly() {
    const PEERS: usize = 5_000;
    const HANDOUTS: usize = 20_000;
    const NUMWANT: usize = 50;
    let mut world = World::with_peers(PEERS);
    let mut named = HashMap::new();
    let mut together = 0;
    for _ in 0..HANDOUTS {
        let handout = world.announce(Announce { numwant: NUMWANT, ..announce(0) }).expect("known");
        let ids = ids(&handout);
        assert_eq!(ids.len(), NUMWANT);
        together += usize::from(ids.contains(&peer_id(1)) && ids.contains(&peer_id(2)));
        for id in ids {
            *named.entry(id).or_insert(0_usize) += 1;
        }
    }
    let others = (PEERS - 1) as f64;
    let expected = (HANDOUTS * NUMWANT) as f64 / others;
    let chi_square: f64 = (1..PEERS)
        .map(|n| named.get(&peer_id(n)).copied().unwrap_or_default() as f64)
        .map(|count| (count - expected).powi(2) / expected)
        .sum();
    // For many degrees of freedom d, chi-square is normal around d with variance 2d; 4 deviations.
    let freedom = others - 1.0;
    let deviations = (chi_square - freedom) / (2.0 * freedom).sqrt();
    assert!(deviations.abs() < 4.0, "chi-square {chi_square} is {deviations} deviations off");
    // A pair comes together in one handout of 10,200: twice expected, so ten times is no chance.
    assert!(together <= 10, "peers 1 and 2 were named together {together} times");
}

#[test]
fn a_peer_is_forgotten_after_two_missed_intervals() {
    let mut world = World::with_peers(1);
    let start = world.now;
    world.now = start + INTERVAL;
    world.announce(announce(0)).expect("it is known");
    world.now += INTERVAL * 2;
    assert_eq!(world.counts(), Some(Counts { complete: 0, incomplete: 1 }));
    world.now += INTERVAL / 2;
    assert_eq!(world.counts(), None);
    assert_eq!(world.registry.peer_count(), 0);
}

#[test]
fn a_peer_that_stops_is_forgotten_at_once() {
    let mut world = World::with_peers(2);
    let left = world.registry.stop(world.now, content(0), peer_id(0), source(0));
    assert_eq!(left, Counts { complete: 0, incomplete: 1 });
    let left = world.registry.stop(world.now, content(0), peer_id(1), source(1));
    assert_eq!(left, Counts::default());
    assert_eq!(world.registry.swarm_count(), 0);
}

#[test]
fn a_peer_cannot_be_stopped_from_another_address() {
    let mut world = World::with_peers(1);
    let left = world.registry.stop(world.now, content(0), peer_id(0), source(1));
    assert_eq!(left, Counts { complete: 0, incomplete: 1 });
}

#[test]
fn completion_moves_a_peer_from_one_count_to_the_other() {
    let mut world = World::with_peers(2);
    let counts = world.announce(complete(1)).expect("it is known").counts;
    assert_eq!(counts, Counts { complete: 1, incomplete: 1 });
    world.registry.stop(world.now, content(0), peer_id(1), source(1));
    assert_eq!(world.counts(), Some(Counts { complete: 0, incomplete: 1 }));
}

/// Peer 0 from another address.
fn moved() -> Announce {
    let mut moved = announce(0);
    moved.peer.address = address("10.9.9.9:7072");
    moved.source = source(9);
    moved
}

impl World {
    /// The addresses of peer 0 that peer 1 receives.
    fn told(&mut self) -> Vec<Address> {
        let handout = self.announce(announce(1)).expect("there is room");
        handout.peers.into_iter().map(|peer| peer.address).collect()
    }
}

#[test]
fn a_peer_under_a_new_port_replaces_itself() {
    let mut world = World::with_peers(2);
    let mut other_port = announce(0);
    other_port.peer.address = address(&format!("{}:9", source(0)));
    world.announce(other_port).expect("it is known");
    assert_eq!(world.told(), [address(&format!("{}:9", source(0)))]);
}

#[test]
fn an_id_changes_its_source_only_when_its_entry_has_expired() {
    let mut world = World::with_peers(2);
    let handout = world.announce(moved()).expect("it is answered");
    assert_eq!(ids(&handout), [peer_id(1)].into());
    assert_eq!(world.told(), [announce(0).peer.address]);
    // It is not kept alive from elsewhere either, and is told when to come back.
    world.now += INTERVAL * 2;
    let handout = world.announce(moved()).expect("it is answered");
    assert_eq!(handout.interval, INTERVAL / 2);
    world.now += handout.interval;
    world.announce(moved()).expect("it is kept");
    assert_eq!(world.told(), [moved().peer.address]);
}

#[test]
fn all_swarms_that_share_a_tally_have_so_many_peers_together() {
    let settings = Settings { max_peers: 3, ..settings() };
    let mut world = World::new(settings.clone());
    let mut other = Registry::new(settings, world.registry.tally.clone(), world.now);
    other.announce(world.now, announce(0), &mut world.rng).expect("there is room");
    world.announce(announce(1)).expect("there is room");
    world.announce(Announce { content: content(1), ..announce(1) }).expect("there is room");
    assert_eq!(world.announce(announce(2)), Err(Refusal::Peers(3)));
    assert!(world.announce(announce(1)).is_ok(), "it is known");
    other.stop(world.now, content(0), peer_id(0), source(0));
    assert!(world.announce(announce(2)).is_ok());
}

#[test]
fn each_limit_refuses_new_peers_and_keeps_present_ones() {
    let mut world = World::new(Settings {
        max_swarms: 2,
        max_peers_per_swarm: 2,
        max_peers_per_address: 3,
        ..settings()
    });
    let from_one_address =
        |n, c| Announce { content: content(c), source: source(0), ..announce(n) };
    assert!(world.announce(from_one_address(0, 0)).is_ok());
    assert!(world.announce(from_one_address(1, 0)).is_ok());
    assert_eq!(world.announce(announce(2)), Err(Refusal::PeersOfSwarm(2)));
    assert!(world.announce(from_one_address(0, 1)).is_ok());
    assert_eq!(world.announce(from_one_address(3, 1)), Err(Refusal::PeersOfAddress(3)));
    let third = Announce { content: content(2), ..announce(4) };
    assert_eq!(world.announce(third), Err(Refusal::Swarms(2)));
    assert!(world.announce(from_one_address(1, 0)).is_ok());
    world.registry.stop(world.now, content(1), peer_id(0), source(0));
    assert!(world.announce(from_one_address(3, 1)).is_ok());
}

#[test]
fn an_ipv6_network_counts_as_one_address() {
    let mut world = World::new(Settings { max_peers_per_address: 1, ..settings() });
    let mut from = |n, text: &str| {
        let source = text.parse().expect("an IP address");
        world.announce(Announce { source, ..announce(n) }).map(drop)
    };
    assert_eq!(from(0, "2001:db8::1"), Ok(()));
    assert_eq!(from(1, "2001:db8::ffff:2"), Err(Refusal::PeersOfAddress(1)));
    assert_eq!(from(1, "2001:db8:0:1::1"), Ok(()));
    assert_eq!(from(2, "::ffff:10.0.0.1"), Ok(()));
    assert_eq!(from(3, "10.0.0.1"), Err(Refusal::PeersOfAddress(1)));
}

#[test]
fn peers_of_the_same_node_and_zone_come_first_for_a_part() {
    let mut world = World::new(settings());
    for n in 0..1_000 {
        let (zone, node) = match n {
            0..5 => ("a", "a1"),
            5..100 => ("a", "a2"),
            _ => ("b", "b1"),
        };
        world.announce(located(n, zone, node)).expect("there is room");
    }
    let handout = world.announce(located(0, "a", "a1")).expect("it is known");
    let of_node = handout.peers.iter().filter(|peer| peer.location.node == "a1").count();
    let of_zone = handout.peers.iter().filter(|peer| peer.location.zone == "a").count();
    assert_eq!(handout.peers.len(), 50);
    assert_eq!(of_node, 4);
    assert!((25..40).contains(&of_zone), "{of_zone} of the own zone");
}

#[test]
fn the_interval_is_jittered_around_its_setting() {
    let mut world = World::with_peers(1);
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let interval = world.announce(announce(0)).expect("it is known").interval;
        assert!((INTERVAL.mul_f64(0.9)..=INTERVAL.mul_f64(1.1)).contains(&interval));
        seen.insert(interval);
    }
    assert!(seen.len() > 10);
}

#[test]
fn a_tracker_warms_up_for_one_interval() {
    let world = World::new(settings());
    assert!(world.registry.is_warming(world.now + INTERVAL / 2));
    assert!(!world.registry.is_warming(world.now + INTERVAL));
}

#[test]
fn swarms_are_listed_in_pages_in_order() {
    let mut world = World::new(settings());
    for n in [3, 1, 2] {
        world.announce(Announce { content: content(n), ..announce(0) }).expect("there is room");
    }
    let mut page = |after, max| -> Vec<ContentId> {
        let swarms = world.registry.swarms_after(world.now, after, max);
        swarms.into_iter().map(|(content, _)| content).collect()
    };
    assert_eq!(page(None, 2), [content(1), content(2)]);
    assert_eq!(page(Some(content(2)), 2), [content(3)]);
    assert_eq!(page(Some(content(3)), 2), []);
}

/// What may happen to a registry.
#[derive(Clone, Copy, Debug)]
enum Step {
    Announce { peer: usize, content: u8, source: usize, complete: bool, zone: u8 },
    Stop { peer: usize, content: u8, source: usize },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_usize, 0..4_u8, 0..3_usize, any::<bool>(), 0..3_u8).prop_map(
            |(peer, content, source, complete, zone)| Step::Announce { peer, content, source, complete, zone }
        ),
        1 => (0..12_usize, 0..4_u8, 0..3_usize)
            .prop_map(|(peer, content, source)| Step::Stop { peer, content, source }),
        1 => (0..60_u64).prop_map(Step::Wait),
    ]
}

/// The registry as simple as possible: when, where and how each peer was last seen.
type Model = BTreeMap<(ContentId, PeerId), (Instant, IpAddr, bool)>;

fn play(world: &mut World, model: &mut Model, step: Step) {
    let time_to_live = INTERVAL.mul_f64(MISSED_INTERVALS);
    match step {
        Step::Announce { peer, content: c, source: s, complete, zone } => {
            let mut announce = located(peer, ["", "a", "b"][usize::from(zone)], "");
            announce.content = content(c);
            announce.source = source(s);
            announce.peer.complete = complete;
            let owner = model.get(&(content(c), peer_id(peer))).map(|(_, owner, _)| *owner);
            let is_owner = owner.is_none_or(|owner| owner == source(s));
            if world.announce(announce).is_ok() && is_owner {
                model.insert((content(c), peer_id(peer)), (world.now, source(s), complete));
            }
        }
        Step::Stop { peer, content: c, source: s } => {
            world.registry.stop(world.now, content(c), peer_id(peer), source(s));
            let key = (content(c), peer_id(peer));
            if model.get(&key).is_some_and(|(_, of, _)| *of == source(s)) {
                model.remove(&key);
            }
        }
        Step::Wait(seconds) => world.now += Duration::from_secs(seconds),
    }
    model.retain(|_, (seen, ..)| *seen + time_to_live > world.now);
}

proptest! {
    #[test]
    fn a_registry_holds_the_peers_seen_recently(steps in vec(step(), 1..80)) {
        let mut world = World::new(Settings {
            max_swarms: 3,
            max_peers_per_swarm: 6,
            max_peers_per_address: 8,
            ..settings()
        });
        let mut model = Model::new();
        for step in steps {
            play(&mut world, &mut model, step);
            let World { registry, now, rng } = &mut world;
            let mut found = Model::new();
            for (content, counts) in registry.swarms_after(*now, None, usize::MAX) {
                let (same, peers) = registry.swarm(*now, content, usize::MAX, rng).expect("listed");
                prop_assert_eq!(counts, same);
                prop_assert_eq!(counts.complete, peers.iter().filter(|p| p.complete).count());
                prop_assert_eq!(counts.complete + counts.incomplete, peers.len());
                prop_assert!(peers.len() <= 6);
                for peer in peers {
                    let known = model[&(content, peer.id)];
                    prop_assert_eq!(peer.complete, known.2);
                    found.insert((content, peer.id), known);
                }
            }
            prop_assert_eq!(&found, &model);
            prop_assert!(registry.swarm_count() <= 3);
            prop_assert_eq!(registry.peer_count(), model.len());
            prop_assert_eq!(registry.tally.peers(), model.len());
            prop_assert_eq!(registry.sources.values().sum::<usize>(), model.len());
            prop_assert!(registry.sources.values().all(|count| (1..=8).contains(count)));
        }
    }
}
