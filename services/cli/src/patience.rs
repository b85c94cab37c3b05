//! How long a download may take, and how long it may stand still.

use std::time::{Duration, Instant};

use shoal_common::units::duration::shown;

use crate::{
    args::PatienceArgs,
    exit::{Exit, Failure},
};

/// The limits of a download, from its start on.
pub(crate) struct Patience {
    limits: PatienceArgs,
    started: Instant,
    /// When the last byte arrived, and how many had by then.
    moved: (Instant, u64),
}

impl Patience {
    pub(crate) const fn new(limits: PatienceArgs, now: Instant) -> Self {
        Self { limits, started: now, moved: (now, 0) }
    }

    /// Notes how many bytes have arrived. They may be fewer than before, after a failed piece.
    pub(crate) const fn note(&mut self, now: Instant, bytes: u64) {
        if bytes != self.moved.1 {
            self.moved = (now, bytes);
        }
    }

    /// When to check the limits next; none if there are none.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let whole = self.limits.timeout.map(|limit| self.started + limit);
        let stall = self.limits.stall_timeout.map(|limit| self.moved.0 + limit);
        [whole, stall].into_iter().flatten().min()
    }

    /// An error if a limit is exceeded; `cause` is why nothing arrives, if that is known.
    pub(crate) fn check(&self, now: Instant, cause: &str) -> Result<(), Failure> {
        let exceeded = |limit: Option<Duration>, since: Instant| {
            limit.filter(|limit| now.duration_since(since) >= *limit)
        };
        let because = if cause.is_empty() { String::new() } else { format!(": {cause}") };
        if let Some(limit) = exceeded(self.limits.timeout, self.started) {
            let message = format!("not complete after {}{because}", shown(limit));
            return Err(Failure::new(Exit::TimedOut, message));
        }
        if let Some(limit) = exceeded(self.limits.stall_timeout, self.moved.0) {
            let message = format!("nothing arrived for {}{because}", shown(limit));
            return Err(Failure::new(Exit::Stalled, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_download_may_take_long_or_stand_still_within_its_limits() {
        let start = Instant::now();
        let limits = PatienceArgs { timeout: Some(10 * SECOND), stall_timeout: Some(3 * SECOND) };
        let mut patience = Patience::new(limits, start);
        patience.note(start + 2 * SECOND, 7);
        patience.note(start + 4 * SECOND, 7);
        assert_eq!(patience.deadline(), Some(start + 5 * SECOND));
        assert!(patience.check(start + 4 * SECOND, "").is_ok());
        let stalled = patience.check(start + 5 * SECOND, "no peer").unwrap_err();
        assert_eq!(stalled.exit(), Exit::Stalled);
        assert_eq!(stalled.to_string(), "nothing arrived for 3s: no peer");
        patience.note(start + 9 * SECOND, 8);
        let late = patience.check(start + 10 * SECOND, "").unwrap_err();
        assert_eq!((late.exit(), &*late.to_string()), (Exit::TimedOut, "not complete after 10s"));
        let unlimited = Patience::new(PatienceArgs { timeout: None, stall_timeout: None }, start);
        assert_eq!(unlimited.deadline(), None);
    }
}
