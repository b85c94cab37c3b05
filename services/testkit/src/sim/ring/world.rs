//! The event loop: nodes, their calls and lookups, and time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus, seq::IndexedRandom as _};
use shoal_core::ring::{
    Contact, Founding, Input, Lookup, LookupFailure, LookupSettings, Node, NodeSettings, Outcome,
    Output, Position, Purpose, RoutingTable, Seeds, Standing, TimeoutSettings, Timeouts,
};

use super::{
    calls::{Body, Reply, Told},
    network::Network,
    still::random_node,
};
use crate::sim::queue::Queue;

/// Addresses that a name stands for.
const NAMED: usize = 3;
/// How often a name is resolved by a node that looks for its ring, and by one that has found it.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);
const RESOLVE_RARELY: Duration = Duration::from_secs(10);
/// A late answer to a lookup is waited for so many times as long as one in time.
const LATE: u32 = 3;
/// How long whoever is at an address is waited for.
const MEET_PATIENCE: Duration = Duration::from_millis(1_500);

/// How nodes behave, and the network between them.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that is random.
    pub seed: u64,
    /// The nodes' periods and sizes.
    pub node: NodeSettings,
    /// How lookups ask.
    pub lookup: LookupSettings,
    /// How long others are waited for.
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

/// A node from its start to its end. It never comes back; another one may start.
#[derive(Debug)]
pub(super) struct Host {
    me: Contact,
    pub(super) brain: Node,
    /// What others see.
    pub(super) view: RoutingTable,
    timeouts: Timeouts,
    /// The tick that is set.
    tick_at: Option<Instant>,
    is_up: bool,
}

/// Tells lookups apart.
pub(super) type LookupKey = u64;

/// A lookup that is under way.
#[derive(Debug)]
struct Running {
    lookup: Lookup,
    host: usize,
    position: Position,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Brain(Purpose),
    /// To be measured.
    Measured {
        first_asked: Option<Position>,
        owner: Option<Position>,
    },
}

/// A measured lookup that is over.
#[derive(Debug)]
pub struct Ended {
    /// What it found.
    pub result: Result<Outcome, LookupFailure>,
    /// It found the owner of the time when it began or of the time when it ended.
    pub is_right: bool,
    /// The first node that it asked is that which it found.
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
    /// A call reaches the one it asks, whether or not its answer is still waited for.
    Called {
        call: u64,
        from: usize,
        to: usize,
        body: Arc<Body>,
    },
    /// An answer is back.
    Returned {
        call: u64,
        reply: Reply,
    },
    /// Nobody waits for an answer any longer.
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

/// All there is.
#[derive(Debug)]
pub struct World {
    setup: Setup,
    pub(super) rng: Xoshiro256PlusPlus,
    /// Time starts here; only differences matter.
    epoch: Instant,
    /// In ns from the start.
    now: u64,
    queue: Queue<Event>,
    /// The address of each is its place here.
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

    /// A world with a ring of so many nodes that came together at once.
    pub fn with_ring(setup: Setup, nodes: usize) -> Self {
        let network = setup.network.clone();
        let mut world = Self::new(setup);
        world.setup.network = Network { mean_delay: Duration::ZERO, loss: 0.0, ..network.clone() };
        let mut contacts: Vec<_> = (0..nodes).map(|_| world.new_contact()).collect();
        contacts.sort();
        // Each that joins takes over the list of the first, which is complete by then.
        let mut contacts = contacts.into_iter();
        let Some(founder) = contacts.next() else { return world };
        let founder = world.boot(&founder);
        world.tell(
            founder,
            Input::Seeds(Seeds {
                addresses: BTreeSet::new(),
                unresolved: BTreeSet::new(),
                founding: Founding::Anyway,
            }),
        );
        for contact in contacts.rev() {
            let joiner = world.boot(&contact);
            let Host { me, view, .. } = &world.hosts[founder];
            let met = Input::Met(me.address.clone(), view.state.clone());
            world.tell(joiner, met);
            world.run_for(Duration::ZERO);
        }
        world.setup.network = network;
        (0..nodes).for_each(|host| world.resolve(host));
        world
    }

    /// Starts a node that is told of a name for some of those that are up.
    pub fn start(&mut self) -> usize {
        let contact = self.new_contact();
        let host = self.boot(&contact);
        self.resolve(host);
        host
    }

    /// A random node is gone without a word. Returns which.
    pub fn crash(&mut self) -> usize {
        let host = self.random_up();
        self.stop(host);
        host
    }

    /// A random node leaves in order, and is gone a second later.
    pub fn leave(&mut self) -> usize {
        let host = self.random_up();
        self.tell(host, Input::Leave);
        self.run_for(Duration::from_secs(1));
        self.stop(host);
        host
    }

    /// Cuts these off from all others, and nobody else.
    pub fn cut_off(&mut self, hosts: BTreeSet<usize>) {
        self.setup.network.cut_off = hosts;
    }

    /// The nodes that are up.
    pub fn up(&self) -> &[usize] {
        &self.up
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time.as_nanos() as u64;
        while let Some((at, event)) = self.queue.pop_until(end) {
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// Lets time pass until there is one ring of all nodes that are up, and returns how long that
    /// took; none if it takes longer than `limit`.
    pub fn run_until_one_ring(&mut self, limit: Duration) -> Option<Duration> {
        /// How exactly this is measured.
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

    /// All nodes that are up are members of one ring: each knows the one before it, and those after
    /// it without a gap.
    pub fn is_one_ring(&self) -> bool {
        let members: Vec<_> = self.members.iter().collect();
        let others = members.len().saturating_sub(1);
        let min = self.setup.node.min_successors.min(others);
        let is_in_place = |(place, (_, host)): (usize, &(&Position, &usize))| {
            let state = &self.hosts[**host].view.state;
            let around = (place + 1..members.len()).chain(0..place);
            let after = around.clone().map(|place| members[place].0);
            let before = around.last().map(|place| members[place].0);
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

    /// A random node looks a random key up.
    pub fn look_up(&mut self) {
        let is_member =
            |world: &Self, host: usize| world.hosts[host].view.state.standing == Standing::Member;
        let mut host = self.random_up();
        while !is_member(self, host) {
            host = self.random_up();
        }
        let position = Position::from_u128(self.rng.random());
        let reason = Reason::Measured { first_asked: None, owner: self.owner_of(position) };
        self.begin_lookup(host, position, reason, None);
    }

    /// The measured lookups that ended since this was asked last.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Measured lookups under way on nodes that are up.
    pub fn is_looking_up(&self) -> bool {
        let mut measured = self.lookups.values();
        measured.any(|running| matches!(running.reason, Reason::Measured { .. }))
    }

    /// Events so far.
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
        random_node("".into(), &mut self.rng)
    }

    /// Starts a node that has heard of nobody.
    fn boot(&mut self, contact: &Contact) -> usize {
        let host = self.hosts.len();
        let Contact { position, id, .. } = *contact;
        let me = Contact { position, id, address: host.to_string().into() };
        let settings = self.setup.node.clone();
        let mut brain = Node::new(me.clone(), 1, settings, self.rng.random(), self.instant());
        self.hosts.push(Host {
            me,
            view: brain.routing_table(),
            brain,
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

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { host } => self.tick(host),
            Event::Resolve { host } => self.resolve(host),
            Event::Called { call, from, to, body } => self.called(call, from, to, &body),
            Event::Returned { call, reply } => self.end_call(call, Some(reply)),
            Event::GivenUp { call } => self.give_up(call),
        }
    }

    fn tick(&mut self, host: usize) {
        // A tick that was set before an earlier one is left in the queue.
        let now = self.instant();
        if self.hosts[host].tick_at.take_if(|at| *at == now).is_some() {
            self.tell(host, Input::Tick);
        }
    }

    /// Tells a node which addresses its name stands for now.
    fn resolve(&mut self, host: usize) {
        if !self.hosts[host].is_up {
            return;
        }
        let named = self.up.sample(&mut self.rng, NAMED);
        let addresses = named.map(|host| self.hosts[*host].me.address.clone()).collect();
        let (unresolved, founding) = (BTreeSet::new(), Founding::Smallest);
        self.tell(host, Input::Seeds(Seeds { addresses, unresolved, founding }));
        let is_joined = self.hosts[host].view.state.standing == Standing::Member;
        let again = if is_joined { RESOLVE_RARELY } else { RESOLVE_EVERY };
        self.after(again, Event::Resolve { host });
    }

    /// Tells a brain something, and has its host do what it says.
    fn tell(&mut self, host: usize, input: Input) {
        let now = self.instant();
        let Host { brain, tick_at, is_up: true, .. } = &mut self.hosts[host] else { return };
        let mut outputs = Vec::new();
        brain.handle(now, input, &mut outputs);
        let at = brain.next_deadline().max(now);
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
                    self.begin_lookup(host, position, Reason::Brain(purpose), through);
                }
            }
        }
    }

    fn publish(&mut self, host: usize) {
        let Host { brain, view, me, .. } = &mut self.hosts[host];
        *view = brain.routing_table();
        if view.state.standing == Standing::Member {
            self.members.insert(me.position, host);
        } else {
            self.members.remove(&me.position);
        }
    }

    fn call(&mut self, from: usize, body: Body) {
        let to: usize = body.address().parse().expect("addresses are places");
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
            self.tell(to, input);
        }
        if let Some(delay) = self.setup.network.delay(to, from, &mut self.rng) {
            self.after(delay, Event::Returned { call, reply });
        }
    }

    /// The time for an answer is over: for one to a lookup, it is late. What was lost is sent again by
    /// then, as TCP does.
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
        self.send(call, from, node.address.parse().expect("addresses are places"), body);
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
        match Arc::unwrap_or_clone(body).told(asked, reply) {
            Told::Brain(input) => self.tell(from, input),
            Told::Lookup(lookup, node, found) => {
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
        let Host { me, view, .. } = &self.hosts[host];
        let settings = self.setup.lookup.clone();
        let lookup = match through {
            Some(through) => Lookup::of_joiner(me, &[through], settings),
            None => Lookup::new(position, &view.find_for_lookup(position), settings),
        };
        let key = self.next_key();
        self.lookups.insert(key, Running { lookup, host, position, reason });
        self.drive(key);
    }

    /// Asks whom a lookup wants asked; if it is over, tells who wanted it.
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
        let running = self.lookups.remove(&key).expect("it was there just now");
        match running.reason {
            Reason::Brain(purpose) => self.tell(host, Input::LookedUp(purpose, result.ok())),
            Reason::Measured { first_asked, owner } => {
                let found = result.as_ref().ok().map(|outcome| outcome.owner.position);
                let is_right = found == owner || found == self.owner_of(position);
                let is_first_try = first_asked.is_none() || first_asked == found;
                self.ended.push(Ended { result, is_right, is_first_try });
            }
        }
    }
}
