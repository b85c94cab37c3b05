//! A piece is in exactly one state, whatever happens: the state machine, and a model of the store
//! that obeys it on two I/O threads, whose reports and orders overtake each other.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use proptest::{prelude::*, sample::Index};

use crate::{
    content::{BLOCK_UNIT, BlockRange, PieceIndex},
    swarm::{
        Attempt, BanReason, FetchEnd, FetchKey, FetchRange, Input, LinkKey, Output, PeerMessage,
        PieceState, Priority, Swarm, pending::Pending, testing::*,
    },
};

const PIECES: u32 = 5;
const UNITS: u32 = PIECE / BLOCK_UNIT;
const IO_THREADS: usize = 2;

impl Swarm {
    /// All fields agree on the one state of each piece.
    pub(super) fn check_pieces(&self) {
        for (key, content) in &self.contents {
            let mut wanted = Vec::new();
            for piece in content.layout.pieces() {
                let (state, pending) = (content.state(piece), content.pending.get(&piece));
                let is_skipped = content.picker.priority(piece) == Priority::Skip;
                let is_picked = match state {
                    PieceState::Held => content.is_seeding() && !is_skipped,
                    PieceState::Open => !content.is_seeding(),
                    _ => false,
                };
                assert_eq!(content.picker.is_open(piece), is_picked, "{piece:?} is {state:?}");
                let is_orphan = matches!(state, PieceState::Orphaned(_));
                assert_eq!(content.orphans.contains(&piece), is_orphan, "{piece:?} is {state:?}");
                if state == PieceState::Held {
                    assert!(pending.is_none() && !content.distrusted.contains(&piece));
                }
                if let Some(pending) = pending.filter(|pending| !pending.is_complete()) {
                    let of =
                        |of: &FetchRange| of.range.piece == piece && of.attempt == pending.attempt;
                    let fetches = self.requests.fetches.iter();
                    let sources = fetches
                        .filter(|(_, fetch)| fetch.content == *key && fetch.ranges.iter().any(of))
                        .map(|(key, _)| *key);
                    let known: BTreeSet<_> = pending.sources.iter().copied().collect();
                    assert_eq!(known, sources.collect(), "sources of {piece:?}");
                }
                if content.wants(piece) {
                    wanted.push(content.picker.complete() + content.picker.partial_copies(piece));
                }
            }
            let unavailable = wanted.iter().filter(|copies| **copies == 0).count();
            assert_eq!(content.missing() as usize, wanted.len());
            assert_eq!(content.unavailable() as usize, unavailable);
            assert_eq!(content.rarest(), wanted.into_iter().min());
        }
    }
}

/// What a store has of a piece, as `store::accept` keeps it.
enum AssemblyState {
    Open(Attempt, BTreeMap<u32, Unit>),
    Ended(Attempt),
    Closed,
}

#[derive(Clone, Copy)]
struct Unit {
    from: LinkKey,
    is_true: bool,
}

/// One of our calls, as the neighbour knows it.
struct Call {
    link: LinkKey,
    ranges: VecDeque<FetchRange>,
}

/// A peer without the bytes of its pieces.
struct World {
    bench: Bench,
    assemblies: BTreeMap<PieceIndex, AssemblyState>,
    suspects: BTreeMap<PieceIndex, BTreeSet<LinkKey>>,
    /// The neighbours, and whether they may lie.
    links: BTreeMap<LinkKey, bool>,
    /// The neighbours that sent false bytes.
    liars: BTreeSet<LinkKey>,
    calls: BTreeMap<FetchKey, Call>,
    /// Reports of each I/O thread that the state machine has not received yet.
    told: [VecDeque<Input>; IO_THREADS],
    /// What the threads have not done yet.
    cancels: VecDeque<FetchKey>,
    abandoned: VecDeque<(PieceIndex, Attempt)>,
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new();
        bench.add(PIECES, []);
        Self {
            bench,
            assemblies: BTreeMap::new(),
            suspects: BTreeMap::new(),
            links: BTreeMap::new(),
            liars: BTreeSet::new(),
            calls: BTreeMap::new(),
            told: Default::default(),
            cancels: VecDeque::new(),
            abandoned: VecDeque::new(),
        }
    }

    fn join(&mut self, may_lie: bool) {
        let link = self.bench.neighbour(0..PIECES);
        self.links.insert(link, may_lie);
        let outputs = self.bench.say(link, PeerMessage::Unchoke);
        self.obey(outputs);
    }

    fn leave(&mut self, link: LinkKey) {
        self.links.remove(&link);
        self.calls.retain(|_, call| call.link != link);
        self.tell(Input::LinkDown { link });
    }

    fn tell(&mut self, input: Input) {
        let outputs = self.bench.tell(input);
        self.obey(outputs);
    }

    fn pass(&mut self, time: Duration) {
        let outputs = self.bench.pass(time);
        self.obey(outputs);
    }

    fn obey(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Fetch { fetch, link, ranges, .. } => {
                    self.calls.insert(fetch, Call { link, ranges: ranges.into() });
                }
                Output::CancelFetch { fetch } => self.cancels.push_back(fetch),
                Output::Abandon { piece, attempt, .. } => {
                    self.abandoned.push_back((piece, attempt));
                }
                Output::Ban { link, reason } => {
                    assert_eq!(reason, BanReason::Corruption);
                    assert!(self.liars.contains(&link), "an innocent neighbour is banned");
                    self.leave(link);
                }
                Output::Close { link } => self.leave(link),
                _ => {}
            }
        }
    }

    /// The next unit of a call arrives, and its thread tells.
    fn block(&mut self, fetch: FetchKey, lies: bool) {
        let Some(call) = self.calls.get_mut(&fetch) else { return };
        let Some(FetchRange { attempt, range }) = call.ranges.front_mut() else { return };
        let (attempt, link) = (*attempt, call.link);
        let block = BlockRange { length: BLOCK_UNIT, ..*range };
        range.offset += BLOCK_UNIT;
        range.length -= BLOCK_UNIT;
        if range.length == 0 {
            call.ranges.pop_front();
        }
        let lies = lies && self.links.get(&link) == Some(&true);
        if lies {
            self.liars.insert(link);
        }
        let unit = Unit { from: link, is_true: !lies };
        let verdict = self.accept(attempt, block, unit);
        let thread = &mut self.told[fetch.0 as usize % IO_THREADS];
        thread.push_back(Input::BlockArrived { content: CONTENT, fetch, block });
        thread.extend(verdict);
    }

    fn accept(&mut self, attempt: Attempt, block: BlockRange, unit: Unit) -> Vec<Input> {
        let piece = block.piece;
        let begin = || AssemblyState::Open(attempt, BTreeMap::new());
        let assembly = self.assemblies.entry(piece).or_insert_with(begin);
        match assembly {
            AssemblyState::Open(last, _) | AssemblyState::Ended(last) if *last < attempt => {
                *assembly = begin();
            }
            _ => {}
        }
        let units = match assembly {
            AssemblyState::Open(current, units) if *current == attempt => units,
            _ => return Vec::new(),
        };
        units.entry(block.offset / BLOCK_UNIT).or_insert(unit);
        if units.len() < UNITS as usize {
            return Vec::new();
        }
        let units: Vec<_> = units.values().copied().collect();
        let contributors: BTreeSet<_> = units.iter().map(|unit| unit.from).collect();
        if units.iter().all(|unit| unit.is_true) {
            *assembly = AssemblyState::Closed;
            let liars = self.suspects.remove(&piece).unwrap_or_default();
            let caught = liars.into_iter().map(|link| Input::CaughtLying { link });
            let stored = Input::PieceStored { content: CONTENT, piece };
            return caught.chain([stored]).collect();
        }
        *assembly = AssemblyState::Ended(attempt);
        if contributors.len() > 1 {
            let false_ones = units.iter().filter(|unit| !unit.is_true).map(|unit| unit.from);
            self.suspects.entry(piece).or_default().extend(false_ones);
        }
        let contributors = contributors.into_iter().collect();
        vec![Input::PieceCorrupt { content: CONTENT, piece, attempt, contributors }]
    }

    fn abandon(&mut self, piece: PieceIndex, attempt: Attempt) {
        if let Some(assembly) = self.assemblies.get_mut(&piece)
            && matches!(assembly, AssemblyState::Open(current, _) if *current <= attempt)
        {
            *assembly = AssemblyState::Ended(attempt);
        }
    }

    fn hear(&mut self, thread: usize) {
        if let Some(input) = self.told[thread].pop_front() {
            self.tell(input);
        }
    }

    fn some_call(&self, index: Index) -> Option<FetchKey> {
        (!self.calls.is_empty())
            .then(|| *self.calls.keys().nth(index.index(self.calls.len())).expect("within"))
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Join { may_lie } if self.links.len() < 6 => self.join(may_lie),
            Step::Join { .. } => {}
            Step::Leave(index) => {
                let links: Vec<_> = self.links.keys().copied().collect();
                if !links.is_empty() {
                    self.leave(*index.get(&links));
                }
            }
            Step::Blocks(index, count, lies) => {
                if let Some(fetch) = self.some_call(index) {
                    (0..count).for_each(|_| self.block(fetch, lies));
                }
            }
            Step::End(index) => {
                if let Some(fetch) = self.some_call(index) {
                    self.calls.remove(&fetch);
                    let ended = Input::FetchEnded { fetch, end: FetchEnd::Failed };
                    self.told[fetch.0 as usize % IO_THREADS].push_back(ended);
                }
            }
            Step::Hear(thread) => self.hear(thread),
            Step::Cancel => {
                let fetch = self.cancels.pop_front();
                self.calls.retain(|key, _| Some(*key) != fetch);
            }
            Step::Abandon => {
                if let Some((piece, attempt)) = self.abandoned.pop_front() {
                    self.abandon(piece, attempt);
                }
            }
            Step::Prioritise(piece, priority) => {
                let pieces = vec![PieceIndex::new(piece)];
                self.tell(Input::Prioritise { content: CONTENT, pieces, priority });
            }
            Step::Wait(millis) => self.pass(Duration::from_millis(millis)),
        }
    }

    /// Every unit that counts as arrived is in the store, or the store's verdict is in flight.
    fn check(&self) {
        self.bench.swarm.check_pieces();
        for (piece, pending) in &self.bench.swarm.contents[&CONTENT].pending {
            if self.is_verdict_due(*piece, pending.attempt) {
                continue;
            }
            assert!(!pending.is_complete(), "{piece:?} waits for a verdict that never comes");
            let there: BTreeSet<u32> = match self.assemblies.get(piece) {
                Some(AssemblyState::Open(attempt, units)) if *attempt == pending.attempt => {
                    units.keys().copied().collect()
                }
                _ => BTreeSet::new(),
            };
            let counted = (0..UNITS).filter(|unit| !is_missing(pending, *unit));
            assert!(counted.into_iter().all(|unit| there.contains(&unit)), "{piece:?}");
        }
    }

    fn is_verdict_due(&self, of: PieceIndex, at: Attempt) -> bool {
        self.told.iter().flatten().any(|input| match input {
            Input::PieceStored { piece, .. } => *piece == of,
            Input::PieceCorrupt { piece, attempt, .. } => *piece == of && *attempt == at,
            _ => false,
        })
    }

    /// One honest neighbour stays, and everything is wanted: all pieces must come.
    fn complete(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.leave(link);
        }
        let pieces = (0..PIECES).map(PieceIndex::new).collect();
        let priority = Priority::Normal;
        self.tell(Input::Prioritise { content: CONTENT, pieces, priority });
        self.join(false);
        for _ in 0..200 {
            for fetch in self.calls.keys().copied().collect::<Vec<_>>() {
                self.block(fetch, false);
            }
            while !self.told.iter().all(VecDeque::is_empty) {
                (0..IO_THREADS).for_each(|thread| self.hear(thread));
            }
            while !self.cancels.is_empty() || !self.abandoned.is_empty() {
                self.take(Step::Cancel);
                self.take(Step::Abandon);
            }
            self.check();
            if self.links.is_empty() {
                // A link between two complete peers is closed.
                break;
            }
            self.pass(Duration::from_millis(100));
        }
        let status = self.bench.swarm.content_status(CONTENT).expect("it is there");
        assert_eq!(status.held, PIECES, "the download stands still");
    }
}

fn is_missing(pending: &Pending, unit: u32) -> bool {
    let offset = unit * BLOCK_UNIT;
    pending.missing().iter().any(|of| of.range.offset <= offset && offset < of.range.end())
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Join { may_lie: bool },
    Leave(Index),
    Blocks(Index, u32, bool),
    End(Index),
    Hear(usize),
    Cancel,
    Abandon,
    Prioritise(u32, Priority),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![2 => Just(Priority::Normal), 1 => Just(Priority::Skip), 1 => Just(Priority::High)];
    prop_oneof![
        3 => any::<bool>().prop_map(|may_lie| Step::Join { may_lie }),
        1 => any::<Index>().prop_map(Step::Leave),
        14 => (any::<Index>(), 1..5_u32, any::<bool>())
            .prop_map(|(call, count, lies)| Step::Blocks(call, count, lies)),
        1 => any::<Index>().prop_map(Step::End),
        12 => (0..IO_THREADS).prop_map(Step::Hear),
        2 => Just(Step::Cancel),
        2 => Just(Step::Abandon),
        1 => (0..PIECES, priority).prop_map(|(piece, priority)| Step::Prioritise(piece, priority)),
        3 => (1..3_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_piece_is_in_exactly_one_state_and_only_liars_are_banned(
        steps in prop::collection::vec(any_step(), 0..250),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
        world.complete();
    }
}

#[test]
fn bytes_of_a_failed_attempt_are_not_counted_into_the_next() {
    let mut bench = Bench::new();
    bench.add(1, []);
    let alice = bench.neighbour([0]);
    let bob = bench.neighbour([0]);
    let first = bench.unchokes_us(alice).remove(0);
    let failed = bench.attempt(0);
    bench.tell(Input::LinkDown { link: alice });
    let second = bench.unchokes_us(bob).remove(0);
    let attempt = bench.attempt(0);
    assert!(attempt > failed);
    bench.arrive(first.fetch, first.ranges[0]);
    let outputs = bench.corrupt(0, failed, &[alice]);
    assert!(outputs.is_empty(), "alice is gone, and the attempt was given up: {outputs:?}");
    bench.arrive(second.fetch, BlockRange { length: BLOCK_UNIT, ..second.ranges[0] });
    assert_eq!(bench.attempt(0), attempt);
    let totals = bench.swarm.totals(CONTENT);
    assert_eq!(totals.duplicate + totals.wasted, u64::from(PIECE));
}

#[test]
fn bytes_of_an_abandoned_attempt_count_as_wasted_and_the_store_discards_them() {
    let mut bench = Bench::new();
    bench.add(1, []);
    let alice = bench.neighbour([0]);
    let bob = bench.neighbour([0]);
    let call = bench.unchokes_us(alice).remove(0);
    bench.arrive(call.fetch, BlockRange { length: BLOCK_UNIT, ..call.ranges[0] });
    let attempt = bench.attempt(0);
    let elsewhere = [alice, bob];
    let again = asked(&bench.corrupt(0, attempt, &elsewhere)).remove(0);
    assert_eq!(bench.swarm.totals(CONTENT).wasted, u64::from(BLOCK_UNIT));
    let attempt = bench.attempt(0);
    bench.arrive(again.fetch, BlockRange { length: BLOCK_UNIT, ..again.ranges[0] });
    let outputs = bench.tell(Input::LinkDown { link: again.link });
    let abandon = Output::Abandon { content: CONTENT, piece: PieceIndex::new(0), attempt };
    assert_eq!(outputs[0], abandon);
    assert_eq!(bench.swarm.totals(CONTENT).wasted, 2 * u64::from(BLOCK_UNIT));
}

#[test]
fn a_begun_piece_that_becomes_unwanted_is_given_up_and_not_requested_again() {
    let mut bench = Bench::new();
    bench.add(2, []);
    let alice = bench.neighbour([0]);
    let bob = bench.connect();
    bench.say(bob, PeerMessage::Bitfield(bitfield(2, [1])));
    let call = bench.unchokes_us(alice).remove(0);
    bench.arrive(call.fetch, BlockRange { length: BLOCK_UNIT, ..call.ranges[0] });
    let attempt = bench.attempt(0);
    bench.tell(Input::LinkDown { link: alice });
    let piece = PieceIndex::new(0);
    let (content, pieces) = (CONTENT, vec![piece]);
    let skip = Input::Prioritise { content, pieces: pieces.clone(), priority: Priority::Skip };
    let outputs = bench.tell(skip);
    assert!(outputs.contains(&Output::Abandon { content, piece, attempt }), "{outputs:?}");
    let carol = bench.neighbour([0]);
    let outputs = bench.unchokes_us(carol);
    assert!(outputs.is_empty(), "an unwanted piece is requested: {outputs:?}");
    let outputs = bench.tell(Input::Prioritise { content, pieces, priority: Priority::Normal });
    assert_eq!(pieces_asked(&outputs), [0]);
    assert!(bench.attempt(0) > attempt);
}

#[test]
fn a_million_pieces_cost_no_more_to_look_at_than_a_thousand() {
    let look = |pieces: u32| {
        let mut bench = Bench::new();
        bench.add(pieces, [0]);
        let links = [bench.neighbour(0..pieces), bench.neighbour(0..pieces - 1)];
        let round = || {
            let start = epoch();
            for _ in 0..1_000 {
                std::hint::black_box(bench.swarm.content_status(CONTENT));
                for link in links {
                    std::hint::black_box(bench.swarm.link_status(link, bench.now));
                }
            }
            epoch() - start
        };
        (0..5).map(|_| round()).min().expect("some rounds")
    };
    let (few, many) = (look(1_000), look(1_000_000));
    // A look at each piece would cost a thousand times as much, one at each word of 64 still many.
    assert!(many < 4 * few, "{few:?} for a thousand pieces, {many:?} for a million");
}
