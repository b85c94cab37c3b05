//! Which counts of other nodes are believed.
//!
//! Epochs, rounds of ballots and incarnations only ever grow, and the higher one goes before. Whoever
//! could tell the highest of all would have the last word for ever. None grows faster than time: an
//! incarnation begins as the time of its node's start, in milliseconds since the Unix epoch; an epoch
//! takes an agreement, of several round trips and fsyncs; a round is an attempt at one, with a wait of
//! 50 ms after it. So none is ever above the time in milliseconds since the Unix epoch, but for what
//! clocks differ, and what is above is refused. There is always a next one: what is highest now is not
//! a millisecond later.

use std::time::Duration;

use super::WireError;
use crate::time::unix_ms;

/// How far a count may be ahead of this node's clock: as clocks are that were set to the wrong time
/// zone, or the wrong day.
pub(super) const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// In place of an absurd count that an earlier version took, and has on the disk. All nodes put the
/// same in its place, it is above what rings come to (an agreement a millisecond for 34 years), and
/// below what is believed.
const IN_PLACE_OF_ABSURD: u64 = 1 << 40;

/// The highest count that is believed at present.
fn highest_count() -> u64 {
    unix_ms().max(IN_PLACE_OF_ABSURD).saturating_add(MAX_AHEAD.as_millis() as u64)
}

/// A count may have come about by now.
pub(crate) fn is_credible(count: u64) -> bool {
    count <= highest_count()
}

/// The count, if it may have come about by now.
pub(crate) fn credible(what: &'static str, got: u64) -> Result<u64, WireError> {
    if is_credible(got) { Ok(got) } else { Err(WireError::Absurd { what, got }) }
}

/// The count, or what stands in place of an absurd one. Tells whether it was absurd.
pub(super) fn mend(count: &mut u64) -> bool {
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

    #[test]
    fn a_count_is_believed_up_to_a_day_ahead() {
        let day = MAX_AHEAD.as_millis() as u64;
        let now = unix_ms();
        assert!(credible("epoch", 0).is_ok() && credible("epoch", now + day - 1).is_ok());
        let refused = credible("epoch", now + day + 60_000).expect_err("it is further ahead");
        assert!(refused.to_string().starts_with("epoch 1"), "{refused}");
        assert!(refused.to_string().contains("more than 1 days ahead"), "{refused}");
    }

    proptest! {
        #[test]
        fn what_is_believed_has_a_next_one_and_what_is_on_disk_is_mended(mut count: u64) {
            if credible("round", count).is_ok() {
                prop_assert!(count < u64::MAX / 2);
            }
            let kept = count;
            let is_mended = mend(&mut count);
            prop_assert!(is_credible(count + 1));
            prop_assert_eq!(is_mended, kept != count);
        }
    }
}
