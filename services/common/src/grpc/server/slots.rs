//! Slots for connections, in all and for each source, and which connection makes room.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::caller::Caller;
use crate::lock::{Mutex, MutexGuard};

/// Which connection is closed when there is no slot for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// One without calls, or else the new one.
    CloseIdle,
    /// One without calls, or else the one that has been quiet for longest: where calls are short.
    CloseOldest,
}

/// The slots of a server.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    total: usize,
    of_source: usize,
    when_full: WhenFull,
    taken: Mutex<HashMap<u64, Arc<Caller>>>,
    next: AtomicUsize,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: Arc<ConnectionSlots>,
    number: u64,
    caller: Arc<Caller>,
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The server has reached its limit of connections.
    Server,
    /// The source has.
    Source,
}

impl ConnectionSlots {
    pub(super) fn new(total: usize, of_source: usize, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            total,
            of_source,
            when_full,
            taken: Mutex::default(),
            next: AtomicUsize::new(0),
        })
    }

    /// A slot for a new connection, if need be that of another one.
    pub(super) fn take(self: &Arc<Self>, caller: Arc<Caller>) -> Result<ConnectionSlot, Full> {
        let mut taken = self.taken();
        let mut of_sources: HashMap<Option<IpAddr>, usize> = HashMap::new();
        // Counting takes time, which a server with free slots need not spend on a source that has
        // fewer than all.
        let crowded = taken.len() >= self.total.min(self.of_source);
        if crowded {
            for other in taken.values() {
                *of_sources.entry(other.source).or_default() += 1;
            }
        }
        let own = of_sources.get(&caller.source).copied().unwrap_or(0);
        if caller.source.is_some() && own >= self.of_source {
            self.make_room(&mut taken, |other| (other.source == caller.source).then_some(0))
                .ok_or(Full::Source)?;
        } else if taken.len() >= self.total {
            // The source with the most connections has the most to spare.
            self.make_room(&mut taken, |other| Some(of_sources[&other.source]))
                .ok_or(Full::Server)?;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed) as u64;
        taken.insert(number, Arc::clone(&caller));
        Ok(ConnectionSlot { slots: Arc::clone(self), number, caller })
    }

    /// Disconnects one of those with a rank: of the highest rank, the one that has been idle for
    /// longest.
    fn make_room(
        &self,
        taken: &mut HashMap<u64, Arc<Caller>>,
        rank: impl Fn(&Caller) -> Option<usize>,
    ) -> Option<()> {
        let ranked =
            || taken.iter().filter_map(|(number, other)| Some((rank(other)?, number, other)));
        let idle = ranked()
            .filter_map(|(rank, number, other)| Some((Reverse(rank), other.idle_since()?, *number)))
            .min();
        let chosen = idle.or_else(|| match self.when_full {
            WhenFull::CloseIdle => None,
            WhenFull::CloseOldest => ranked()
                .map(|(rank, number, other)| (Reverse(rank), other.last_active(), *number))
                .min(),
        });
        let (_, _, number) = chosen?;
        if let Some(other) = taken.remove(&number) {
            metrics::counter!("shoal_connections_closed_for_room_total").increment(1);
            other.hang_up.cancel();
        }
        Some(())
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Arc<Caller>>> {
        self.taken.lock()
    }
}

impl ConnectionSlot {
    pub(super) const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.taken().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::time::advance;

    use super::*;
    use crate::grpc::rpc::Budget;

    fn caller(source: u8) -> Arc<Caller> {
        Caller::new(Some(Ipv4Addr::new(10, 0, 0, source).into()), Budget::of_process())
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_of_the_largest_source_makes_room() {
        let slots = ConnectionSlots::new(4, 3, WhenFull::CloseIdle);
        let mut open = Vec::new();
        for source in [2, 1, 1, 1] {
            open.push(slots.take(caller(source)).expect("there are four"));
            advance(Duration::from_secs(1)).await;
        }
        let busy = open[1].caller().begin();
        let newcomer = slots.take(caller(3)).expect("somebody is idle");
        let closed: Vec<_> = open.iter().map(|slot| slot.caller.hang_up.is_cancelled()).collect();
        assert_eq!(closed, [false, false, true, false]);
        drop((busy, newcomer));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_with_its_share_closes_its_own_and_nobody_elses() {
        let slots = ConnectionSlots::new(10, 2, WhenFull::CloseIdle);
        let other = slots.take(caller(2)).expect("it is free");
        advance(Duration::from_secs(1)).await;
        let first = slots.take(caller(1)).expect("it is free");
        let second = slots.take(caller(1)).expect("it is free");
        let calls = [first.caller().begin(), second.caller().begin()];
        assert_eq!(slots.take(caller(1)).expect_err("both are busy"), Full::Source);
        drop(calls);
        let third = slots.take(caller(1)).expect("the first makes room");
        assert!(first.caller.hang_up.is_cancelled());
        assert!(!other.caller.hang_up.is_cancelled());
        drop((second, third));
    }

    #[tokio::test(start_paused = true)]
    async fn where_calls_are_short_there_is_always_a_place() {
        let slots = ConnectionSlots::new(4, 2, WhenFull::CloseOldest);
        let mut open = Vec::new();
        for n in 0..100 {
            let slot = slots.take(caller(n)).expect("there is always one");
            let call = slot.caller().begin();
            open.push((slot, call));
            advance(Duration::from_millis(1)).await;
        }
        let left = open.iter().filter(|(slot, _)| !slot.caller.hang_up.is_cancelled()).count();
        assert_eq!(left, 4);
    }
}
