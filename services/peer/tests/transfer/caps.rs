//! Rate caps are met within 3 %.

use std::time::Instant;

use shoal_common::units::Rate;
use shoal_core::swarm::FetchEnd;

use crate::harness::{Leecher, PIECE, Seeder};

const BYTES_PER_S: u64 = 20_000_000;
const SECONDS: u64 = 3;
const LENGTH: usize = (BYTES_PER_S * SECONDS) as usize;

fn rate() -> Option<Rate> {
    Rate::new(BYTES_PER_S)
}

/// Fetches all pieces by concurrent calls. Returns the bytes per second.
async fn measure(seeder: Seeder, mut leecher: Leecher) -> f64 {
    let source = leecher.source(&seeder.listening.address);
    let _serving = seeder.grant_all();
    let pieces: Vec<u32> = (0..LENGTH.div_ceil(PIECE as usize) as u32).collect();
    let started = Instant::now();
    let calls: Vec<_> =
        pieces.chunks(64).map(|pieces| source.fetch(leecher.fetch_spec(pieces))).collect();
    for _ in &calls {
        assert_eq!(leecher.until_end().await.1, FetchEnd::Done);
    }
    LENGTH as f64 / started.elapsed().as_secs_f64()
}

fn assert_met(rate: f64) {
    let ratio = rate / BYTES_PER_S as f64;
    assert!((0.97..=1.03).contains(&ratio), "{ratio} of the cap");
}

#[tokio::test]
async fn uploads_meet_their_cap() {
    let seeder = Seeder::capped(LENGTH, rate()).await;
    let leecher = Leecher::start(&seeder);
    assert_met(measure(seeder, leecher).await);
}

#[tokio::test]
async fn downloads_meet_their_cap() {
    let seeder = Seeder::start(LENGTH).await;
    let leecher = Leecher::capped(&seeder, rate());
    assert_met(measure(seeder, leecher).await);
}
