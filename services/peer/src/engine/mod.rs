//! The one task that owns the peer's state.
//!
//! It passes each event to the state machines (which neighbours to serve and to ask: [`Swarm`];
//! which peers to dial: [`PeerList`]) and carries out their outputs. It waits for nothing: other
//! tasks do slow work, and send an event to one of its queues when they have finished.

mod commands;
mod contents;
mod dials;
mod directory;
mod event;
mod links;
mod queues;
#[cfg(test)]
mod tests;
mod transfers;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use shoal_common::{
    dns::DnsCache,
    supervisor::{Jobs, Supervisor},
};
use shoal_core::{
    Address,
    content::ContentId,
    peer_list::{PeerList, PeerListSettings},
    swarm::{self, ContentKey, FetchKey, Input, LinkKey, Output, Swarm},
};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::{contents::Content, links::Link, transfers::Fetch};
pub(crate) use self::{
    directory::Directory,
    event::{Command, Event, MakeRoom},
    queues::{Queues, Senders, queues},
};
use crate::{identity::Identity, transfer::DataPlane};

/// Events handled before the deadlines are checked again.
const BATCH: usize = 256;

/// How long others may fetch the pieces that no other peer is known to have.
const OFFER: Duration = Duration::from_secs(2);

/// How long uploads in progress may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often useless links are looked for.
const LOOK_AFTER_LINKS_EVERY: Duration = Duration::from_secs(1);

/// How often the watchers of a content get its status.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The parts of an engine.
pub(crate) struct Parts {
    pub(crate) settings: swarm::Settings,
    pub(crate) peer_list: PeerListSettings,
    pub(crate) identity: Arc<Identity>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) data_plane: DataPlane,
    pub(crate) trackers: Vec<Address>,
    pub(crate) ring_nodes: Vec<Address>,
    /// The sending ends of its queues, for the tasks that it starts.
    pub(crate) senders: Senders,
    pub(crate) supervisor: Supervisor,
    /// Cancelled when no more calls of other peers may be accepted.
    pub(crate) closing: CancellationToken,
}

/// The state of a peer.
pub(crate) struct Engine {
    swarm: Swarm,
    peer_list: PeerList,
    rng: StdRng,
    identity: Arc<Identity>,
    directory: Arc<Directory>,
    data_plane: DataPlane,
    /// Trackers of every content.
    trackers: Vec<Address>,
    /// Ring nodes, for every content.
    ring_nodes: Vec<Address>,
    /// Resolves the names of both.
    names: DnsCache,
    contents: BTreeMap<ContentKey, Content>,
    ids: HashMap<ContentId, ContentKey>,
    links: BTreeMap<LinkKey, Link>,
    fetches: HashMap<FetchKey, Fetch>,
    next_key: u64,
    /// For the tasks that the engine starts.
    senders: Senders,
    jobs: Jobs,
    stop: CancellationToken,
    closing: CancellationToken,
    /// It is ending: nothing new begins.
    is_leaving: bool,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { settings, peer_list, identity, directory, data_plane, .. } = parts;
        let Parts { trackers, ring_nodes, senders, supervisor, closing, .. } = parts;
        Self {
            swarm: Swarm::new(settings, rand::random()),
            peer_list: PeerList::new(peer_list, identity.peer),
            rng: StdRng::from_rng(&mut rand::rng()),
            identity,
            directory,
            data_plane,
            trackers,
            ring_nodes,
            names: DnsCache::default(),
            contents: BTreeMap::new(),
            ids: HashMap::new(),
            links: BTreeMap::new(),
            fetches: HashMap::new(),
            next_key: 0,
            senders,
            jobs: supervisor.jobs(),
            stop: supervisor.ending().clone(),
            closing,
            is_leaving: false,
        }
    }

    /// Runs until it is told to stop. Then it leaves trackers and ring, offers the pieces that no
    /// other peer is known to have, completes its uploads, and ends.
    pub(crate) async fn run(mut self, mut queues: Queues) {
        let stop = self.stop.clone();
        let closing = self.closing.clone().drop_guard();
        stop.run_until_cancelled(self.work(&mut queues, |_| false)).await;
        for content in self.contents.values() {
            content.stop_announcing();
        }
        let mut offers = Vec::new();
        self.swarm.offer_last_copies(&mut offers);
        self.carry_out_all(offers);
        let taken = self.work(&mut queues, |engine| !engine.swarm.holds_last_copies());
        let _ = timeout(OFFER, taken).await;
        self.is_leaving = true;
        drop(closing);
        let sent = self.work(&mut queues, |engine| engine.data_plane.uploads.is_idle());
        let _ = timeout(FAREWELL, sent).await;
        self.contents.clear();
        self.links.clear();
        // Jobs that report to the engine must not wait for it any more.
        drop(queues);
        self.jobs.ended().await;
    }

    /// Handles events until `done`. Cancel safe.
    async fn work(&mut self, queues: &mut Queues, done: impl Fn(&Self) -> bool) {
        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(LOOK_AFTER_LINKS_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut from_links, mut moved) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        while !done(self) {
            let deadline = self.next_deadline();
            tokio::select! {
                _ = reports.tick() => self.report(),
                _ = looks.tick() => self.look_after_links(),
                _ = queues.links.recv_many(&mut from_links, BATCH) => {
                    for event in from_links.drain(..) {
                        self.handle_link(event);
                    }
                }
                _ = queues.transfers.recv_many(&mut moved, BATCH) => {
                    for event in moved.drain(..) {
                        self.transferred(event);
                    }
                }
                Some(event) = queues.events.recv() => self.handle(event),
                Some(event) = queues.discovery.recv() => self.discovered(event),
                () = sleep_until(deadline.into()) => self.advance(Input::Tick),
            }
            if !self.is_leaving {
                self.dial();
            }
        }
    }

    /// The earliest deadline of the state machines; far away if there is none.
    fn next_deadline(&self) -> Instant {
        let idle = Instant::now() + Duration::from_secs(3600);
        let peer_list = self.peer_list.next_deadline().unwrap_or(idle);
        self.swarm.next_deadline().unwrap_or(idle).min(peer_list).min(idle)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Command(command, span) => self.obey(command, &span),
            Event::Resolved { content, at, outcome } => self.resolved(content, &at, outcome),
            Event::ManifestRead { content, outcome } => self.manifest_read(content, outcome),
            Event::DialFailed { content, peer, error } => self.dial_failed(content, peer, &error),
            Event::Undialable { link } => self.undialable(link),
        }
    }

    /// Passes an input to the swarm state machine, and carries out its outputs.
    fn advance(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.swarm.handle(Instant::now(), input, &mut outputs);
        self.carry_out_all(outputs);
    }

    fn carry_out_all(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { link, message } => self.send(link, message),
            Output::Fetch { fetch, link, ranges, block_length } => {
                self.start_fetch(fetch, link, ranges, block_length);
            }
            Output::CancelFetch { fetch } => self.cancel_fetch(fetch),
            Output::Abandon { content, piece, attempt } => self.abandon(content, piece, attempt),
            Output::Grant { serve, ranges } => self.data_plane.uploads.grant(serve, ranges),
            Output::Refuse { serve, reason } => self.data_plane.uploads.refuse(serve, reason),
            Output::Ban { link, reason } => self.ban(link, reason),
            Output::Close { link } => self.close(link),
            Output::Completed { content } => self.completed(content),
            Output::Starving { content } => self.starving(content),
        }
    }

    fn next_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }
}
