//! The one task that owns the peer's state.
//!
//! It passes each event to the state machines (which neighbours to serve and to ask: [`Swarm`];
//! which peers to dial: [`Roster`]) and carries out their outputs. It waits for nothing: slow work
//! is done by other tasks, which send an [`Event`] when they have finished.

mod contents;
mod explain;
mod inlink;
mod links;
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
    Address,
    names::Names,
    supervisor::{Jobs, Supervisor},
    units::Rate,
};
use shoal_core::{
    content::ContentId,
    roster::{Roster, RosterSettings},
    swarm::{self, ContentKey, FetchKey, Input, LinkKey, Output, Swarm},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use self::{contents::Content, links::Link, transfers::Fetch};
use crate::{
    bulk::{self, Downloads, Lanes, Uploads},
    directory::Directory,
    event::{Command, Event},
    identity::Identity,
};

/// Events that may wait for the engine. A lane that finds the queue full waits, and so does its
/// neighbour.
pub(crate) const QUEUE: usize = 4096;

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

/// The parts of the data plane.
pub(crate) struct Bulk {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) downloads: Downloads,
    pub(crate) uploads: Uploads,
    /// Their events, for blocks that arrive on links.
    pub(crate) moved: mpsc::Sender<bulk::Event>,
    /// The download limit, for explanations.
    pub(crate) max_download: Option<Rate>,
}

/// The parts of an engine.
pub(crate) struct Parts {
    pub(crate) settings: swarm::Settings,
    pub(crate) roster: RosterSettings,
    pub(crate) identity: Arc<Identity>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) bulk: Bulk,
    pub(crate) trackers: Vec<Address>,
    pub(crate) ring_nodes: Vec<Address>,
    /// The sender of events, for the tasks that it starts.
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) supervisor: Supervisor,
    /// Cancelled when no more calls of other peers may be accepted.
    pub(crate) closing: CancellationToken,
}

/// The state of a peer.
pub(crate) struct Engine {
    swarm: Swarm,
    roster: Roster,
    rng: StdRng,
    identity: Arc<Identity>,
    directory: Arc<Directory>,
    bulk: Bulk,
    /// Trackers of every content.
    trackers: Vec<Address>,
    /// Ring nodes, for every content.
    ring_nodes: Vec<Address>,
    /// Resolves the names of both.
    names: Names,
    contents: BTreeMap<ContentKey, Content>,
    ids: HashMap<ContentId, ContentKey>,
    links: BTreeMap<LinkKey, Link>,
    fetches: HashMap<FetchKey, Fetch>,
    next_key: u64,
    /// The tasks that the engine starts.
    events: mpsc::Sender<Event>,
    jobs: Jobs,
    stop: CancellationToken,
    closing: CancellationToken,
    /// It is ending: nothing new begins.
    is_leaving: bool,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { settings, roster, identity, directory, bulk, .. } = parts;
        let Parts { trackers, ring_nodes, events, supervisor, closing, .. } = parts;
        Self {
            swarm: Swarm::new(settings, rand::random()),
            roster: Roster::new(roster, identity.peer),
            rng: StdRng::from_rng(&mut rand::rng()),
            identity,
            directory,
            bulk,
            trackers,
            ring_nodes,
            names: Names::default(),
            contents: BTreeMap::new(),
            ids: HashMap::new(),
            links: BTreeMap::new(),
            fetches: HashMap::new(),
            next_key: 0,
            events,
            jobs: supervisor.jobs(),
            stop: supervisor.ending().clone(),
            closing,
            is_leaving: false,
        }
    }

    /// Runs until it is told to stop. Then it leaves trackers and ring, offers the pieces that no
    /// other peer is known to have, completes its uploads, and ends.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut transfers: mpsc::Receiver<bulk::Event>,
    ) {
        let stop = self.stop.clone();
        let closing = self.closing.clone().drop_guard();
        stop.run_until_cancelled(self.work(&mut events, &mut transfers, |_| false)).await;
        for content in self.contents.values() {
            content.stop_announcing();
        }
        let mut offers = Vec::new();
        self.swarm.offer_last_copies(&mut offers);
        self.carry_out_all(offers);
        let taken =
            self.work(&mut events, &mut transfers, |engine| !engine.swarm.holds_last_copies());
        let _ = timeout(OFFER, taken).await;
        self.is_leaving = true;
        drop(closing);
        let sent = self.work(&mut events, &mut transfers, |engine| engine.bulk.uploads.is_idle());
        let _ = timeout(FAREWELL, sent).await;
        self.contents.clear();
        self.links.clear();
        // Jobs that report to the engine must not wait for it any more.
        drop((events, transfers));
        self.jobs.ended().await;
    }

    /// Handles events until `done`. Cancel safe.
    async fn work(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        transfers: &mut mpsc::Receiver<bulk::Event>,
        done: impl Fn(&Self) -> bool,
    ) {
        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(LOOK_AFTER_LINKS_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut moved) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        while !done(self) {
            let deadline = self.next_deadline();
            tokio::select! {
                _ = reports.tick() => self.report(),
                _ = looks.tick() => self.look_after_links(),
                _ = events.recv_many(&mut batch, BATCH) => {
                    for event in batch.drain(..) {
                        self.handle(event);
                    }
                }
                _ = transfers.recv_many(&mut moved, BATCH) => {
                    for event in moved.drain(..) {
                        self.transferred(event);
                    }
                }
                () = sleep_until(deadline.into()) => self.brain(Input::Tick),
            }
            if !self.is_leaving {
                self.dial();
            }
        }
    }

    /// The earliest deadline of the state machines; far away if there is none.
    fn next_deadline(&self) -> Instant {
        let idle = Instant::now() + Duration::from_secs(3600);
        let roster = self.roster.next_deadline().unwrap_or(idle);
        self.swarm.next_deadline().unwrap_or(idle).min(roster).min(idle)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Brain(input) => self.brain(input),
            Event::Handshake(handshake, admitted) => {
                // The caller may have given up: then the accepted link reports that it has ended.
                drop(admitted.send(self.admit(*handshake)));
            }
            Event::Called { content, candidate } => {
                if let Some(key) = self.ids.get(&content) {
                    self.meet(*key, vec![candidate]);
                }
            }
            Event::InLink { link, message } => self.in_link(link, message),
            Event::LinkEnded { link, offence } => self.link_ended(link, offence),
            Event::Undialable { link } => self.undialable(link),
            Event::DialFailed { content, peer, error } => self.dial_failed(content, peer, &error),
            Event::Announced(report) => self.announced(report),
            Event::Sources { content, come, gone } => self.name_sources(content, come, &gone),
            Event::Resolved { content, at, outcome } => self.resolved(content, &at, outcome),
            Event::Command(command, asked) => self.obey(command, &asked),
        }
    }

    fn obey(&mut self, command: Command, asked: &Span) {
        // The caller may have gone: an answer without a receiver is no error.
        match command {
            Command::Add { stored, options, done } => {
                drop(done.send(self.add(&stored, options, asked)));
            }
            Command::Fetch { id, options, place, done } => {
                drop(done.send(self.fetch(id, options, place, asked)));
            }
            Command::Remove { id, done } => drop(done.send(self.remove(id))),
            Command::List { done } => {
                let statuses = self.contents.keys().map(|key| Arc::new(self.status(*key)));
                drop(done.send(statuses.collect()));
            }
            Command::Watch { id, done } => {
                let key = self.ids.get(&id).copied();
                drop(done.send(key.map(|key| self.watch(key))));
            }
            Command::Explain { id, done } => {
                let key = self.ids.get(&id).copied();
                drop(done.send(key.map(|key| self.explain(key))));
            }
        }
    }

    /// Passes an input to the swarm state machine, and carries out its outputs.
    fn brain(&mut self, input: Input) {
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
            Output::Send { link, message } => self.say(link, message),
            Output::Fetch { fetch, link, ranges, block_length } => {
                self.start_fetch(fetch, link, ranges, block_length);
            }
            Output::CancelFetch { fetch } => self.cancel_fetch(fetch),
            Output::Abandon { content, piece, attempt } => self.abandon(content, piece, attempt),
            Output::Grant { serve, ranges } => self.bulk.uploads.grant(serve, ranges),
            Output::Refuse { serve, reason } => self.bulk.uploads.refuse(serve, reason),
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
