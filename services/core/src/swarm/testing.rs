//! What the tests of the brain share.

use std::time::Instant;

/// Some instant; tests only add to it.
#[expect(clippy::disallowed_methods, reason = "an Instant can be made in no other way")]
pub(super) fn epoch() -> Instant {
    Instant::now()
}
