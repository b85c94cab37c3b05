//! The queue of future events of a simulation.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

/// Events in the order of their times; at equal times in the order of insertion.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<Scheduled<E>>>,
    count: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), count: 0 }
    }
}

impl<E> Queue<E> {
    /// Schedules an event for a time in ns from the start.
    pub(super) fn push(&mut self, at: u64, event: E) {
        self.heap.push(Reverse(Scheduled { at, number: self.count, event }));
        self.count += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|Reverse(next)| (next.at, next.event))
    }

    /// The next event, unless it is later than `limit`.
    pub(super) fn pop_until(&mut self, limit: u64) -> Option<(u64, E)> {
        self.heap.peek().is_some_and(|Reverse(next)| next.at <= limit).then(|| self.pop())?
    }

    /// The number of events scheduled so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[derive(Debug)]
struct Scheduled<E> {
    at: u64,
    number: u64,
    event: E,
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Scheduled<E> {}
