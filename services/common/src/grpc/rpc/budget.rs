//! One memory budget per process for messages that are being received or sent.
//!
//! Connections share it as Choudhury and Hahne's dynamic thresholds share a switch's buffer (1998):
//! a connection may hold as much as half of what is free. However many connections take all they
//! can, some room stays free for a small message of another one.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::Status;

use crate::{grpc::status, memory};

/// Bytes of the process's budget: messages as received, and their decoded form.
const PROCESS_BYTES: usize = 32 << 20;
/// The part of the free bytes that one connection may hold.
const SHARE: usize = 2;
/// Once this much was in use, and is no longer, memory is given back to the system.
const GIVE_BACK_FROM: usize = 8 << 20;
/// When to retry a message that found no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes that messages may use at a time.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    used: AtomicUsize,
    /// The peak since memory was last given back.
    peak: AtomicUsize,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// The budget that all servers and channels of the process share by default.
    pub fn of_process() -> Arc<Self> {
        static PROCESS: LazyLock<Arc<Budget>> = LazyLock::new(|| Budget::new(PROCESS_BYTES));
        Arc::clone(&PROCESS)
    }

    fn release(&self, bytes: usize) {
        let left = self.used.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        let peak = self.peak.load(Ordering::Relaxed);
        if peak >= GIVE_BACK_FROM && left < peak / 4 {
            self.peak.store(left, Ordering::Relaxed);
            memory::give_back_soon();
        }
    }
}

/// One connection's part of a budget.
#[derive(Debug)]
pub(crate) struct Flow {
    budget: Arc<Budget>,
    used: AtomicUsize,
}

impl Flow {
    pub(crate) fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { budget, used: AtomicUsize::new(0) })
    }
}

/// There is no room for a message.
#[derive(Debug)]
pub(crate) struct Exhausted;

impl From<Exhausted> for Status {
    fn from(_: Exhausted) -> Self {
        metrics::counter!("shoal_messages_refused_total", "reason" => "memory").increment(1);
        status::exhausted("too many bytes of messages are under way here; try again", RETRY_AFTER)
    }
}

/// The part that a call uses, until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    flow: Arc<Flow>,
    bytes: AtomicUsize,
}

impl Charge {
    pub(crate) fn new(flow: Arc<Flow>) -> Self {
        Self { flow, bytes: AtomicUsize::new(0) }
    }

    /// Adds bytes.
    pub(crate) fn add(&self, bytes: usize) -> Result<(), Exhausted> {
        let budget = &self.flow.budget;
        // Two concurrent calls see each other's bytes, and may both be refused: never too much.
        let used = budget.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let own = self.flow.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if own > (budget.total + bytes).saturating_sub(used) / SHARE {
            self.take_off(bytes);
            return Err(Exhausted);
        }
        budget.peak.fetch_max(used, Ordering::Relaxed);
        Ok(())
    }

    /// Releases all but this many bytes.
    pub(crate) fn keep(&self, bytes: usize) {
        let surplus = self.bytes.load(Ordering::Relaxed).saturating_sub(bytes);
        if surplus > 0 {
            self.take_off(surplus);
        }
    }

    fn take_off(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.flow.used.fetch_sub(bytes, Ordering::Relaxed);
        self.flow.budget.release(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_gets_a_third_and_a_charge_gives_back_what_it_took() {
        let budget = Budget::new(30_000);
        let flow = Flow::new(Arc::clone(&budget));
        let charge = Charge::new(Arc::clone(&flow));
        let taken = (0..300).take_while(|_| charge.add(100).is_ok()).count() * 100;
        assert!((9_900..=10_100).contains(&taken), "{taken}");
        charge.keep(50);
        assert_eq!(budget.used.load(Ordering::Relaxed), 50);
        drop(charge);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert_eq!(flow.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_greedy_connections_leave_room_for_a_small_message() {
        let budget = Budget::new(PROCESS_BYTES);
        let greedy: Vec<_> = (0..2_000)
            .map(|_| {
                let charge = Charge::new(Flow::new(Arc::clone(&budget)));
                while charge.add(1_000).is_ok() {}
                charge
            })
            .collect();
        assert!(budget.used.load(Ordering::Relaxed) <= PROCESS_BYTES);
        let small = Charge::new(Flow::new(Arc::clone(&budget)));
        assert!(small.add(500).is_ok(), "an announce finds no room");
        drop(greedy);
    }
}
