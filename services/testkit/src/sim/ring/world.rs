//! The event loop: nodes, their calls and lookups, and time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus, seq::IndexedRandom as _};
use shoal_core::{
    Address,
    ring::{
        Contact, Founding, Input, Lookup, LookupFailure, LookupSettings, Node, NodeSettings,
        Outcome, Output, Position, Purpose, RoutingTable, Seeds, Standing, TimeoutSettings,
        Timeouts,
    },
};

use super::{
    calls::{Body, Delivery, Reply},
    network::Network,
    still::random_node,
};
use crate::sim::queue::Queue;

/// The number of addresses that a name resolves to.
const NAMED: usize = 3;
/// How often a joining node resolves the name, and how often a member does.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);
const RESOLVE_RARELY: Duration = Duration::from_secs(10);
/// How much longer, as a multiple of the timeout, a late answer to a lookup is waited for.
const LATE: u32 = 3;
/// Timeout of a request for the state of an unknown node.
const MEET_PATIENCE: Duration = Duration::from_millis(1_500);
/// The IP address of the first host.
const FIRST_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

/// The settings of the nodes and of the network.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seed of the random generator.
    pub seed: u64,
    /// The nodes' periods and sizes.
    pub node: NodeSettings,
    /// The settings of lookups.
    pub lookup: LookupSettings,
    /// The settings of timeouts.
    pub timeouts: TimeoutSettings,
    /// The network.
    pub network: Network,
}

impl Setup {
    /// Nodes as they are deployed, in one data centre.
    pub fn deployed(seed: u64) -> Self {
        Self {
            seed,
            node: NodeSettings::default(),
            lookup: LookupSettings::default(),
            timeouts: TimeoutSettings::default(),
            network: Network::local(),
        }
    }
}

/// A node from its start to its end. It never restarts.
#[derive(Debug)]
pub(super) struct Host {
    me: Contact,
    pub(super) state_machine: Node,
    /// The routing table that other nodes query.
    pub(super) routing_table: RoutingTable,
    timeouts: Timeouts,
    /// The time of the next tick.
    tick_at: Option<Instant>,
    is_up: bool,
}

/// Identifies a lookup.
pub(super) type LookupKey = u64;

/// A lookup in progress.
#[derive(Debug)]
struct Running {
    lookup: Lookup,
    host: usize,
    position: Position,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    StateMachine(Purpose),
    /// Started by the simulation, to be measured.
    Measured {
        first_asked: Option<Position>,
        owner: Option<Position>,
    },
}

/// A measured lookup that has ended.
#[derive(Debug)]
pub struct Ended {
    /// What it found.
    pub result: Result<Outcome, LookupFailure>,
    /// Whether it found the node that was the owner when it started, or when it ended.
    pub is_right: bool,
    /// Whether the first node that it asked is the node that it found.
    pub is_first_try: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant)] // as it is in the queue: most events are calls
enum Event {
    Tick {
        host: usize,
    },
    Resolve {
        host: usize,
    },
    /// A call reaches the called node, even if the caller has given up.
    Called {
        call: u64,
        from: usize,
        to: usize,
        body: Arc<Body>,
    },
    /// An answer reaches the caller.
    Returned {
        call: u64,
        reply: Reply,
    },
    /// The time to wait for an answer is over.
    GivenUp {
        call: u64,
    },
}

#[derive(Debug)]
struct Call {
    from: usize,
    body: Arc<Body>,
    asked_at: u64,
    is_late: bool,
}

/// The state of the simulation.
#[derive(Debug)]
pub struct World {
    setup: Setup,
    pub(super) rng: Xoshiro256PlusPlus,
    /// The start of the simulated time. Only differences matter.
    epoch: Instant,
    /// The simulated time in ns from the start.
    now: u64,
    queue: Queue<Event>,
    /// By the index that follows from the address: see [`address_of`].
    hosts: Vec<Host>,
    up: Vec<usize>,
    members: BTreeMap<Position, usize>,
    calls: HashMap<u64, Call>,
    lookups: HashMap<LookupKey, Running>,
    next_key: u64,
    ended: Vec<Ended>,
}

impl World {
    /// A world without nodes.
    pub fn new(setup: Setup) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(setup.seed),
            setup,
            epoch: Instant::now(),
            now: 0,
            queue: Queue::default(),
            hosts: Vec::new(),
            up: Vec::new(),
            members: BTreeMap::new(),
            calls: HashMap::new(),
            lookups: HashMap::new(),
            next_key: 0,
            ended: Vec::new(),
        }
    }

    /// A world with a ring of `nodes` nodes that formed at once.
    pub fn with_ring(setup: Setup, nodes: usize) -> Self {
        let network = setup.network.clone();
        let mut world = Self::new(setup);
        world.setup.network = Network { mean_delay: Duration::ZERO, loss: 0.0, ..network.clone() };
        let mut contacts: Vec<_> = (0..nodes).map(|_| world.new_contact()).collect();
        contacts.sort();
        // Each joiner copies the successor list of the founder, which is complete by then.
        let mut contacts = contacts.into_iter();
        let Some(founder) = contacts.next() else { return world };
        let founder = world.boot(&founder);
        world.deliver(
            founder,
            Input::Seeds(Seeds {
                addresses: BTreeSet::new(),
                unresolved: BTreeSet::new(),
                founding: Founding::Anyway,
            }),
        );
        for contact in contacts.rev() {
            let joiner = world.boot(&contact);
            let Host { me, routing_table, .. } = &world.hosts[founder];
            let met = Input::Met(me.address.clone(), routing_table.state.clone());
            world.deliver(joiner, met);
            world.run_for(Duration::ZERO);
        }
        world.setup.network = network;
        (0..nodes).for_each(|host| world.resolve(host));
        world
    }

    /// Starts a node that knows a name for some of the running nodes.
    pub fn start(&mut self) -> usize {
        let contact = self.new_contact();
        let host = self.boot(&contact);
        self.resolve(host);
        host
    }

    /// Crashes a random node and returns its index.
    pub fn crash(&mut self) -> usize {
        let host = self.random_up();
        self.stop(host);
        host
    }

    /// Makes a random node leave, stops it one second later, and returns its index.
    pub fn leave(&mut self) -> usize {
        let host = self.random_up();
        self.deliver(host, Input::Leave);
        self.run_for(Duration::from_secs(1));
        self.stop(host);
        host
    }

    /// Partitions these hosts from all others. Ends any earlier partition.
    pub fn cut_off(&mut self, hosts: BTreeSet<usize>) {
        self.setup.network.cut_off = hosts;
    }

    /// The running nodes.
    pub fn up(&self) -> &[usize] {
        &self.up
    }

    /// The simulated time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// Advances the simulation by `time`.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time.as_nanos() as u64;
        while let Some((at, event)) = self.queue.pop_until(end) {
            self.now = at;
            self.handle_event(event);
        }
        self.now = end;
    }

    /// Advances the simulation until all running nodes form one ring. Returns how long that took;
    /// `None` if it takes longer than `limit`.
    pub fn run_until_one_ring(&mut self, limit: Duration) -> Option<Duration> {
        /// The resolution of the measurement.
        const STEP: Duration = Duration::from_millis(50);
        let start = self.now();
        while !self.is_one_ring() {
            if self.now().saturating_sub(start) > limit {
                return None;
            }
            self.run_for(STEP);
        }
        Some(self.now().saturating_sub(start))
    }

    /// Whether all running nodes are members of one ring: each knows its predecessor, and its
    /// successors without a gap.
    pub fn is_one_ring(&self) -> bool {
        let members: Vec<_> = self.members.iter().collect();
        let others = members.len().saturating_sub(1);
        let min = self.setup.node.min_successors.min(others);
        let is_in_place = |(index, (_, host)): (usize, &(&Position, &usize))| {
            let state = &self.hosts[**host].routing_table.state;
            let around = (index + 1..members.len()).chain(0..index);
            let after = around.clone().map(|index| members[index].0);
            let before = around.last().map(|index| members[index].0);
            state.successors.len() >= min
                && state.predecessor.as_ref().map(|node| &node.position) == before
                && state
                    .successors
                    .iter()
                    .map(|node| &node.position)
                    .zip(after)
                    .all(|(a, b)| a == b)
        };
        members.len() == self.up.len() && members.iter().enumerate().all(is_in_place)
    }

    /// Starts a lookup of a random key at a random member.
    pub fn look_up(&mut self) {
        let is_member = |world: &Self, host: usize| {
            world.hosts[host].routing_table.state.standing == Standing::Member
        };
        let mut host = self.random_up();
        while !is_member(self, host) {
            host = self.random_up();
        }
        let position = Position::from_u128(self.rng.random());
        let reason = Reason::Measured { first_asked: None, owner: self.owner_of(position) };
        self.begin_lookup(host, position, reason, None);
    }

    /// The measured lookups that ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Whether measured lookups are in progress.
    pub fn is_looking_up(&self) -> bool {
        let mut measured = self.lookups.values();
        measured.any(|running| matches!(running.reason, Reason::Measured { .. }))
    }

    /// The number of events so far.
    pub fn events(&self) -> u64 {
        self.queue.count()
    }

    fn owner_of(&self, position: Position) -> Option<Position> {
        let mut around = self.members.range(position..).chain(&self.members);
        around.next().map(|(position, _)| *position)
    }

    fn random_up(&mut self) -> usize {
        *self.up.choose(&mut self.rng).expect("a node is up")
    }

    fn new_contact(&mut self) -> Contact {
        random_node(address_of(0), &mut self.rng)
    }

    /// Starts a node that knows no other.
    fn boot(&mut self, contact: &Contact) -> usize {
        let host = self.hosts.len();
        let Contact { position, id, .. } = *contact;
        let me = Contact { position, id, address: address_of(host) };
        let settings = self.setup.node.clone();
        let mut state_machine =
            Node::new(me.clone(), 1, settings, self.rng.random(), self.instant());
        self.hosts.push(Host {
            me,
            routing_table: state_machine.routing_table(),
            state_machine,
            timeouts: Timeouts::new(self.setup.timeouts.clone()),
            tick_at: None,
            is_up: true,
        });
        self.up.push(host);
        host
    }

    fn stop(&mut self, host: usize) {
        self.hosts[host].is_up = false;
        self.up.retain(|up| *up != host);
        self.members.remove(&self.hosts[host].me.position);
        self.lookups.retain(|_, running| running.host != host);
    }

    fn instant(&self) -> Instant {
        self.epoch + self.now()
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.queue.push(self.now + delay.as_nanos() as u64, event);
    }

    fn next_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Tick { host } => self.tick(host),
            Event::Resolve { host } => self.resolve(host),
            Event::Called { call, from, to, body } => self.called(call, from, to, &body),
            Event::Returned { call, reply } => self.end_call(call, Some(reply)),
            Event::GivenUp { call } => self.give_up(call),
        }
    }

    fn tick(&mut self, host: usize) {
        // An earlier tick has replaced this one, which stayed in the queue.
        let now = self.instant();
        if self.hosts[host].tick_at.take_if(|at| *at == now).is_some() {
            self.deliver(host, Input::Tick);
        }
    }

    /// Gives a node the addresses that its name resolves to now.
    fn resolve(&mut self, host: usize) {
        if !self.hosts[host].is_up {
            return;
        }
        let named = self.up.sample(&mut self.rng, NAMED);
        let addresses = named.map(|host| self.hosts[*host].me.address.clone()).collect();
        let (unresolved, founding) = (BTreeSet::new(), Founding::Smallest);
        self.deliver(host, Input::Seeds(Seeds { addresses, unresolved, founding }));
        let is_joined = self.hosts[host].routing_table.state.standing == Standing::Member;
        let again = if is_joined { RESOLVE_RARELY } else { RESOLVE_EVERY };
        self.after(again, Event::Resolve { host });
    }

    /// Gives a state machine an input, and executes its outputs.
    fn deliver(&mut self, host: usize, input: Input) {
        let now = self.instant();
        let Host { state_machine, tick_at, is_up: true, .. } = &mut self.hosts[host] else {
            return;
        };
        let mut outputs = Vec::new();
        state_machine.handle(now, input, &mut outputs);
        let at = state_machine.next_deadline().max(now);
        if tick_at.is_none_or(|set| at < set) {
            *tick_at = Some(at);
            self.after(at - now, Event::Tick { host });
        }
        for output in outputs {
            match output {
                Output::Changed => self.publish(host),
                Output::Ask(node, question) => self.call(host, Body::Ask(node, question)),
                Output::Meet(address) => self.call(host, Body::Meet(address)),
                Output::LookUp(purpose, position, through) => {
                    self.begin_lookup(host, position, Reason::StateMachine(purpose), through);
                }
            }
        }
    }

    fn publish(&mut self, host: usize) {
        let Host { state_machine, routing_table, me, .. } = &mut self.hosts[host];
        *routing_table = state_machine.routing_table();
        if routing_table.state.standing == Standing::Member {
            self.members.insert(me.position, host);
        } else {
            self.members.remove(&me.position);
        }
    }

    fn call(&mut self, from: usize, body: Body) {
        let to = host_at(body.address());
        let wait = match body.node() {
            Some(node) => self.hosts[from].timeouts.timeout(node.id),
            None => MEET_PATIENCE,
        };
        let (call, body) = (self.next_key(), Arc::new(body));
        self.calls
            .insert(call, Call { from, body: body.clone(), asked_at: self.now, is_late: false });
        self.after(wait, Event::GivenUp { call });
        self.send(call, from, to, body);
    }

    fn send(&mut self, call: u64, from: usize, to: usize, body: Arc<Body>) {
        if let Some(delay) = self.setup.network.delay(from, to, &mut self.rng) {
            self.after(delay, Event::Called { call, from, to, body });
        }
    }

    fn called(&mut self, call: u64, from: usize, to: usize, body: &Body) {
        let now = self.instant();
        let address = self.hosts[from].me.address.clone();
        let host = &mut self.hosts[to];
        if !host.is_up {
            return;
        }
        let (reply, input) = body.answer(&address, host, now);
        if let Some(input) = input {
            self.deliver(to, input);
        }
        if let Some(delay) = self.setup.network.delay(to, from, &mut self.rng) {
            self.after(delay, Event::Returned { call, reply });
        }
    }

    /// Handles the end of the time for an answer. An answer to a lookup is late at first; the
    /// message is then sent again, as TCP does for lost packets.
    fn give_up(&mut self, call: u64) {
        let Some(Call { from, body, asked_at, is_late }) = self.calls.get_mut(&call) else {
            return;
        };
        let Body::Find(key, node, _) = &**body else { return self.end_call(call, None) };
        if *is_late {
            return self.end_call(call, None);
        }
        *is_late = true;
        let (from, body) = (*from, body.clone());
        let (key, node, waited) = (*key, node.clone(), Duration::from_nanos(self.now - *asked_at));
        self.after(LATE * waited, Event::GivenUp { call });
        self.send(call, from, host_at(&node.address), body);
        if let Some(Running { lookup, .. }) = self.lookups.get_mut(&key) {
            lookup.late(&node);
            self.drive(key);
        }
    }

    fn end_call(&mut self, call: u64, reply: Option<Reply>) {
        let Some(Call { from, body, asked_at, is_late }) = self.calls.remove(&call) else { return };
        let (asked, now) = (self.epoch + Duration::from_nanos(asked_at), self.instant());
        if let Some(node) = body.node() {
            let timeouts = &mut self.hosts[from].timeouts;
            match reply {
                Some(_) => timeouts.answered(node.id, now - asked),
                None if is_late => {}
                None => timeouts.expired(node.id, asked, now),
            }
        }
        match Arc::unwrap_or_clone(body).into_delivery(asked, reply) {
            Delivery::StateMachine(input) => self.deliver(from, input),
            Delivery::Lookup(lookup, node, found) => {
                let Some(Running { lookup: state, .. }) = self.lookups.get_mut(&lookup) else {
                    return;
                };
                match found {
                    Some(found) => state.answered(&node, &found),
                    None => state.failed(&node),
                }
                self.drive(lookup);
            }
        }
    }

    fn begin_lookup(
        &mut self,
        host: usize,
        position: Position,
        reason: Reason,
        through: Option<Contact>,
    ) {
        let Host { me, routing_table, .. } = &self.hosts[host];
        let settings = self.setup.lookup.clone();
        let lookup = match through {
            Some(through) => Lookup::of_joiner(me, &[through], settings),
            None => Lookup::new(position, &routing_table.find_for_lookup(position), settings),
        };
        let key = self.next_key();
        self.lookups.insert(key, Running { lookup, host, position, reason });
        self.drive(key);
    }

    /// Sends a lookup's next questions. If the lookup has ended, delivers its result.
    fn drive(&mut self, key: LookupKey) {
        let Some(Running { lookup, host, position, reason }) = self.lookups.get_mut(&key) else {
            return;
        };
        let (asks, host, position) = (lookup.next_asks(), *host, *position);
        if let (Reason::Measured { first_asked, .. }, Some(first)) = (reason, asks.first()) {
            first_asked.get_or_insert(first.position);
        }
        for node in asks {
            self.call(host, Body::Find(key, node, position));
        }
        let Some(result) = self.lookups[&key].lookup.outcome().cloned() else { return };
        let running = self.lookups.remove(&key).expect("the lookup was found above");
        match running.reason {
            Reason::StateMachine(purpose) => {
                self.deliver(host, Input::LookedUp(purpose, result.ok()));
            }
            Reason::Measured { first_asked, owner } => {
                let found = result.as_ref().ok().map(|outcome| outcome.owner.position);
                let is_right = found == owner || found == self.owner_of(position);
                let is_first_try = first_asked.is_none() || first_asked == found;
                self.ended.push(Ended { result, is_right, is_first_try });
            }
        }
    }
}

/// The address of the host with this index.
fn address_of(host: usize) -> Address {
    let ip = Ipv4Addr::from_bits(FIRST_IP.to_bits() + host as u32);
    SocketAddr::from((ip, 7071)).into()
}

/// The index of the host with this address.
fn host_at(address: &Address) -> usize {
    let Some(IpAddr::V4(ip)) = address.ip() else { panic!("{address} is not a host's") };
    (ip.to_bits() - FIRST_IP.to_bits()) as usize
}
