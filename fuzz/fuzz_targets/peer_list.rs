//! The peer list under any sequence of candidates, dials, Hellos and links.

#![no_main]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shoal_core::{
    Address,
    peer_list::{Arrival, Candidate, Origin, PeerListSettings},
    swarm::ContentKey,
};
use shoal_fuzz::{
    epoch,
    peer_list::{CONTENTS, Hello, Shell, peer},
};

#[derive(Arbitrary, Debug)]
struct Step {
    milliseconds: u16,
    content: u8,
    peer: u8,
    host: u8,
    port: u8,
    complete: bool,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Add,
    Completed,
    Remove,
    Learn,
    Dial,
    DialFailed { dial: u8, other: bool },
    Answered { dial: u8 },
    Hello,
    HelloBytes(Vec<u8>),
    LinkDown { link: u8 },
    Ban { link: u8 },
    Probe { fails: bool },
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = epoch();
    let settings = PeerListSettings {
        max_neighbours: 4,
        reserved_for_dialled: 1,
        max_neighbours_per_host: 2,
        dial_until: 3,
        max_links: 6,
        max_dials: 2,
        max_candidates: 6,
        max_candidates_per_host: 3,
        host_failures: 2.0,
        max_bans: 3,
        max_bans_per_host: 2,
        ..PeerListSettings::default()
    };
    let mut shell = Shell::new(settings);
    for step in steps {
        now += Duration::from_millis(step.milliseconds.into());
        take(&mut shell, now, &step);
        shell.check();
    }
});

fn take(shell: &mut Shell, now: Instant, step: &Step) -> Option<()> {
    let content = ContentKey((step.content % CONTENTS).into());
    let host = IpAddr::from(Ipv4Addr::new(10, 0, 0, step.host % 4));
    let address = Address::from(SocketAddr::new(host, 7000 + u16::from(step.port % 4)));
    let (peer, complete) = (peer(step.peer), step.complete);
    match &step.what {
        What::Add => shell.peer_list.add_content(content, complete),
        What::Completed => shell.peer_list.completed(content),
        What::Remove => shell.remove(content),
        What::Learn => shell.peer_list.learn(now, content, Candidate { peer, address, complete }),
        What::Dial => shell.dial(now),
        What::DialFailed { dial, other } => {
            let (content, candidate) = shell.end_dial(*dial)?;
            let answers = other.then_some(peer);
            let Shell { peer_list, rng, .. } = shell;
            peer_list.dial_failed(now, content, candidate.peer, answers, rng);
        }
        What::Answered { dial } => {
            let (content, Candidate { peer, address, .. }) = shell.end_dial(*dial)?;
            let origin = Origin::Dialled(address.clone());
            let arrival = Arrival { peer, address: Some(address), complete, origin };
            shell.admit(now, content, arrival);
        }
        What::Hello => {
            let hello = Hello { content, peer, address, complete };
            shell.greet(now, &hello.message(), host);
        }
        What::HelloBytes(bytes) => shell.greet(now, bytes, host),
        What::LinkDown { link } => {
            let (content, peer) = shell.end_link(*link)?.0;
            shell.peer_list.link_down(now, content, peer);
        }
        What::Ban { link } => {
            let ((content, peer), origin) = shell.end_link(*link)?;
            shell.peer_list.ban(now, origin.clone());
            shell.peer_list.link_down(now, content, peer);
            assert!(shell.peer_list.is_banned(now, &origin));
        }
        What::Probe { fails } => {
            if shell.peer_list.may_probe(now, host) && *fails {
                shell.peer_list.probe_failed(now, host);
            }
        }
    }
    Some(())
}
