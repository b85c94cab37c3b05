//! A rate limit, shared by all transfers of one direction.

use std::{num::NonZeroU32, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use shoal_common::units::Rate;

/// Bytes that are accounted for together. The limiter counts whole nanoseconds for each, and one
/// byte takes 3.3 of them at 300 MB/s.
const CELL_BYTES: u64 = 1024;

/// The burst after a pause: enough to hide that timers fire a millisecond late, and less than 1 %
/// of a few seconds.
const BURST: Duration = Duration::from_millis(20);

/// The burst of a low limit: the smallest block.
const MIN_BURST_CELLS: u64 = 16;

/// A limit in bytes a second for one direction.
#[derive(Debug)]
pub struct RateCap(Option<Limiter>);

#[derive(Debug)]
struct Limiter {
    governor: DefaultDirectRateLimiter,
    burst: NonZeroU32,
}

impl RateCap {
    /// A limit of this rate; none lets everything pass.
    pub fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(Limiter::new))
    }

    /// Waits until this many bytes may pass.
    pub async fn pass(&self, bytes: u32) {
        let Some(Limiter { governor, burst }) = &self.0 else { return };
        let mut cells = bytes.div_ceil(CELL_BYTES as u32);
        while let Some(wanted) = NonZeroU32::new(cells.min(burst.get())) {
            governor.until_n_ready(wanted).await.expect("a burst fits in the quota");
            cells -= wanted.get();
        }
    }
}

impl Limiter {
    fn new(rate: Rate) -> Self {
        let bytes_per_s = rate.bytes_per_s().get();
        let nanos_per_cell = (CELL_BYTES * 1_000_000_000 / bytes_per_s).max(1);
        let cells = BURST.as_nanos() as u64 / nanos_per_cell;
        let burst = u32::try_from(cells.max(MIN_BURST_CELLS)).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(burst).expect("at least the smallest burst");
        let quota = Quota::with_period(Duration::from_nanos(nanos_per_cell))
            .expect("at least a nanosecond")
            .allow_burst(burst);
        Self { governor: RateLimiter::direct(quota), burst }
    }
}
