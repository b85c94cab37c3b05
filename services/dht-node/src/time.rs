//! The wall clock, a steady clock, and the clocks of other nodes.

use std::{
    collections::HashMap,
    sync::LazyLock,
    time::{Duration, Instant},
};

pub(crate) use shoal_common::clock::unix_ms;
use shoal_common::lock::Mutex;
use shoal_core::ring::NodeId;

/// How long a write may be in transit before it begins.
pub(crate) const START_WINDOW: Duration = Duration::from_secs(2);
/// How much longer a window may appear to be, because clocks differ, before its sender is told the
/// time.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(1);
/// Nodes whose clocks are remembered, at most.
const MAX_CLOCKS: usize = 65_536;

/// Milliseconds since the Unix epoch: the wall clock as it was at the first call, advanced by a
/// monotonic clock. With a wall clock, setting the clock back would make a delayed write timely
/// again.
pub(crate) fn steady_ms() -> u64 {
    static FIRST: LazyLock<(u64, Instant)> = LazyLock::new(|| (unix_ms(), Instant::now()));
    let (first_ms, since) = *FIRST;
    first_ms.saturating_add(millis(since.elapsed()))
}

/// When a write may begin, by this node's [steady clock](steady_ms). A write that the network
/// delayed for longer is rejected: its sender may have written something else in the meantime.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartWindow {
    not_after_ms: u64,
}

impl StartWindow {
    /// A window until this time, if there is one, else of the default length.
    pub(crate) fn until(not_after_ms: Option<u64>) -> Self {
        Self {
            not_after_ms: not_after_ms
                .unwrap_or_else(|| steady_ms().saturating_add(millis(START_WINDOW))),
        }
    }

    /// False if it is over, or ends so far in the future that another clock was meant.
    pub(crate) fn is_open(self) -> bool {
        self.is_open_at(steady_ms())
    }

    fn is_open_at(self, now_ms: u64) -> bool {
        let latest_ms = now_ms.saturating_add(millis(START_WINDOW + TOLERANCE));
        (now_ms..=latest_ms).contains(&self.not_after_ms)
    }
}

/// How far the steady clocks of other nodes are ahead of this one, where they have reported it.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Mutex<HashMap<NodeId, i64>>);

impl Clocks {
    /// The end of a window that opens now, by the clock of another node.
    pub(crate) fn end_of_start_window_at(&self, node: NodeId) -> u64 {
        let clocks = self.0.lock();
        let ahead = clocks.get(&node).copied().unwrap_or_default();
        steady_ms().saturating_add_signed(ahead).saturating_add(millis(START_WINDOW))
    }

    /// A node has just reported its time. Its clock has advanced since.
    pub(crate) fn note(&self, node: NodeId, steady_ms_there: u64) {
        let mut clocks = self.0.lock();
        if clocks.len() >= MAX_CLOCKS {
            clocks.clear();
        }
        clocks.insert(node, steady_ms_there.wrapping_sub(steady_ms()).cast_signed());
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_start_window_is_open_for_a_while_and_not_in_the_far_future() {
        assert!(StartWindow::until(None).is_open());
        let ends = |ms: i64| StartWindow::until(steady_ms().checked_add_signed(ms)).is_open();
        assert!(!ends(-1) && ends(1_000) && ends(2_500) && !ends(60_000));
        assert!(
            !StartWindow::until(Some(0)).is_open() && !StartWindow::until(Some(u64::MAX)).is_open()
        );
        // A clock at its maximum.
        assert!(StartWindow::until(Some(u64::MAX)).is_open_at(u64::MAX - 1));
    }

    #[test]
    fn a_start_window_elsewhere_follows_the_clock_that_was_reported_there() {
        let (clocks, node) = (Clocks::default(), NodeId::new(Uuid::from_u128(7)));
        for ahead in [-3_600_000, 0, 3_600_000] {
            clocks.note(node, steady_ms().saturating_add_signed(ahead));
            let end = clocks.end_of_start_window_at(node).cast_signed();
            let here = steady_ms().cast_signed();
            assert!((end - here - ahead - 2_000).abs() < 1_000, "{ahead}");
        }
        for nonsense in [0, 1 << 63, u64::MAX] {
            clocks.note(node, nonsense);
            assert!(clocks.end_of_start_window_at(node) > 0);
        }
    }
}
