//! Failure detection: how often in a row a node did not answer.
//!
//! Calls that wait during the same pause of a node say no more than one of them does. So a call
//! that timed out counts only if it was made after the last counted one timed out.

use std::{collections::HashMap, time::Instant};

use crate::ring::NodeId;

/// Consecutive calls that a node left unanswered; calls that waited at the same time count once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unanswered {
    count: u32,
    /// When the last counted call timed out.
    counted_at: Option<Instant>,
}

impl Unanswered {
    /// A call that was made at `asked` times out now.
    pub(super) fn note(&mut self, asked: Instant, now: Instant) {
        if self.counted_at.is_none_or(|counted_at| asked >= counted_at) {
            self.count = self.count.saturating_add(1);
            self.counted_at = Some(now);
        }
    }

    /// Their number.
    pub(super) const fn count(self) -> u32 {
        self.count
    }
}

/// The nodes that left calls unanswered since their last answer.
#[derive(Debug, Default)]
pub(in crate::ring) struct FailureDetector(HashMap<NodeId, Unanswered>);

impl FailureDetector {
    /// As many as have recorded timeouts ([`super::TimeoutSettings::max_nodes`]): anybody can name
    /// nodes that never answer.
    const MAX_NODES: usize = 4_096;

    /// A call to a node, made at `asked`, times out now. Returns how many did in a row.
    pub(in crate::ring) fn note(&mut self, node: NodeId, asked: Instant, now: Instant) -> u32 {
        if self.0.len() >= Self::MAX_NODES && !self.0.contains_key(&node) {
            let oldest = self.0.iter().min_by_key(|(_, silence)| silence.counted_at);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.0.remove(&oldest);
            }
        }
        let silence = self.0.entry(node).or_default();
        silence.note(asked, now);
        silence.count()
    }

    /// A node answered, or counts as dead.
    pub(in crate::ring) fn end(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ring::testing::{epoch, node};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn calls_that_waited_at_the_same_time_count_once() {
        let (start, mut silences) = (epoch(), FailureDetector::default());
        let mut note = |asked, now| silences.note(node(1).id, start + ms(asked), start + ms(now));
        assert_eq!(note(0, 50), 1);
        assert_eq!(note(10, 60), 1);
        assert_eq!(note(49, 90), 1);
        assert_eq!(note(50, 150), 2, "it was asked anew");
        assert_eq!(note(60, 160), 2, "so was the other call, but it waited beside that");
        assert_eq!(note(160, 300), 3);
    }

    #[test]
    fn an_answer_ends_a_silence_and_the_oldest_is_forgotten_for_another() {
        let (start, mut silences) = (epoch(), FailureDetector::default());
        assert_eq!(silences.note(node(1).id, start, start), 1);
        silences.end(node(1).id);
        assert_eq!(silences.note(node(1).id, start + ms(1), start + ms(2)), 1);
        for number in 0..FailureDetector::MAX_NODES as u128 {
            let id = NodeId::new(uuid::Uuid::from_u128(1_000 + number));
            silences.note(id, start + ms(3), start + ms(4));
        }
        assert_eq!(silences.0.len(), FailureDetector::MAX_NODES);
        assert!(!silences.0.contains_key(&node(1).id));
    }
}
