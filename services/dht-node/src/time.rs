//! The wall clock, one that nobody sets, and those of other nodes.

use std::{
    collections::HashMap,
    sync::LazyLock,
    time::{Duration, Instant},
};

pub(crate) use shoal_common::clock::unix_ms;
use shoal_common::lock::Mutex;
use shoal_core::ring::NodeId;

/// How long a write may be on its way before it begins.
pub(crate) const WINDOW: Duration = Duration::from_secs(2);
/// A window may seem to be so much longer, as clocks differ, before whoever set it is told.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(1);
/// Nodes whose clocks are remembered, at most.
const MAX_CLOCKS: usize = 65_536;

/// Milliseconds since the Unix epoch, as the wall clock was set when this was first asked. Nobody sets
/// this one meanwhile: while a wall clock is set back, what was late comes in time again.
pub(crate) fn steady_ms() -> u64 {
    static FIRST: LazyLock<(u64, Instant)> = LazyLock::new(|| (unix_ms(), Instant::now()));
    let (first_ms, since) = *FIRST;
    first_ms.saturating_add(millis(since.elapsed()))
}

/// When a write may begin, by this node's [steady clock](steady_ms). What a network held back for longer does not happen
/// any more: whoever asked for it may have gone on to write something else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    not_after_ms: u64,
}

impl Window {
    /// It is open until then, if somebody has set that, or for the usual time.
    pub(crate) fn until(not_after_ms: Option<u64>) -> Self {
        Self {
            not_after_ms: not_after_ms
                .unwrap_or_else(|| steady_ms().saturating_add(millis(WINDOW))),
        }
    }

    /// Not so if it is over, or ends so far away that another clock was meant.
    pub(crate) fn is_open(self) -> bool {
        self.is_open_at(steady_ms())
    }

    fn is_open_at(self, now_ms: u64) -> bool {
        let latest_ms = now_ms.saturating_add(millis(WINDOW + TOLERANCE));
        (now_ms..=latest_ms).contains(&self.not_after_ms)
    }
}

/// How far the steady clocks of other nodes are ahead of this one's, where they said so.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Mutex<HashMap<NodeId, i64>>);

impl Clocks {
    /// When a window that opens now is over, by the clock of another node.
    pub(crate) fn end_of_window_at(&self, node: NodeId) -> u64 {
        let clocks = self.0.lock();
        let ahead = clocks.get(&node).copied().unwrap_or_default();
        steady_ms().saturating_add_signed(ahead).saturating_add(millis(WINDOW))
    }

    /// A node has just said what time it is there. It is later there by now.
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
    fn a_window_is_open_for_a_while_and_not_in_the_far_future() {
        assert!(Window::until(None).is_open());
        let ends = |ms: i64| Window::until(steady_ms().checked_add_signed(ms)).is_open();
        assert!(!ends(-1) && ends(1_000) && ends(2_500) && !ends(60_000));
        assert!(!Window::until(Some(0)).is_open() && !Window::until(Some(u64::MAX)).is_open());
        // Of a clock that stands at its end.
        assert!(Window::until(Some(u64::MAX)).is_open_at(u64::MAX - 1));
    }

    #[test]
    fn a_window_elsewhere_goes_by_the_time_that_was_told_there() {
        let (clocks, node) = (Clocks::default(), NodeId::new(Uuid::from_u128(7)));
        for ahead in [-3_600_000, 0, 3_600_000] {
            clocks.note(node, steady_ms().saturating_add_signed(ahead));
            let end = clocks.end_of_window_at(node).cast_signed();
            let here = steady_ms().cast_signed();
            assert!((end - here - ahead - 2_000).abs() < 1_000, "{ahead}");
        }
        for nonsense in [0, 1 << 63, u64::MAX] {
            clocks.note(node, nonsense);
            assert!(clocks.end_of_window_at(node) > 0);
        }
    }
}
