//! Which counters of other nodes are credible.
//!
//! Epochs, rounds of ballots and incarnations only ever grow, and the higher one wins. A node that
//! could claim the highest of all would win forever. None grows faster than time: an incarnation
//! begins as the start time of its node, in milliseconds since the Unix epoch; an epoch takes a
//! reconfiguration, with several round trips and fsyncs; a round is an attempt at one, with a pause
//! of 50 ms after it. So none is ever above the time in milliseconds since the Unix epoch, apart
//! from differences between clocks, and a higher one is refused. There is always a next one: the
//! highest value now is not the highest a millisecond later.

use std::time::Duration;

use crate::time::unix_ms;

/// How far a counter may be ahead of this node's clock: as far as a clock that was set to the wrong
/// time zone, or the wrong day.
pub(crate) const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// Replaces an absurd counter that an earlier version accepted and stored. All nodes use the same
/// value. It is above what rings reach (a reconfiguration each millisecond for 34 years), and below
/// what is credible.
const IN_PLACE_OF_ABSURD: u64 = 1 << 40;

/// The highest credible counter at present.
fn highest_count() -> u64 {
    unix_ms().max(IN_PLACE_OF_ABSURD).saturating_add(MAX_AHEAD.as_millis() as u64)
}

/// Whether the counter can have been reached by now.
pub(crate) fn is_credible(count: u64) -> bool {
    count <= highest_count()
}

/// Replaces an absurd counter. Returns whether it was absurd.
pub(crate) fn mend(count: &mut u64) -> bool {
    let is_absurd = !is_credible(*count);
    if is_absurd {
        *count = IN_PLACE_OF_ABSURD;
    }
    is_absurd
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_credible_counter_has_a_next_one_and_an_absurd_one_on_disk_is_replaced(mut count: u64) {
            if is_credible(count) {
                prop_assert!(count < u64::MAX / 2);
            }
            let kept = count;
            let is_mended = mend(&mut count);
            prop_assert!(is_credible(count + 1));
            prop_assert_eq!(is_mended, kept != count);
        }
    }
}
