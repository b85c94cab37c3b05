//! The tracker's registry under any sequence of announces, stops and queries.

#![no_main]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rand::{SeedableRng as _, rngs::StdRng};
use shoal_core::{
    PeerId,
    content::ContentId,
    registry::{Announce, Location, Peer, Registry, Settings, Tally},
};
use shoal_fuzz::epoch;
use uuid::Uuid;

const SETTINGS: Settings = Settings {
    interval: Duration::from_secs(30),
    max_swarms: 4,
    max_peers: 20,
    max_peers_per_swarm: 8,
    max_peers_per_address: 6,
    near_percent: 50,
};

#[derive(Arbitrary, Debug)]
struct Step {
    /// Time that passes before it.
    seconds: u8,
    content: u8,
    peer: u8,
    source: u8,
    call: Call,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Announce { numwant: u8, complete: bool, zone: bool, node: u8 },
    Stop,
    Look { max: u8 },
    List { after: Option<u8>, max: u8 },
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = epoch();
    let mut rng = StdRng::seed_from_u64(1);
    let mut registry = Registry::new(SETTINGS, Tally::default(), now);
    for Step { seconds, content, peer, source, call } in steps {
        now += Duration::from_secs(seconds.into());
        let content = content_id(content);
        let id = PeerId::new(Uuid::from_u128(peer.into()));
        let source = IpAddr::from(Ipv4Addr::new(10, 0, 0, source % 4));
        match call {
            Call::Announce { numwant, complete, zone, node } => {
                let location = Location {
                    region: String::new(),
                    zone: if zone { "a".to_owned() } else { String::new() },
                    node: node.to_string(),
                };
                let address = SocketAddr::new(source, 7072).into();
                let peer = Peer { id, address, location, complete };
                let announce = Announce { content, peer, source, numwant: numwant.into() };
                if let Ok(handout) = registry.announce(now, announce, &mut rng) {
                    assert!(handout.peers.len() <= usize::from(numwant));
                    assert!(
                        handout.peers.iter().all(|peer| peer.id != id),
                        "it is handed out to itself"
                    );
                }
            }
            Call::Stop => drop(registry.stop(now, content, id, source)),
            Call::Look { max } => drop(registry.swarm(now, content, max.into(), &mut rng)),
            Call::List { after, max } => {
                let listed = registry.swarms_after(now, after.map(content_id), max.into());
                assert!(listed.is_sorted_by(|a, b| a.0 < b.0));
            }
        }
        assert!(registry.swarm_count() <= SETTINGS.max_swarms);
        assert!(registry.peer_count() <= SETTINGS.max_peers);
    }
    now += SETTINGS.interval * 3;
    registry.expire(now);
    assert_eq!(
        (registry.swarm_count(), registry.peer_count()),
        (0, 0),
        "some peers have not expired"
    );
});

fn content_id(number: u8) -> ContentId {
    ContentId::from_bytes([number % 8; 32])
}
