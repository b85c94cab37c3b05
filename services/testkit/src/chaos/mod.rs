//! The chaos test: a ring, trackers and peers under random faults and attacks at the same time,
//! while clients use them. The answers of the ring must be linearizable, every download must equal
//! the published file, no process may end by itself, and all must be ready and complete soon after
//! the faults.
//!
//! The faults are drawn from a seed (`plan.rs`). The interleaving of processes and clients is not.

mod attacks;
mod clients;
pub mod linear;
pub mod plan;
mod report;
mod swarm;
mod world;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{runtime::Builder, time::sleep};

pub use self::{clients::Tally, report::Report, swarm::Counts};

use self::{
    attacks::{Stranger, Victim},
    clients::Clients,
    plan::{Fault, TRACKERS, Target, Trouble, plan},
    report::column,
    swarm::Swarm,
    world::{World, targets},
};
use crate::{
    interrupt::Interrupt,
    ring::{client, flaw, state},
};

/// Longest start of all processes.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Longest time from the last fault until all processes are ready and all downloads complete.
/// Leases, reconfigurations, backoffs and bans of unreachable addresses end long before, and the
/// remaining downloads take seconds.
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);
/// The memory limit of each process, under any attack.
const MAX_MEMORY: u64 = 256 << 20;
/// How often a condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest time until a process reports that its clock was moved.
const CLOCK_PATIENCE: Duration = Duration::from_secs(10);
/// The log message of that report.
const CLOCK_MOVED: &str = "a test has moved the wall clock";
/// The process whose clock is moved for a check.
const CLOCK_PROBE: Target = Target::Ring(0);

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Determines the faults and their times.
    pub seed: u64,
    /// For how long faults are injected.
    pub length: Duration,
    /// Keep the logs even if no guarantee was violated.
    pub keep_logs: bool,
}

/// Runs the test. An error means that it could not be run; violations are in the report.
pub fn run(setup: &Setup, interrupt: &Interrupt) -> anyhow::Result<Report> {
    let folder = tempfile::Builder::new().prefix("shoal-chaos-").tempdir()?;
    println!(
        "seed {}, {} s; logs in {}",
        setup.seed,
        setup.length.as_secs(),
        folder.path().display()
    );
    let outcome = run_in(setup, folder.path(), interrupt);
    let keeps = match &outcome {
        Ok(report) => setup.keep_logs || !report.violations.is_empty(),
        Err(_) => true,
    };
    let kept = keeps.then(|| folder.keep());
    match outcome {
        Ok(report) => {
            let is_broken = !report.violations.is_empty();
            Ok(Report { logs: kept.filter(|_| is_broken), ..report })
        }
        Err(error) => Err(match kept {
            Some(folder) => error.context(format!("the logs are in {}", folder.display())),
            None => error,
        }),
    }
}

fn run_in(setup: &Setup, folder: &Path, interrupt: &Interrupt) -> anyhow::Result<Report> {
    let mut world = World::new(folder, interrupt)?;
    let run = || {
        world.enter_clients()?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut run = Run::new(setup, &mut world, interrupt);
        let outcome = runtime.block_on(run.live());
        runtime.shutdown_background();
        outcome.map(|()| run.report)
    };
    thread::scope(|scope| scope.spawn(run).join()).map_err(|_| anyhow!("the run panicked"))?
}

struct Run<'a> {
    setup: &'a Setup,
    world: &'a mut World,
    interrupt: &'a Interrupt,
    report: Report,
    rng: StdRng,
    can_move_clocks: bool,
    /// Running attacks, by the index of their fault.
    strangers: Vec<(usize, Stranger)>,
    begun: Instant,
}

/// The start or the end of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Ends,
    Begins,
}

impl<'a> Run<'a> {
    fn new(setup: &'a Setup, world: &'a mut World, interrupt: &'a Interrupt) -> Self {
        let Setup { seed, length, .. } = *setup;
        let skipped = world.skipped().to_vec();
        let report = Report { seed, length, skipped, ..Report::default() };
        let rng = StdRng::seed_from_u64(seed);
        let (can_move_clocks, strangers, begun) = (true, Vec::new(), Instant::now());
        Self { setup, world, interrupt, report, rng, can_move_clocks, strangers, begun }
    }

    async fn live(&mut self) -> anyhow::Result<()> {
        self.start().await?;
        let places = self.world.places();
        let mut clients = Clients::start(places.ring(), self.setup.seed);
        let swarm = Swarm::start(places, self.setup.seed);
        self.trouble(&swarm).await?;
        swarm.calm();
        if self.report.violations.is_empty() {
            self.settle(&swarm, &mut clients).await?;
        }
        self.report.ring = clients.tally();
        self.report.swarm = swarm.counts();
        self.report.violations.extend(swarm.flaws());
        self.report.violations.extend(clients.flaws());
        for (target, bytes) in self.world.peak_memory() {
            if bytes > MAX_MEMORY {
                let grown = format!("{target} grew to {bytes} bytes, more than {MAX_MEMORY}");
                self.report.violations.push(grown);
            }
            let most = &mut self.report.peak_memory[column(target)];
            *most = bytes.max(*most);
        }
        let strangers = self.strangers.drain(..);
        let missed = strangers.filter_map(|(_, stranger)| stranger.join().err());
        self.report.missed.extend(missed.map(|error| format!("{error:#}")));
        Ok(())
    }

    /// Starts all processes and waits until they are ready and the nodes form one ring.
    async fn start(&mut self) -> anyhow::Result<()> {
        self.world.start_all()?;
        let deadline = Instant::now() + START_PATIENCE;
        while let Some(wrong) = self.wrong().await {
            self.interrupt.check()?;
            if let Some(ended) = self.world.ended_by_itself() {
                bail!(ended);
            }
            if Instant::now() >= deadline {
                bail!("not ready after {START_PATIENCE:?}: {wrong}");
            }
            sleep(LOOK_EVERY).await;
        }
        self.check_clocks().await
    }

    /// Checks whether clocks can be moved: the binaries may lack the feature `faults`.
    async fn check_clocks(&mut self) -> anyhow::Result<()> {
        self.world.move_clock(CLOCK_PROBE, 1)?;
        let deadline = Instant::now() + CLOCK_PATIENCE;
        while !self.world.log(CLOCK_PROBE).contains(CLOCK_MOVED) {
            if Instant::now() >= deadline {
                let why = "clock step: the binaries were built without the feature `faults`; run \
                           `cargo build --workspace --bins`";
                self.report.skipped.push(why.to_owned());
                self.can_move_clocks = false;
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(self.world.move_clock(CLOCK_PROBE, 0)?)
    }

    /// Injects the faults.
    async fn trouble(&mut self, swarm: &Swarm) -> anyhow::Result<()> {
        let faults = plan(self.setup.seed, self.setup.length);
        let mut turns: Vec<_> = (0..)
            .zip(&faults)
            .flat_map(|(number, fault): (usize, _)| {
                [(fault.begins, Turn::Begins, number), (fault.ends, Turn::Ends, number)]
            })
            .collect();
        turns.sort_by_key(|(at, turn, number)| (*at, *number, *turn == Turn::Ends));
        self.begun = Instant::now();
        let mut begun = vec![false; faults.len()];
        let mut turns = turns.into_iter().peekable();
        while self.begun.elapsed() < self.setup.length || turns.peek().is_some() {
            self.interrupt.check()?;
            self.report.violations.extend(self.world.ended_by_itself());
            if swarm.has_ended() {
                bail!("the task that publishes and fetches panicked");
            }
            if !self.report.violations.is_empty() {
                // The faults end with the processes.
                return Ok(());
            }
            match turns.next_if(|(at, ..)| *at <= self.begun.elapsed()) {
                Some((_, Turn::Begins, number)) => {
                    begun[number] = self.begin(number, &faults[number], swarm)?;
                }
                Some((_, Turn::Ends, number)) if begun[number] => {
                    self.end(number, &faults[number])?;
                }
                Some(_) => {}
                None => sleep(LOOK_EVERY).await,
            }
        }
        Ok(())
    }

    /// Starts a fault. Returns whether it is possible here.
    fn begin(&mut self, number: usize, fault: &Fault, swarm: &Swarm) -> anyhow::Result<bool> {
        let target = fault.target;
        let is_possible = match fault.trouble {
            Trouble::Kill => {
                self.world.kill(target);
                true
            }
            Trouble::Stop => {
                self.world.pause(target);
                true
            }
            Trouble::Cut => self.world.cut(target)?,
            Trouble::FullDisk => self.world.fill_disk(target)?,
            Trouble::Clock(ahead_ms) => {
                if self.can_move_clocks {
                    self.world.move_clock(target, ahead_ms)?;
                }
                self.can_move_clocks
            }
            Trouble::Attack(attack) => {
                let places = self.world.places();
                let trackers: Vec<_> = (0..TRACKERS).map(Target::Tracker).collect();
                let tracker = trackers.choose(&mut self.rng).context("no trackers")?;
                let victim = Victim {
                    target,
                    address: places.address(target).to_owned(),
                    content: match target {
                        Target::Peer(number) => swarm.content_of(number),
                        Target::Ring(_) | Target::Tracker(_) => None,
                    },
                    tracker: places.address(*tracker).to_owned(),
                };
                let stranger = Stranger::start(attack, victim, &places, self.world.network());
                self.strangers.push((number, stranger));
                true
            }
        };
        if is_possible {
            self.report.count(fault.trouble.kind(), target);
            println!("{:>7.1} s {fault}", self.begun.elapsed().as_secs_f64());
        }
        Ok(is_possible)
    }

    fn end(&mut self, number: usize, fault: &Fault) -> anyhow::Result<()> {
        let target = fault.target;
        match fault.trouble {
            Trouble::Kill => self.world.start(target)?,
            Trouble::Stop => self.world.resume(target),
            Trouble::Cut => self.world.heal(target)?,
            Trouble::FullDisk => self.world.empty_disk(target)?,
            Trouble::Clock(_) => self.world.move_clock(target, 0)?,
            Trouble::Attack(_) => {
                let strangers = self.strangers.iter().filter(|(of, _)| *of == number);
                strangers.for_each(|(_, stranger)| stranger.end());
            }
        }
        Ok(())
    }

    /// Waits until all is ready and complete after the faults.
    async fn settle(&mut self, swarm: &Swarm, clients: &mut Clients) -> anyhow::Result<()> {
        let calm = Instant::now();
        let deadline = calm + SETTLE_PATIENCE;
        println!("{:>7.1} s the faults are over", self.begun.elapsed().as_secs_f64());
        loop {
            self.interrupt.check()?;
            if let Some(ended) = self.world.ended_by_itself() {
                self.report.violations.push(ended);
                return Ok(());
            }
            let wrong = match self.report.ready_after {
                None => self.wrong().await,
                Some(_) => None,
            };
            if wrong.is_none() {
                self.report.ready_after.get_or_insert_with(|| calm.elapsed());
            }
            let missing = swarm.missing();
            if missing.is_empty() {
                self.report.complete_after.get_or_insert_with(|| calm.elapsed());
            }
            if self.report.ready_after.is_some() && self.report.complete_after.is_some() {
                break;
            }
            if Instant::now() >= deadline {
                let late = wrong.into_iter().chain(missing);
                let late =
                    late.map(|what| format!("{SETTLE_PATIENCE:?} after the last fault: {what}"));
                self.report.violations.extend(late);
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        self.report
            .violations
            .extend(clients.stop(deadline.max(Instant::now() + LOOK_EVERY)).await.err());
        Ok(())
    }

    /// The first process that is not ready, or why the nodes do not form one ring.
    async fn wrong(&self) -> Option<String> {
        let mut states = Vec::new();
        for (number, address) in self.world.places().ring().iter().enumerate() {
            let answer = state(&mut client(address)).await.and_then(|answer| answer.state);
            let Some(state) = answer else {
                return Some(format!("{} does not answer", Target::Ring(number)));
            };
            states.push(state);
        }
        if let Some(flaw) = flaw(&mut states) {
            return Some(format!("the ring nodes do not form one ring: {flaw}"));
        }
        let unready = targets().find(|target| !self.world.is_ready(*target));
        unready.map(|target| format!("{target} is not ready"))
    }
}
