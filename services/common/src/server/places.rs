//! Places for connections, in all and for each source, and which connection makes room.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    lock::{Mutex, MutexGuard},
    rpc::{Budget, Flow, Turns},
};

/// The far end of a connection: its open calls, and a way to disconnect it.
#[derive(Debug)]
pub struct Caller {
    source: Option<IpAddr>,
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

    fn last_active(&self) -> Instant {
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

/// Which connection is closed when there is no place for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// One without calls, or else the new one.
    CloseIdle,
    /// One without calls, or else the one that has been quiet for longest: where calls are short.
    CloseOldest,
}

/// The places of a server.
#[derive(Debug)]
pub(super) struct Places {
    total: usize,
    of_source: usize,
    when_full: WhenFull,
    taken: Mutex<HashMap<u64, Arc<Caller>>>,
    next: AtomicUsize,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    caller: Arc<Caller>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The server has reached its limit of connections.
    Server,
    /// The source has.
    Source,
}

impl Places {
    pub(super) fn new(total: usize, of_source: usize, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            total,
            of_source,
            when_full,
            taken: Mutex::default(),
            next: AtomicUsize::new(0),
        })
    }

    /// A place for a new connection, if need be that of another one.
    pub(super) fn take(self: &Arc<Self>, caller: Arc<Caller>) -> Result<Place, Full> {
        let mut taken = self.taken();
        let mut of_sources: HashMap<Option<IpAddr>, usize> = HashMap::new();
        // Counting takes time, which a server with free places need not spend on a source that has
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
        Ok(Place { places: Arc::clone(self), number, caller })
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

impl Place {
    pub(super) const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.number);
    }
}

/// A source: an IPv4 address, or the /64 that a host on IPv6 has to itself.
fn network(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::time::advance;

    use super::*;

    fn caller(source: u8) -> Arc<Caller> {
        Caller::new(Some(Ipv4Addr::new(10, 0, 0, source).into()), Budget::of_process())
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_of_the_largest_source_makes_room() {
        let places = Places::new(4, 3, WhenFull::CloseIdle);
        let mut open = Vec::new();
        for source in [2, 1, 1, 1] {
            open.push(places.take(caller(source)).expect("there are four"));
            advance(Duration::from_secs(1)).await;
        }
        let busy = open[1].caller().begin();
        let newcomer = places.take(caller(3)).expect("somebody is idle");
        let closed: Vec<_> = open.iter().map(|place| place.caller.hang_up.is_cancelled()).collect();
        assert_eq!(closed, [false, false, true, false]);
        drop((busy, newcomer));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_with_its_share_closes_its_own_and_nobody_elses() {
        let places = Places::new(10, 2, WhenFull::CloseIdle);
        let other = places.take(caller(2)).expect("it is free");
        advance(Duration::from_secs(1)).await;
        let first = places.take(caller(1)).expect("it is free");
        let second = places.take(caller(1)).expect("it is free");
        let calls = [first.caller().begin(), second.caller().begin()];
        assert_eq!(places.take(caller(1)).expect_err("both are busy"), Full::Source);
        drop(calls);
        let third = places.take(caller(1)).expect("the first makes room");
        assert!(first.caller.hang_up.is_cancelled());
        assert!(!other.caller.hang_up.is_cancelled());
        drop((second, third));
    }

    #[tokio::test(start_paused = true)]
    async fn where_calls_are_short_there_is_always_a_place() {
        let places = Places::new(4, 2, WhenFull::CloseOldest);
        let mut open = Vec::new();
        for n in 0..100 {
            let place = places.take(caller(n)).expect("there is always one");
            let call = place.caller().begin();
            open.push((place, call));
            advance(Duration::from_millis(1)).await;
        }
        let left = open.iter().filter(|(place, _)| !place.caller.hang_up.is_cancelled()).count();
        assert_eq!(left, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_its_last_call_has_ended_whichever_that_is() {
        let caller = caller(1);
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

    #[test]
    fn a_host_on_ipv6_is_one_source() {
        let network = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }
}
