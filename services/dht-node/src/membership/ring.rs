//! The task that owns the ring's state machine: it makes the calls that the state machine asks for,
//! and publishes what other parts may see.

use std::{
    collections::BTreeSet,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use shoal_common::{
    status,
    supervisor::{Jobs, Supervisor},
};
use shoal_core::{
    Address,
    ring::{
        Answer, Contact, Entry, Founding, Input, Introducer, Lookup, LookupSettings,
        MembershipDigest, Node, NodeSettings, Output, Position, Purpose, Question, Seeds, Silence,
        State,
    },
};
use tokio::{
    net::lookup_host,
    sync::{mpsc, oneshot, watch},
    time::{interval_at, sleep, sleep_until},
};
use tonic::Code;
use tracing::{debug, info, warn};

use crate::{
    membership::snapshot::RingSnapshot,
    network::calls::{CallError, Calls},
    routing::lookup::Lookups,
};

/// Events that wait for the state machine; a sender waits while the queue is full.
const QUEUE: usize = 1024;
/// How often names are resolved while this node looks for a ring, and after it has joined one.
const RESOLVE_EVERY: Duration = Duration::from_secs(1);
const RESOLVE_RARELY: Duration = Duration::from_secs(10);
/// How often a node without a ring logs what it waits for.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// An event for the state machine.
#[derive(Debug)]
pub(crate) enum Event {
    /// An input.
    Input(Box<Input>),
    /// Gossip from this source, which expects gossip in return.
    Gossip(Introducer, Vec<Entry>, Option<MembershipDigest>, oneshot::Sender<Vec<Entry>>),
}

/// Sends events to the ring task. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RingHandle {
    events: mpsc::Sender<Event>,
    pub(crate) snapshot: watch::Receiver<Arc<RingSnapshot>>,
}

/// The nodes to join through.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// As configured, to be resolved.
    pub(crate) names: Vec<Address>,
    /// Nodes stored before a restart.
    pub(crate) remembered: Vec<Address>,
}

impl RingHandle {
    /// Starts the task, which runs until the process ends.
    pub(crate) fn start(
        me: Contact,
        incarnation: u64,
        calls: Calls,
        join: Join,
        supervisor: &Supervisor,
    ) -> (Self, Lookups) {
        let now = Instant::now();
        let mut node = Node::new(me, incarnation, NodeSettings::default(), rand::random(), now);
        let (events, queue) = mpsc::channel(QUEUE);
        let (publish, snapshot) = watch::channel(Arc::new(RingSnapshot::of(&mut node)));
        let lookups = Lookups { calls: calls.clone(), snapshot: snapshot.clone() };
        let task = Task {
            node,
            calls,
            lookups: lookups.clone(),
            events: events.clone(),
            publish,
            questions: supervisor.jobs(),
        };
        supervisor.spawn("ring", task.run(queue));
        let resolving = resolve(join, events.clone(), snapshot.clone());
        supervisor.spawn("names to join by", resolving);
        (Self { events, snapshot }, lookups)
    }

    /// A node at this source sent its state.
    pub(crate) async fn notified(&self, source: Introducer, state: State) {
        self.tell(Input::Notified(source, state)).await;
    }

    /// A node at this source sent gossip. Returns gossip for it.
    pub(crate) async fn gossiped(
        &self,
        source: Introducer,
        entries: Vec<Entry>,
        digest: Option<MembershipDigest>,
    ) -> Vec<Entry> {
        let (reply, news) = oneshot::channel();
        // The task ends with the process.
        let _ = self.events.send(Event::Gossip(source, entries, digest, reply)).await;
        news.await.unwrap_or_default()
    }

    /// This node leaves the ring.
    pub(crate) async fn leave(&self) {
        self.tell(Input::Leave).await;
    }

    async fn tell(&self, input: Input) {
        // The task ends with the process.
        let _ = self.events.send(Event::Input(Box::new(input))).await;
    }
}

struct Task {
    node: Node,
    calls: Calls,
    lookups: Lookups,
    events: mpsc::Sender<Event>,
    publish: watch::Sender<Arc<RingSnapshot>>,
    /// Questions to other nodes. The state machine waits for an answer to each.
    questions: Jobs,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Event>) {
        let mut outputs = Vec::new();
        let mut reports = interval_at((Instant::now() + REPORT_EVERY).into(), REPORT_EVERY);
        loop {
            let deadline = self.node.next_deadline();
            let event = tokio::select! {
                event = queue.recv() => event,
                () = sleep_until(deadline.into()) => Some(Event::Input(Box::new(Input::Tick))),
                _ = reports.tick() => {
                    self.report();
                    continue;
                }
            };
            let now = Instant::now();
            match event {
                None => return,
                Some(Event::Input(input)) => self.node.handle(now, *input, &mut outputs),
                Some(Event::Gossip(source, entries, digest, reply)) => {
                    let news = self.node.gossiped(now, &source, &entries, digest.as_ref());
                    // The caller may have gone.
                    let _ = reply.send(news);
                }
            }
            for output in outputs.drain(..) {
                self.carry_out(now, output);
            }
        }
    }

    /// Logs what this node waits for, if it has no ring.
    fn report(&self) {
        if let Some(wait) = self.node.wait(Instant::now()) {
            warn!(
                waited_s = wait.waited.as_secs(), waits_for = %wait.awaited, silent = ?wait.silent,
                unresolved = ?wait.unresolved, others_waiting = ?wait.others,
                "no ring yet; check the addresses given with --join"
            );
        }
    }

    fn publish(&mut self) {
        let now = RingSnapshot::of(&mut self.node);
        if let Some(live_nodes) = &now.routing.live_nodes {
            self.calls.go_by(live_nodes.clone());
        }
        let before = self.publish.send_replace(Arc::new(now));
        let (before, now) = (&before.routing.state, &self.node.state());
        if before.standing != now.standing {
            info!(standing = ?now.standing, founded = self.node.has_founded(), "place in the ring");
        } else if before.owned() != now.owned() {
            debug!(
                predecessor = ?now.predecessor, successors = now.successors.len(),
                "new neighbours"
            );
        }
    }

    fn carry_out(&mut self, now: Instant, output: Output) {
        let (events, calls) = (self.events.clone(), self.calls.clone());
        let answer = async move |input| {
            // The task ends with the process.
            let _ = events.send(Event::Input(Box::new(input))).await;
        };
        match output {
            Output::Changed => self.publish(),
            Output::Ask(node, question) => {
                self.questions.spawn("question to a node", async move {
                    if let Some(input) = ask(&calls, node, question, now).await {
                        answer(input).await;
                    }
                });
            }
            Output::Meet(address) => {
                self.questions.spawn("meeting of a node", async move {
                    let met = calls.state_at(&address).await;
                    answer(met.map_or_else(
                        |_| Input::Unmet(address.clone()),
                        |state| Input::Met(address.clone(), state),
                    ))
                    .await;
                });
            }
            Output::LookUp(purpose, position, through) => {
                let lookups = self.lookups.clone();
                self.questions.spawn("lookup of the ring", async move {
                    let outcome = look_up(&lookups, purpose, position, through).await;
                    answer(outcome).await;
                });
            }
        }
    }
}

/// The outcome of a question; none if the node was not dialled, which says nothing about it.
async fn ask(calls: &Calls, node: Contact, question: Question, asked: Instant) -> Option<Input> {
    let answer = match &question {
        Question::State => calls.state(&node).await.map(Answer::State),
        Question::Notify(state) => calls.notify(state, &node).await.map(|_| Answer::Noticed),
        Question::Probe(state) => {
            calls.probe(state, &node).await.map(|(state, found)| Answer::Probed(state, found))
        }
        Question::Gossip(entries, digest) => {
            calls.gossip(entries, digest, &node).await.map(Answer::Gossip)
        }
    };
    match answer {
        Ok(answer) => Some(Input::Answered(node, answer)),
        Err(error @ CallError::NotDialled(_)) => {
            debug!(%error, "a node is not asked");
            None
        }
        // It is alive, and does not accept the address that this node advertises.
        Err(CallError::Refused(address, refusal))
            if matches!(question, Question::Notify(_) | Question::Probe(_))
                && refusal.code() == Code::InvalidArgument =>
        {
            static ONCE: Once = Once::new();
            let why = status::words(&refusal);
            ONCE.call_once(|| warn!(addr = %address, %why, "the ring refuses this node"));
            None
        }
        Err(error) => {
            debug!(addr = %node.address, %error, "a node does not answer");
            let why = match error {
                CallError::Unreachable(_) => Silence::Refused,
                _ => Silence::NoAnswer,
            };
            Some(Input::Unanswered { node, question, asked, why })
        }
    }
}

async fn look_up(
    lookups: &Lookups,
    purpose: Purpose,
    position: Position,
    through: Option<Contact>,
) -> Input {
    let outcome = match through {
        None => lookups.look_up(position).await,
        Some(through) => {
            let me = lookups.snapshot.borrow().routing.state.node.clone();
            let lookup = Lookup::of_joiner(&me, &[through], LookupSettings::default());
            lookups.drive(position, lookup).await
        }
    };
    Input::LookedUp(purpose, outcome.ok())
}

/// Resolves names periodically: pods come and go.
async fn resolve(
    join: Join,
    events: mpsc::Sender<Event>,
    mut snapshot: watch::Receiver<Arc<RingSnapshot>>,
) {
    let founding = if join.names.is_empty() { Founding::Anyway } else { Founding::Smallest };
    loop {
        // The addresses that this node knew before a restart say little about where the others are
        // now.
        let remembered = join.remembered.iter().filter(|_| join.names.is_empty());
        let mut addresses: BTreeSet<Address> = remembered.cloned().collect();
        let mut unresolved = BTreeSet::new();
        for name in &join.names {
            match lookup_host((name.host(), name.port())).await {
                Ok(found) => addresses.extend(found.map(Address::from)),
                Err(error) => {
                    debug!(%name, %error, "the name cannot be resolved");
                    unresolved.insert(name.clone());
                }
            }
        }
        let seeds = Input::Seeds(Seeds { addresses, unresolved, founding });
        if events.send(Event::Input(Box::new(seeds))).await.is_err() {
            return;
        }
        let is_joined = snapshot.borrow_and_update().routing.state.owned().is_some();
        sleep(if is_joined { RESOLVE_RARELY } else { RESOLVE_EVERY }).await;
    }
}
