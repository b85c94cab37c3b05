//! How often progress is shown, and its rate.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::State;

/// The window of a rate: long enough to be steady, short enough to show a stall.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// Selects the updates to show: one per interval, and each change of state.
pub(super) struct Pace {
    interval: Duration,
    /// Also the first update waits for the interval, and so do changes of state. Seeding, which may
    /// last for weeks, is not shown.
    is_patient: bool,
    last: Option<(Instant, State)>,
}

impl Pace {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, is_patient: false, last: None }
    }

    /// Without updates in the first interval: what is done by then needs none.
    pub(super) const fn after(interval: Duration) -> Self {
        Self { interval, is_patient: true, last: None }
    }

    pub(super) fn is_due(&mut self, now: Instant, state: State) -> bool {
        if self.is_patient && (self.last.is_none() || state == State::Seeding) {
            self.last = Some((now, state));
            return false;
        }
        let too_soon = self.last.is_some_and(|(last, known)| {
            (known == state || self.is_patient) && now < last + self.interval
        });
        if !too_soon {
            self.last = Some((now, state));
        }
        !too_soon
    }
}

/// The rate at which bytes are processed in the present state.
#[derive(Default)]
pub(super) struct RateMeter {
    state: Option<State>,
    samples: VecDeque<(Instant, u64)>,
}

impl RateMeter {
    /// Bytes a second over the window, including this sample.
    pub(super) fn add(&mut self, now: Instant, state: State, done: u64) -> u64 {
        if self.state.replace(state) != Some(state) {
            self.samples.clear();
        }
        self.samples.push_back((now, done));
        while self.samples.len() > 2 && self.samples[1].0 + RATE_WINDOW <= now {
            self.samples.pop_front();
        }
        let (start, before) = self.samples[0];
        let seconds = now.duration_since(start).as_secs_f64();
        if seconds == 0.0 { 0 } else { (done.saturating_sub(before) as f64 / seconds) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        let mut at = |seconds, done| {
            meter.add(start + Duration::from_secs(seconds), State::Downloading, done)
        };
        assert_eq!(at(0, 100), 0);
        assert_eq!(at(1, 300), 200);
        assert_eq!(at(2, 300), 100);
        assert_eq!(at(10, 300), 0);
        assert_eq!(meter.add(start + Duration::from_secs(11), State::Seeding, 9000), 0);
    }

    #[test]
    fn a_change_of_state_is_shown_at_once() {
        let now = Instant::now();
        let mut pace = Pace::new(Duration::from_secs(2));
        assert!(pace.is_due(now, State::Resolving));
        assert!(!pace.is_due(now + Duration::from_secs(1), State::Resolving));
        assert!(pace.is_due(now + Duration::from_secs(1), State::Downloading));
        assert!(pace.is_due(now + Duration::from_secs(3), State::Downloading));
    }

    #[test]
    fn a_patient_pace_shows_nothing_early_and_no_seeding() {
        let start = Instant::now();
        let mut pace = Pace::after(Duration::from_secs(10));
        let mut is_due = |seconds, state| pace.is_due(start + Duration::from_secs(seconds), state);
        assert!(!is_due(0, State::Resolving));
        assert!(!is_due(5, State::Downloading));
        assert!(is_due(10, State::Downloading));
        assert!(!is_due(19, State::Downloading));
        assert!(is_due(20, State::Downloading));
        assert!(!is_due(90, State::Seeding));
    }
}
