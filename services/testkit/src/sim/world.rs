//! The event loop: hosts, links and time.

use std::{
    collections::BTreeSet,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus, seq::SliceRandom};
use shoal_core::{
    PeerId,
    content::{Bitfield, Layout},
    swarm::{Capabilities, ContentKey, Input, LinkKey, PeerMessage, Swarm},
};
use uuid::Uuid;

use super::{
    event::{Event, Life},
    host::Host,
    network::{Connection, RECEIVE_WINDOW, RECEIVER_DELAY},
    queue::Queue,
    report::Report,
    setup::{Fault, Setup},
};

/// The only content.
pub(super) const CONTENT: ContentKey = ContentKey(0);

/// Simulates a swarm. `trace` receives a line for each input and output of a state machine.
pub fn run<'a>(setup: &'a Setup, trace: Option<&'a mut dyn Write>) -> anyhow::Result<Report> {
    let mut world = World::new(setup, trace)?;
    world.run()?;
    Ok(world.report())
}

/// The state of the simulation.
pub(super) struct World<'a> {
    pub(super) setup: &'a Setup,
    trace: Option<&'a mut dyn Write>,
    pub(super) layout: Layout,
    rng: Xoshiro256PlusPlus,
    /// The start of the simulated time. Only differences matter.
    epoch: Instant,
    /// The simulated time in ns from the start.
    pub(super) now: u64,
    pub(super) queue: Queue<Event>,
    pub(super) hosts: Vec<Host>,
    /// Two per link: number 2 x link from the host that dialled, and the next number back.
    pub(super) connections: Vec<Connection>,
    pub(super) next_serve: u64,
    pub(super) banned: BTreeSet<usize>,
}

impl<'a> World<'a> {
    fn new(setup: &'a Setup, trace: Option<&'a mut dyn Write>) -> anyhow::Result<Self> {
        let layout = setup.layout().context("cannot divide the content into pieces")?;
        let count = layout.piece_count();
        let held = |host| if host == 0 { Bitfield::full(count) } else { Bitfield::empty(count) };
        let hosts = setup.hosts.iter().enumerate();
        let mut world = Self {
            setup,
            trace,
            rng: Xoshiro256PlusPlus::seed_from_u64(setup.seed),
            epoch: Instant::now(),
            now: 0,
            queue: Queue::default(),
            hosts: hosts.map(|(number, host)| Host::new(*host, held(number))).collect(),
            layout,
            connections: Vec::new(),
            next_serve: 0,
            banned: BTreeSet::new(),
        };
        for (host, state) in setup.hosts.iter().enumerate() {
            world.after(state.joins, Event::Join { host });
        }
        for fault in &setup.faults {
            if let Fault::Leaves { host, at, away } = *fault {
                world.after(at, Event::Leave { host, away });
            }
        }
        Ok(world)
    }

    fn run(&mut self) -> anyhow::Result<()> {
        while let Some((at, event)) = self.queue.pop() {
            if Duration::from_nanos(at) > self.setup.time_limit || self.is_over() {
                break;
            }
            self.now = at;
            self.handle_event(event)?;
        }
        Ok(())
    }

    /// Whether every peer that fetches is complete.
    fn is_over(&self) -> bool {
        self.hosts[1..].iter().all(|host| host.completed_at.is_some() || host.setup.silent)
    }

    fn handle_event(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Join { host } => self.join(host)?,
            Event::Announce { to } => self.find_neighbours(to)?,
            Event::Leave { host, away } => self.leave(host, away)?,
            Event::Input { to, input } => self.deliver(to, input)?,
            Event::Tick { to } => self.tick(to)?,
            Event::Request { connection, call } => self.request(connection, call)?,
            Event::Cancel { connection, fetch } => self.cancelled(connection, fetch)?,
            Event::Taken { connection, parcel } => self.taken(connection, parcel)?,
            Event::Sent { connection, parcel } => self.sent(connection, parcel),
            Event::Arrived { connection, parcel } => self.arrived(connection, parcel),
            Event::Drained { connection, parcel } => self.drained(connection, parcel)?,
            Event::Stored { to, piece, assembled } => self.stored(to, piece, assembled)?,
        }
        Ok(())
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.queue.push(self.now + delay.as_nanos() as u64, event);
    }

    pub(super) fn life(&self, host: usize) -> Life {
        Life { host, number: self.hosts[host].life }
    }

    /// Starts a host, with the pieces that it held at its last end.
    fn join(&mut self, host: usize) -> anyhow::Result<()> {
        let seed = self.rng.random();
        let state = &mut self.hosts[host];
        state.state_machine = Some(Swarm::new(self.setup.settings.clone(), seed));
        let input = Input::AddContent {
            content: CONTENT,
            layout: self.layout.clone(),
            held: state.held.clone(),
            sequential: self.setup.sequential,
            super_seeding: self.setup.super_seeding && host == 0,
        };
        self.deliver(self.life(host), input)?;
        // Delayed, so that hosts that join at the same time find each other.
        let to = self.life(host);
        self.after(Duration::ZERO, Event::Announce { to });
        self.start_sending(host);
        Ok(())
    }

    /// Links a host to random others while both have free slots.
    pub(super) fn find_neighbours(&mut self, to: Life) -> anyhow::Result<()> {
        let host = to.host;
        if self.life(host) != to || self.hosts[host].state_machine.is_none() {
            return Ok(());
        }
        let is_taken = |world: &Self, other: usize| {
            let links = world.hosts[host].links.values();
            let mut links = links.map(|connection| &world.connections[*connection]);
            links.any(|connection| connection.to == other)
        };
        let mut others: Vec<_> = (0..self.hosts.len())
            .filter(|other| *other != host && self.hosts[*other].state_machine.is_some())
            .filter(|other| !self.banned.contains(other) && !is_taken(self, *other))
            .collect();
        others.shuffle(&mut self.rng);
        // Hosts with the fewest links come first. Otherwise the last to join would find all others
        // full.
        others.sort_by_key(|other| self.hosts[*other].links.len());
        for other in others {
            let [ours, theirs] = [host, other].map(|host| self.hosts[host].links.len());
            // The other slots are left for hosts that join later.
            if ours >= self.setup.neighbours * 3 / 5 {
                break;
            }
            let both_complete = self.hosts[host].held.is_full() && self.hosts[other].held.is_full();
            if theirs < self.setup.neighbours && !both_complete {
                self.connect(host, other)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, host: usize, other: usize) -> anyhow::Result<()> {
        let there = self.connections.len();
        let link = LinkKey(there as u64 / 2);
        let latency = self.setup.latency;
        let fastest = self.hosts[host].setup.up.max(self.hosts[other].setup.up);
        let in_flight = fastest as f64 * (latency + RECEIVER_DELAY).as_secs_f64();
        let window = RECEIVE_WINDOW + in_flight as u64;
        self.connections.push(Connection::new(link, host, other, window));
        self.connections.push(Connection::new(link, other, host, window));
        self.hosts[host].links.insert(link, there);
        self.hosts[other].links.insert(link, there + 1);
        for (host, other) in [(host, other), (other, host)] {
            let input = Input::LinkUp {
                link,
                content: CONTENT,
                peer: PeerId::new(Uuid::from_u128(other as u128)),
                capabilities: Capabilities { reciprocates: true, serves: true },
                round_trip: 2 * latency,
            };
            self.deliver(self.life(host), input)?;
            if self.hosts[host].setup.silent {
                let all = Bitfield::full(self.layout.piece_count());
                self.send_message(host, link, PeerMessage::Bitfield(all));
                self.send_message(host, link, PeerMessage::Unchoke);
            }
        }
        Ok(())
    }

    /// Sends a message over a link.
    pub(super) fn send_message(&mut self, host: usize, link: LinkKey, message: PeerMessage) {
        let Some(connection) = self.hosts[host].links.get(&link) else { return };
        let other = self.connections[*connection].to;
        let input = Input::Message { link, message };
        let to = self.life(other);
        self.after(self.setup.latency, Event::Input { to, input });
    }

    pub(super) fn disconnect(&mut self, host: usize, link: LinkKey) -> anyhow::Result<()> {
        let Some(connection) = self.hosts[host].links.remove(&link) else { return Ok(()) };
        let other = self.connections[connection].to;
        self.connections[connection].alive = false;
        self.connections[connection ^ 1].alive = false;
        self.hosts[other].links.remove(&link);
        for host in [host, other] {
            let state = &mut self.hosts[host];
            state.fetches.retain(|_, fetch| fetch.link != link);
            state.serves.retain(|_, serve| serve.connection / 2 != connection / 2);
            self.deliver(self.life(host), Input::LinkDown { link })?;
        }
        Ok(())
    }

    fn leave(&mut self, host: usize, away: Option<Duration>) -> anyhow::Result<()> {
        self.hosts[host].state_machine = None;
        for link in self.hosts[host].links.keys().copied().collect::<Vec<_>>() {
            self.disconnect(host, link)?;
        }
        self.hosts[host].end_run();
        if let Some(away) = away {
            self.after(away, Event::Join { host });
        }
        Ok(())
    }

    /// Gives a state machine an input, and executes its outputs.
    pub(super) fn deliver(&mut self, to: Life, input: Input) -> anyhow::Result<()> {
        let now = self.epoch + Duration::from_nanos(self.now);
        let host = &mut self.hosts[to.host];
        let Some(state_machine) = host.state_machine.as_mut().filter(|_| host.life == to.number)
        else {
            return Ok(());
        };
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{} host {} <- {input:?}", self.now, to.host)?;
        }
        let mut outputs = Vec::new();
        state_machine.handle(now, input, &mut outputs);
        if let Some(at) = state_machine.next_deadline()
            && host.tick_at.is_none_or(|set| at < set)
        {
            host.tick_at = Some(at);
            let at = at.saturating_duration_since(self.epoch).as_nanos() as u64;
            self.queue.push(at.max(self.now), Event::Tick { to });
        }
        for output in outputs {
            if let Some(trace) = &mut self.trace {
                writeln!(trace, "{} host {} -> {output:?}", self.now, to.host)?;
            }
            self.execute(to.host, output)?;
        }
        Ok(())
    }

    fn tick(&mut self, to: Life) -> anyhow::Result<()> {
        let now = self.epoch + Duration::from_nanos(self.now);
        let host = &mut self.hosts[to.host];
        // An earlier tick has replaced this one, which stayed in the queue.
        if host.tick_at != Some(now) {
            return Ok(());
        }
        host.tick_at = None;
        self.deliver(to, Input::Tick)
    }

    /// Stops the publisher once the others hold every piece among them, if the setup says so.
    pub(super) fn check_publisher(&mut self) -> anyhow::Result<()> {
        let dies = self.setup.faults.contains(&Fault::PublisherDiesAfterOneCopy);
        if !dies || self.hosts[0].state_machine.is_none() {
            return Ok(());
        }
        let held = |piece| self.hosts[1..].iter().any(|host| host.held.has(piece));
        if self.layout.pieces().all(held) {
            self.leave(0, None)?;
        }
        Ok(())
    }

    /// The time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    fn report(&self) -> Report {
        let peers = self.hosts[1..].iter().filter(|host| !host.setup.silent);
        Report {
            bound: self.setup.bound(),
            completions: peers.clone().map(|host| host.completed_at).collect(),
            useful: peers.clone().map(|host| host.received).sum(),
            duplicate: peers.clone().map(|host| host.wasted).sum(),
            effort: peers.map(|host| host.sent as f64 / host.setup.up as f64).collect(),
            idle_seconds: Report::sum_idle(self.hosts.iter().map(|host| &host.idle_times)),
            bans: self.banned.len(),
            events: self.queue.count(),
        }
    }
}
