use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::*;
use crate::address::address;

const CONTENT: ContentKey = ContentKey(1);

struct Fixture {
    peer_list: PeerList,
    now: Instant,
    rng: StdRng,
}

fn peer(number: u128) -> PeerId {
    PeerId::new(Uuid::from_u128(number))
}

fn candidate(number: u128) -> Candidate {
    Candidate {
        peer: peer(number),
        address: address(&format!("host{number}:7072")),
        complete: false,
    }
}

/// The peer list of peer 100 after hearing of `known`.
fn fixture(known: impl IntoIterator<Item = u128>) -> Fixture {
    // A base for virtual time: nothing depends on its value.
    #[allow(clippy::disallowed_methods)]
    let now = Instant::now();
    let mut peer_list = PeerList::new(PeerListSettings::default(), peer(100));
    peer_list.add_content(CONTENT, false);
    for number in known {
        peer_list.learn(now, CONTENT, candidate(number));
    }
    Fixture { peer_list, now, rng: StdRng::seed_from_u64(7) }
}

impl Fixture {
    fn dialled(&mut self) -> Vec<PeerId> {
        self.peer_list.dials(self.now, &mut self.rng).into_iter().map(|(_, c)| c.peer).collect()
    }

    fn admit(&mut self, number: u128, direction: Direction) -> Admission {
        let address = candidate(number).address;
        let origin = match direction {
            Direction::Outbound => Origin::Dialled(address.clone()),
            Direction::Inbound => seen(number, number as u8),
        };
        self.arrive(Arrival { peer: peer(number), address: Some(address), complete: false, origin })
    }

    fn arrive(&mut self, arrival: Arrival) -> Admission {
        self.peer_list.admit(self.now, CONTENT, arrival)
    }

    /// A peer of a host links to us, and gives no address to dial.
    fn admit_from(&mut self, host: u8, number: u128) -> Admission {
        let origin = seen(number, host);
        self.arrive(Arrival { peer: peer(number), address: None, complete: false, origin })
    }

    /// Dials all that is due in this time; all dials fail. Returns their addresses.
    fn dialled_in_vain_for(&mut self, time: Duration) -> Vec<Address> {
        let end = self.now + time;
        let mut led = Vec::new();
        while self.now < end {
            for (content, candidate) in self.peer_list.dials(self.now, &mut self.rng) {
                self.peer_list.dial_failed(self.now, content, candidate.peer, None, &mut self.rng);
                led.push(candidate.address);
            }
            self.now += Duration::from_millis(100);
        }
        led
    }
}

fn seen(number: u128, host: u8) -> Origin {
    Origin::Seen([10, 0, 0, host].into(), peer(number))
}

#[test]
fn it_dials_until_it_has_enough_neighbours_and_leaves_links_free() {
    let mut f = fixture(0..90);
    let first = f.dialled();
    assert_eq!(first.len(), 16);
    for peer in &first {
        assert_eq!(
            f.admit(u128::from_be_bytes(*peer.as_bytes()), Direction::Outbound),
            Admission::Keep
        );
    }
    assert_eq!(f.dialled().len(), 14);
    assert!(f.dialled().is_empty());
    for number in 200..234 {
        assert_eq!(f.admit(number, Direction::Inbound), Admission::Keep);
    }
    assert_eq!(f.admit(300, Direction::Inbound), Admission::Refuse(Refusal::Full));
    assert_eq!(f.peer_list.neighbours(CONTENT), 50);
}

#[test]
fn a_peer_that_cannot_be_reached_is_dialled_ever_more_rarely_and_then_forgotten() {
    let mut f = fixture([1]);
    let mut waits = Vec::new();
    while !f.dialled().is_empty() {
        f.peer_list.dial_failed(f.now, CONTENT, peer(1), None, &mut f.rng);
        assert!(f.dialled().is_empty(), "too early");
        let Some(at) = f.peer_list.next_deadline() else { break };
        waits.push(at - f.now);
        f.now = at;
    }
    assert_eq!(waits.len(), 7);
    assert_eq!(f.peer_list.next_deadline(), None);
    assert!(waits[6] > 8 * waits[0], "{waits:?}");
    // Named again it is dialled again, when its address has been left alone for long enough.
    f.peer_list.learn(f.now, CONTENT, candidate(1));
    assert!(f.dialled().is_empty());
    f.now += Duration::from_secs(30);
    assert_eq!(f.dialled(), [peer(1)]);
}

#[test]
fn both_ends_keep_the_crossed_link_of_the_smaller_id() {
    let mut smaller_is_them = fixture([1]);
    assert_eq!(smaller_is_them.admit(1, Direction::Outbound), Admission::Keep);
    assert_eq!(smaller_is_them.admit(1, Direction::Inbound), Admission::Replace);
    assert_eq!(
        smaller_is_them.admit(1, Direction::Outbound),
        Admission::Refuse(Refusal::Duplicate)
    );
    let mut smaller_is_me = fixture([200]);
    assert_eq!(smaller_is_me.admit(200, Direction::Outbound), Admission::Keep);
    assert_eq!(smaller_is_me.admit(200, Direction::Inbound), Admission::Refuse(Refusal::Duplicate));
    assert_eq!(smaller_is_me.peer_list.neighbours(CONTENT), 1);
}

#[test]
fn a_neighbour_that_comes_back_replaces_its_old_link() {
    let mut f = fixture([]);
    assert_eq!(f.admit(1, Direction::Inbound), Admission::Keep);
    assert_eq!(f.admit(1, Direction::Inbound), Admission::Replace);
    f.peer_list.link_down(f.now, CONTENT, peer(1));
    assert_eq!(f.peer_list.neighbours(CONTENT), 0);
    assert_eq!(f.admit(1, Direction::Inbound), Admission::Keep);
}

#[test]
fn an_address_that_we_dialled_and_banned_is_neither_dialled_nor_let_in_for_an_hour() {
    let mut f = fixture([]);
    f.peer_list.ban(f.now, Origin::Dialled(address("host1:7072")));
    f.peer_list.learn(f.now, CONTENT, candidate(1));
    assert!(f.dialled().is_empty());
    for direction in [Direction::Inbound, Direction::Outbound] {
        assert_eq!(f.admit(1, direction), Admission::Refuse(Refusal::Banned));
    }
    f.now += Duration::from_secs(3601);
    assert_eq!(f.admit(1, Direction::Inbound), Admission::Keep);
}

#[test]
fn a_neighbour_that_is_banned_is_not_dialled_again_while_the_ban_lasts() {
    let mut f = fixture([1]);
    assert_eq!(f.dialled(), [peer(1)]);
    assert_eq!(f.admit(1, Direction::Outbound), Admission::Keep);
    f.peer_list.ban(f.now, Origin::Dialled(candidate(1).address));
    f.peer_list.link_down(f.now, CONTENT, peer(1));
    for _ in 0..3600 {
        f.now += Duration::from_millis(999);
        assert!(f.dialled().is_empty(), "it is banned");
    }
    f.now = f.peer_list.next_deadline().expect("it is known still");
    assert_eq!(f.dialled(), [peer(1)]);
}

#[test]
fn a_ban_for_what_came_from_one_host_leaves_peers_of_others_alone() {
    let mut f = fixture([1]);
    f.peer_list.ban(f.now, seen(1, 66));
    assert_eq!(f.admit_from(66, 1), Admission::Refuse(Refusal::Banned));
    assert_eq!(f.admit_from(66, 2), Admission::Keep);
    assert_eq!(f.dialled(), [peer(1)]);
    assert_eq!(f.admit(1, Direction::Outbound), Admission::Keep);
    f.peer_list.link_down(f.now, CONTENT, peer(1));
    assert_eq!(f.admit(1, Direction::Inbound), Admission::Keep);
}

#[test]
fn bans_are_bounded_of_one_host_and_in_all() {
    let mut f = fixture([]);
    f.peer_list.ban(f.now, seen(1, 1));
    for number in 0..10_000 {
        f.now += Duration::from_millis(1);
        f.peer_list.ban(f.now, seen(number, 66));
    }
    assert_eq!(f.peer_list.bans.len(), 65);
    assert!(f.peer_list.is_banned(f.now, &seen(1, 1)));
    assert!(f.peer_list.is_banned(f.now, &seen(9_999, 66)));
    for number in 0..10_000 {
        f.peer_list.ban(f.now, Origin::Dialled(address(&format!("host{number}:1"))));
    }
    assert_eq!(f.peer_list.bans.len(), 1024);
}

#[test]
fn a_link_from_another_host_does_not_replace_one_with_the_same_id() {
    let mut f = fixture([]);
    assert_eq!(f.admit_from(1, 1), Admission::Keep);
    assert_eq!(f.admit_from(66, 1), Admission::Refuse(Refusal::Duplicate));
    assert_eq!(f.admit_from(1, 1), Admission::Replace);
    assert_eq!(f.peer_list.neighbours(CONTENT), 1);
}

#[test]
fn hosts_that_dial_us_cannot_take_the_links_reserved_for_our_own_dials() {
    let mut f = fixture([]);
    for number in 0..25 {
        assert_eq!(f.admit_from(66, number), Admission::Keep);
    }
    assert_eq!(f.admit_from(66, 25), Admission::Refuse(Refusal::Crowded));
    for number in 200..215 {
        assert_eq!(f.admit(number, Direction::Inbound), Admission::Keep);
    }
    assert_eq!(f.admit(215, Direction::Inbound), Admission::Refuse(Refusal::Full));
    for number in 300..310 {
        assert_eq!(f.admit(number, Direction::Outbound), Admission::Keep);
    }
    assert_eq!(f.admit(310, Direction::Outbound), Admission::Refuse(Refusal::Full));
    f.peer_list.link_down(f.now, CONTENT, peer(0));
    assert_eq!(f.admit_from(66, 25), Admission::Keep);
}

#[test]
fn a_victims_address_is_dialled_as_rarely_as_if_it_were_named_once() {
    let mut f = fixture([]);
    let contents = [CONTENT, ContentKey(2), ContentKey(3)];
    for content in contents {
        f.peer_list.add_content(content, false);
        for number in 1000..2000 {
            let forged = Candidate { address: address("10.9.9.9:22"), ..candidate(number) };
            f.peer_list.learn(f.now, content, forged);
        }
    }
    let led = f.dialled_in_vain_for(Duration::from_secs(12));
    assert!((4..=8).contains(&led.len()), "{}", led.len());
}

#[test]
fn the_ports_of_one_host_are_not_scanned() {
    let mut f = fixture([]);
    for port in 0..1000 {
        let address = address(&format!("10.9.9.9:{port}"));
        f.peer_list.learn(f.now, CONTENT, Candidate { address, ..candidate(1000 + port) });
    }
    f.peer_list.learn(f.now, CONTENT, candidate(1));
    let led = f.dialled_in_vain_for(Duration::from_secs(12));
    let ports = led.iter().filter(|address| address.host() == "10.9.9.9").count();
    assert!((64..=64 + 16 + 4 * 12).contains(&ports), "{ports}");
    assert!(led.contains(&candidate(1).address));
    assert!(f.peer_list.may_probe(f.now, [10, 0, 0, 1].into()));
    assert!(!f.peer_list.may_probe(f.now, [10, 9, 9, 9].into()));
}

#[test]
fn an_address_is_dialled_by_one_content_at_a_time() {
    let mut f = fixture([1]);
    f.peer_list.add_content(ContentKey(2), false);
    f.peer_list.learn(f.now, ContentKey(2), candidate(1));
    assert_eq!(f.dialled(), [peer(1)]);
    assert!(f.dialled().is_empty());
    assert_eq!(f.admit(1, Direction::Outbound), Admission::Keep);
    assert_eq!(f.dialled(), [peer(1)]);
}

#[test]
fn the_first_claim_of_id_and_address_holds_until_a_dial_disproves_it() {
    let mut f = fixture([1]);
    let elsewhere = Candidate { address: address("10.9.9.9:22"), ..candidate(1) };
    f.peer_list.learn(f.now, CONTENT, elsewhere.clone());
    f.peer_list.learn(f.now, CONTENT, Candidate { address: candidate(1).address, ..candidate(2) });
    let dials = f.peer_list.dials(f.now, &mut f.rng);
    assert_eq!(dials, [(CONTENT, candidate(1))]);
    f.peer_list.dial_failed(f.now, CONTENT, peer(1), None, &mut f.rng);
    f.peer_list.learn(f.now, CONTENT, elsewhere.clone());
    let dials = f.peer_list.dials(f.now, &mut f.rng);
    assert_eq!(dials, [(CONTENT, elsewhere)]);
    // Another peer answers there.
    f.peer_list.dial_failed(f.now, CONTENT, peer(1), Some(peer(3)), &mut f.rng);
    assert_eq!(f.dialled(), [peer(3)]);
}

#[test]
fn candidates_are_bounded_and_those_that_fail_make_room_first() {
    let mut f = fixture(0..90);
    let of_one_host = |number: u128| {
        let address = address(&format!("10.9.9.9:{number}"));
        Candidate { address, ..candidate(10_000 + number) }
    };
    for number in 0..1000 {
        f.peer_list.learn(f.now, CONTENT, of_one_host(number));
    }
    let known = |f: &Fixture| f.peer_list.contents[&CONTENT].entries.len();
    assert_eq!(known(&f), 90 + 250);
    for number in 20_000..22_000 {
        f.peer_list.learn(f.now, CONTENT, candidate(number));
    }
    assert_eq!(known(&f), 500);
    // Ids that come and go leave nothing behind.
    for number in 40_000..40_300 {
        assert_eq!(f.admit(number, Direction::Inbound), Admission::Keep);
        f.peer_list.link_down(f.now, CONTENT, peer(number));
    }
    assert_eq!(known(&f), 500);
    f.dialled_in_vain_for(Duration::from_secs(1));
    f.peer_list.learn(f.now, CONTENT, candidate(50_000));
    assert!(f.peer_list.contents[&CONTENT].entries.contains_key(&peer(50_000)));
}

#[test]
fn a_complete_peer_does_not_dial_a_complete_one() {
    let mut f = fixture([]);
    f.peer_list.learn(f.now, CONTENT, Candidate { complete: true, ..candidate(1) });
    f.peer_list.learn(f.now, CONTENT, candidate(2));
    f.peer_list.completed(CONTENT);
    assert_eq!(f.dialled(), [peer(2)]);
}

#[test]
fn it_never_links_to_itself() {
    let mut f = fixture([100]);
    assert!(f.dialled().is_empty());
    assert_eq!(f.admit(100, Direction::Inbound), Admission::Refuse(Refusal::Myself));
}

#[test]
fn peers_that_never_answer_do_not_delay_others() {
    let mut f = fixture(0..40);
    let mut dialled = f.dialled().len();
    assert_eq!((dialled, f.dialled().len()), (16, 0));
    for round in 1..3 {
        f.now += Duration::from_secs(1);
        assert!(f.peer_list.next_deadline().is_some_and(|at| at <= f.now));
        dialled += f.dialled().len();
        assert_eq!(dialled, (16 * (round + 1)).min(40));
    }
}

#[test]
fn dials_of_all_contents_together_are_bounded_by_the_free_links() {
    let mut f = fixture([]);
    let settings = PeerListSettings { max_links: 3, ..PeerListSettings::default() };
    let turn = settings.dial_turn;
    f.peer_list = PeerList::new(settings, peer(100));
    for content in 0..4 {
        f.peer_list.add_content(ContentKey(content), false);
        for number in 0..2 {
            let known = candidate((2 * content + number).into());
            f.peer_list.learn(f.now, ContentKey(content), known);
        }
    }
    assert_eq!(f.dialled().len(), 3);
    assert_eq!(
        f.peer_list.next_deadline(),
        Some(f.now + turn),
        "nobody else is dialled until then"
    );
    f.now += turn;
    assert_eq!(f.dialled().len(), 3, "who never answers holds up nobody");
    assert_eq!(f.peer_list.next_deadline(), Some(f.now + turn));
}

#[test]
fn a_peer_that_gave_the_manifest_is_dialled_first_whatever_fails_at_its_host() {
    let at = |number: u128| Candidate {
        address: address(&format!("host:{number}")),
        ..candidate(number)
    };
    let mut f = fixture([]);
    for number in 1..200 {
        f.peer_list.learn(f.now, CONTENT, at(number));
    }
    let mut led = f.dialled_in_vain_for(Duration::from_secs(1));
    let honest = (1..200).map(at).find(|it| !led.contains(&it.address)).expect("few are dialled");
    f.peer_list.answered(f.now, CONTENT, &honest.address);
    assert_eq!(f.dialled()[0], honest.peer);
    // Once only: if it does not answer this time, it is one of them.
    f.peer_list.dial_failed(f.now, CONTENT, honest.peer, None, &mut f.rng);
    led = f.dialled_in_vain_for(Duration::from_secs(1));
    assert!(led.len() < 6, "{led:?}");
}
