//! A swarm and a ring keep their guarantees during a short run with faults of all kinds at once;
//! `make chaos` runs longer.

use std::{env, time::Duration};

use shoal_testkit::{
    chaos::{self, Setup},
    interrupt::Interrupt,
};

/// How long faults are injected.
const LENGTH: Duration = Duration::from_secs(20);
/// Its faults include a full disk while a peer's database writes. New seeds are for `make chaos`: a
/// test should give the same result every day.
const SEED: u64 = 11_278_731_787_149_732_288;

#[test]
fn a_swarm_and_a_ring_keep_their_guarantees_under_faults_and_attacks() {
    let seed = env::var("SHOAL_CHAOS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    println!("seed {seed}");
    let setup = Setup { seed, length: LENGTH, keep_logs: false };
    // Ctrl-C does not reach the processes of a run: the run ends them.
    let interrupt = Interrupt::listen().expect("a runtime");
    let report = chaos::run(&setup, &interrupt).expect("it runs");
    println!("{report}");
    assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
    assert!(report.fault_count() > 0, "there were no faults");
    assert!(report.swarm.compared > 0, "nothing was downloaded");
    assert!(report.ring.written > 0 && report.ring.swapped > 0, "nothing was written");
    assert!(!report.skipped.iter().any(|what| what.starts_with("clock")), "{:?}", report.skipped);
}
