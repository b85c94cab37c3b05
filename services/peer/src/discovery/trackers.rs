//! The trackers of a content. Names are resolved periodically: each address of one is a tracker of
//! its own. When that changes the trackers that are announced to, the previous ones still receive
//! announces for one interval, because other peers may not have noticed yet.

use std::{collections::BTreeMap, mem::take, time::Duration};

use futures_util::future::join_all;
use rand::RngExt as _;
use shoal_common::{dns::DnsCache, supervisor::Jobs, trackers::trackers_of};
use shoal_core::Address;
use tokio::{
    sync::{mpsc::error::SendError, oneshot},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    announce::Announce,
    announcer::Announcer,
    event::{AnnounceTarget, Event, Report},
};

/// How often the trackers are determined; jittered.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The pause after a name was never found, because its service may just be starting.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the previous trackers receive announces: the usual interval of a tracker.
const LINGER: Duration = Duration::from_secs(30);

/// The trackers that are announced to, and the previous ones.
struct TrackerSet<T> {
    current: BTreeMap<Address, T>,
    /// The previous ones, until then.
    lingering: BTreeMap<Address, (T, Instant)>,
}

/// A running announcer.
struct Running {
    stop: CancellationToken,
    /// Its sender is dropped when it has ended.
    ended: oneshot::Receiver<()>,
}

/// The addresses of some names.
struct Look {
    addresses: Vec<Address>,
    /// Names without an address, and why.
    unknown: BTreeMap<Address, String>,
}

impl Announcer {
    /// Announces to the trackers of these names, each by the announcer that `connect` makes of its
    /// address.
    pub(super) async fn follow<A: Announce>(
        self,
        trackers: Vec<Address>,
        names: DnsCache,
        connect: impl Fn(Address) -> A + Send,
        jobs: Jobs,
    ) {
        let is_fixed = trackers.iter().all(|tracker| tracker.ip().is_some());
        let start = |address: &Address| {
            let stop = self.stop.child_token();
            let announcer = Self { stop: stop.clone(), ..self.clone() };
            let announcing = announcer.announce_to(connect(address.clone()));
            let (end, ended) = oneshot::channel();
            let announcing = async move {
                announcing.await;
                drop(end);
            };
            jobs.spawn("announcer", announcing.in_current_span());
            Running { stop, ended }
        };
        let mut set = TrackerSet::default();
        let following = async {
            loop {
                let look = Look::at(&names, &trackers).await;
                let chosen = trackers_of(self.subject.content, &look.addresses);
                let left = set.replace(Instant::now(), &chosen, start);
                let mut former = Vec::new();
                for (address, running) in left {
                    running.stop.cancel();
                    // It leaves, and reports no more.
                    let _ = running.ended.await;
                    former.push(address);
                }
                let is_shown = |name: &&Address| set.has(name) || look.unknown.contains_key(name);
                former.extend(trackers.iter().filter(|name| !is_shown(name)).cloned());
                let wait = if look.unknown.is_empty() { LOOK_EVERY } else { LOOK_AGAIN };
                if self.show(chosen, former, look.unknown).await.is_err() || is_fixed {
                    return;
                }
                let wait = wait.mul_f64(rand::rng().random_range(0.75..1.25));
                sleep(wait).await;
            }
        };
        self.stop.run_until_cancelled(following).await;
    }

    /// Tells the engine about current and former trackers; an error if it has ended.
    async fn show(
        &self,
        current: Vec<Address>,
        former: Vec<Address>,
        unknown: BTreeMap<Address, String>,
    ) -> Result<(), SendError<Event>> {
        let current = current.into_iter().map(AnnounceTarget::Tracker).collect();
        let former = former.into_iter().map(AnnounceTarget::Tracker).collect();
        self.events.send(Event::TrackersChanged { content: self.key, current, former }).await?;
        for (name, error) in unknown {
            let target = AnnounceTarget::Tracker(name);
            let report = Report { content: self.key, target, outcome: Err(error) };
            self.events.send(Event::Announced(report)).await?;
        }
        Ok(())
    }
}

impl Look {
    async fn at(names: &DnsCache, trackers: &[Address]) -> Self {
        let mut look = Self { addresses: Vec::new(), unknown: BTreeMap::new() };
        let found = trackers.iter().map(async |name| (name, names.addresses(name).await));
        for (name, found) in join_all(found).await {
            match found {
                Ok(addresses) => look.addresses.extend(addresses),
                Err(error) => drop(look.unknown.insert(name.clone(), error.to_string())),
            }
        }
        look
    }
}

impl<T> Default for TrackerSet<T> {
    fn default() -> Self {
        Self { current: BTreeMap::new(), lingering: BTreeMap::new() }
    }
}

impl<T> TrackerSet<T> {
    /// Takes a new list, starts the new trackers, and returns those whose time is over.
    fn replace(
        &mut self,
        now: Instant,
        chosen: &[Address],
        start: impl Fn(&Address) -> T,
    ) -> Vec<(Address, T)> {
        // A name that cannot be found for a moment is no reason to leave all trackers.
        if !chosen.is_empty() {
            let replaced: BTreeMap<_, _>;
            let all = take(&mut self.current).into_iter();
            (self.current, replaced) = all.partition(|(address, _)| chosen.contains(address));
            let until = now + LINGER;
            self.lingering.extend(replaced.into_iter().map(|(address, it)| (address, (it, until))));
        }
        for address in chosen {
            if !self.current.contains_key(address) {
                let back = self.lingering.remove(address).map(|(it, _)| it);
                self.current.insert(address.clone(), back.unwrap_or_else(|| start(address)));
            }
        }
        let over: BTreeMap<_, _>;
        let all = take(&mut self.lingering).into_iter();
        (over, self.lingering) = all.partition(|(_, (_, until))| *until <= now);
        over.into_iter().map(|(address, (it, _))| (address, it)).collect()
    }

    fn has(&self, address: &Address) -> bool {
        self.current.contains_key(address) || self.lingering.contains_key(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(hosts: &[u8]) -> Vec<Address> {
        hosts.iter().map(|host| format!("10.0.0.{host}:7070").parse().unwrap()).collect()
    }

    #[test]
    fn previous_trackers_receive_announces_for_one_interval() {
        let mut set = TrackerSet::default();
        let start = Instant::now();
        let started = std::cell::RefCell::new(Vec::new());
        let mut turn = |second: u64, hosts: &[u8]| {
            let now = start + Duration::from_secs(second);
            let note = |address: &Address| started.borrow_mut().push(address.clone());
            let left = set.replace(now, &addresses(hosts), note);
            (started.take(), left.into_iter().map(|(address, ())| address).collect::<Vec<_>>())
        };
        let none = Vec::new;
        assert_eq!(turn(0, &[1, 2]), (addresses(&[1, 2]), none()));
        assert_eq!(turn(10, &[2, 3]), (addresses(&[3]), none()));
        // Back before its time is over, it was never left.
        assert_eq!(turn(20, &[1, 2]), (none(), none()));
        assert_eq!(turn(30, &[1, 4]), (addresses(&[4]), none()));
        assert_eq!(turn(50, &[1, 4]), (none(), addresses(&[3])));
        assert_eq!(turn(60, &[1, 4]), (none(), addresses(&[2])));
        // An empty list is ignored.
        assert_eq!(turn(70, &[]), (none(), none()));
        assert_eq!(turn(200, &[]), (none(), none()));
    }
}
