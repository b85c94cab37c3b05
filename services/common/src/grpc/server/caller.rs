//! The far end of a connection, and its open calls.

use std::{net::IpAddr, sync::Arc};

use shoal_core::address::network;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    grpc::rpc::{Budget, Flow, Turns},
    lock::{Mutex, MutexGuard},
};

/// The far end of a connection: its open calls, and a way to disconnect it.
#[derive(Debug)]
pub struct Caller {
    pub(super) source: Option<IpAddr>,
    pub(super) flow: Arc<Flow>,
    pub(super) hang_up: CancellationToken,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
struct Calls {
    next: u64,
    /// Usually a few: a linear search costs less than hashing.
    open: Vec<Open>,
    /// When the last call began or ended, or the connection.
    since: Instant,
}

#[derive(Debug)]
struct Open {
    number: u64,
    turns: Arc<Turns>,
    /// The caller's turn at the last check, if it was the caller's turn.
    seen: Option<u64>,
}

/// A call in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenCall {
    caller: Arc<Caller>,
    number: u64,
}

impl Caller {
    /// A new connection, which shares the budget.
    pub(super) fn new(source: Option<IpAddr>, budget: Arc<Budget>) -> Arc<Self> {
        let calls = Calls { next: 0, open: Vec::new(), since: Instant::now() };
        Arc::new(Self {
            source: source.map(network),
            flow: Flow::new(budget),
            hang_up: CancellationToken::new(),
            calls: Mutex::new(calls),
        })
    }

    pub(super) fn begin(self: &Arc<Self>) -> (OpenCall, Arc<Turns>) {
        let turns = Arc::new(Turns::ours());
        let mut calls = self.calls();
        let number = calls.next;
        calls.next += 1;
        calls.since = Instant::now();
        calls.open.push(Open { number, turns: Arc::clone(&turns), seen: None });
        (OpenCall { caller: Arc::clone(self), number }, turns)
    }

    /// Since when there has been no call, if there is none.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let calls = self.calls();
        calls.open.is_empty().then_some(calls.since)
    }

    /// Whether the caller has read nothing of some response since the last check.
    pub(super) fn stalls(&self) -> bool {
        let mut stalls = false;
        for Open { turns, seen, .. } in &mut self.calls().open {
            let turn = turns.callers();
            stalls |= turn.is_some() && turn == *seen;
            *seen = turn;
        }
        stalls
    }

    pub(super) fn last_active(&self) -> Instant {
        self.calls().since
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // Numbers only: a panic leaves nothing half done.
        self.calls.lock()
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = self.caller.calls();
        if let Some(at) = calls.open.iter().position(|open| open.number == self.number) {
            calls.open.swap_remove(at);
        }
        calls.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_its_last_call_has_ended_whichever_that_is() {
        let caller = Caller::new(None, Budget::of_process());
        let [first, second, third] = [(); 3].map(|()| caller.begin());
        // Only the second call's client has a response to read.
        second.1.give();
        assert!(!caller.stalls() && caller.stalls(), "it takes nothing");
        drop(first);
        assert!(caller.stalls(), "the second is still open");
        drop(second);
        assert!(!caller.stalls() && caller.idle_since().is_none(), "the third is still open");
        drop(third);
        assert!(caller.idle_since().is_some());
    }
}
