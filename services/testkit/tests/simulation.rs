//! Whole swarms in the simulator: how close they come to the lower bound of the completion time,
//! and which faults they survive.

use std::time::Duration;

use shoal_testkit::sim::{self, Fault, HostSetup, MBIT, Report, Setup};

const SIZE: u64 = 5_000_000;

/// Simulates with three seeds, and names the one that fails.
fn each_seed(setup: &Setup, check: impl Fn(&Report) -> bool) {
    for seed in 1..=3 {
        let report = sim::run(&Setup { seed, ..setup.clone() }, None).expect("the setup is valid");
        assert!(check(&report), "seed {seed} of {setup:?}:\n{report}");
    }
}

fn with_odd(n: usize, change: impl Fn(&mut HostSetup)) -> Setup {
    let mut setup = Setup::new(n, SIZE);
    change(&mut setup.hosts[1]);
    setup
}

#[test]
fn ten_peers_come_close_to_the_bound() {
    each_seed(&Setup::new(10, 2 * SIZE), |report| {
        report.ratio() < 1.05 && report.duplicate_share() < 0.02 && report.fairness() > 0.99
    });
}

#[test]
fn uneven_uplinks_are_all_used() {
    let uplinks = [200, 5, 20, 80, 5, 20, 80].map(|up| HostSetup::new(up * MBIT, 400 * MBIT));
    each_seed(&Setup::with_hosts(2 * SIZE, uplinks.to_vec()), |report| report.ratio() < 1.08);
}

#[test]
fn a_publisher_slower_than_its_peers_sends_each_piece_about_once() {
    let mut setup = Setup::new(8, SIZE);
    setup.hosts[0].up = 10 * MBIT;
    each_seed(&setup, |report| report.ratio() < 1.06);
}

#[test]
fn one_peer_alone_gets_the_whole_uplink() {
    for (mbit, latency) in [(1_000, 1_000), (200, 20_000), (10_000, 50)] {
        let hosts = vec![HostSetup::new(mbit * MBIT, mbit * MBIT); 2];
        let latency = Duration::from_micros(latency);
        let setup = Setup { latency, ..Setup::with_hosts(20 * SIZE, hosts) };
        each_seed(&setup, |report| report.ratio() < 1.1);
    }
}

#[test]
fn a_swarm_with_long_round_trips_stays_close_to_the_bound() {
    let setup = Setup { latency: Duration::from_millis(20), ..Setup::new(10, 2 * SIZE) };
    each_seed(&setup, |report| report.ratio() < 1.15);
}

#[test]
fn a_tight_downlink_is_filled() {
    let mut setup = Setup::new(10, SIZE);
    setup.hosts[1..].iter_mut().for_each(|host| host.down = 40 * MBIT);
    each_seed(&setup, |report| report.ratio() < 1.2);
}

#[test]
fn the_swarm_completes_when_the_publisher_dies_after_one_copy() {
    let faults = vec![Fault::PublisherDiesAfterOneCopy];
    each_seed(&Setup { faults, ..Setup::new(10, SIZE) }, |report| {
        report.last().is_some_and(|last| last < Duration::from_secs(10))
    });
}

#[test]
fn peers_leave_with_a_subset_and_return() {
    let leaves = |host| Fault::Leaves {
        host,
        at: Duration::from_millis(300),
        away: Some(Duration::from_millis(500)),
    };
    let faults = (1..=4).map(leaves).collect();
    each_seed(&Setup { faults, ..Setup::new(10, SIZE) }, |report| {
        report.last().is_some_and(|last| last < Duration::from_secs(3))
    });
}

#[test]
fn a_poisoner_is_banned_and_delays_the_swarm_little() {
    each_seed(&with_odd(10, |host| host.poisons = true), |report| {
        report.bans == 1 && report.ratio() < 1.6
    });
}

#[test]
fn a_peer_that_unchokes_and_never_sends_stalls_no_other() {
    each_seed(&with_odd(10, |host| host.silent = true), |report| report.ratio() < 1.2);
}

#[test]
fn a_free_rider_completes_last() {
    let mut setup = Setup { size: 3 * SIZE, ..with_odd(10, |host| host.free_rides = true) };
    setup.hosts[0].up = 50 * MBIT;
    each_seed(&setup, |report| {
        let [free_rider, ref others @ ..] = report.completions[..] else { return false };
        others.iter().all(|other| other.is_some() && *other <= free_rider)
    });
}

#[test]
fn a_peer_that_joins_late_completes() {
    let setup = with_odd(10, |host| host.joins = Duration::from_secs(1));
    each_seed(&setup, |report| report.last().is_some_and(|last| last < Duration::from_secs(3)));
}

#[test]
fn super_seeding_and_sequential_swarms_complete() {
    let setup = Setup::new(6, SIZE);
    each_seed(&Setup { super_seeding: true, ..setup.clone() }, |report| report.last().is_some());
    each_seed(&Setup { sequential: true, ..setup }, |report| report.last().is_some());
}

#[test]
fn equal_seeds_give_equal_traces() {
    let trace = |seed| {
        let mut trace = Vec::new();
        let faults = vec![Fault::PublisherDiesAfterOneCopy];
        let setup = Setup { seed, faults, ..Setup::new(8, SIZE / 2) };
        sim::run(&setup, Some(&mut trace)).unwrap();
        trace
    };
    assert!(trace(1) == trace(1), "the simulation is not deterministic");
    assert!(trace(1) != trace(2), "the seed decides nothing");
}
