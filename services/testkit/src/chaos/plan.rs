//! The faults of a run, drawn from its seed in advance: the same seed and length give the same
//! plan.

use std::{fmt, ops::Range, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// The number of ring nodes.
pub const RING_NODES: usize = 6;
/// The number of trackers. Each peer knows both.
pub const TRACKERS: usize = 2;
/// The number of peers. All publish and fetch.
pub const PEERS: usize = 5;
/// The most ring nodes that are unavailable at a time. With three replicas, more could leave a
/// range without a majority, for which the ring guarantees no answers.
pub const MAX_RING_NODES_AWAY: usize = 2;
/// How long a node still counts as unavailable after its return: it first receives the records that
/// it missed.
const RECOVERY: Duration = Duration::from_secs(4);
/// The first ring nodes and the first peers, this many each, have a small disk of their own.
pub const SMALL_DISKS: usize = 2;

/// There are no faults in this time at the start, and none starts in this time at the end.
const PEACE: Duration = Duration::from_secs(1);
/// The pause between the starts of two faults, in milliseconds.
const PAUSE_MS: Range<u64> = 50..900;
/// How far a clock is moved, in milliseconds. Shorter than the day for which a ring keeps
/// tombstones.
const STEP_MS: Range<i64> = 10_000..6 * 3_600_000;

/// A process of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A node of the ring.
    Ring(usize),
    /// A tracker.
    Tracker(usize),
    /// A peer.
    Peer(usize),
}

/// What a fault does to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// SIGKILL, and at the end a restart with the same data directory.
    Kill,
    /// SIGSTOP, and at the end SIGCONT.
    Stop,
    /// No packet reaches or leaves it, except to and from others that are cut off at the same time.
    Cut,
    /// Its disk is full.
    FullDisk,
    /// Its wall clock is moved by this many milliseconds, forwards or backwards.
    Clock(i64),
    /// An attacker calls it.
    Attack(Attack),
}

/// What an attacker does. Each attack is bounded in count, and ends with the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attack {
    /// Sends lists of empty elements, which are small on the wire and large in memory.
    Empties,
    /// Sends requests without their last byte.
    HalfSent,
    /// Opens connections and sends nothing on them.
    Idle,
    /// Requests manifests and does not read them.
    Unread,
    /// Opens links and sends only Hello on them.
    SilentLinks,
    /// Joins a swarm and sends wrong bytes.
    Poisoner,
    /// Joins a swarm, claims every piece and sends none.
    Staller,
    /// Joins a swarm and requests every piece at once.
    Flooder,
}

/// One fault of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it starts, from the start of the run.
    pub begins: Duration,
    /// When it ends.
    pub ends: Duration,
    /// The process.
    pub target: Target,
    /// What happens to it.
    pub trouble: Trouble,
}

impl Fault {
    /// Whether its target does not answer while it lasts.
    fn takes_away(&self) -> bool {
        matches!(self.trouble, Trouble::Kill | Trouble::Stop | Trouble::Cut | Trouble::FullDisk)
    }

    /// Whether the two faults must not both happen. Faults of one process do not overlap, except a
    /// clock step and another fault.
    fn collides_with(&self, other: &Self) -> bool {
        let is_clock = |fault: &Self| matches!(fault.trouble, Trouble::Clock(_));
        self.target == other.target
            && is_clock(self) == is_clock(other)
            && self.begins < other.ends + RECOVERY
            && other.begins < self.ends + RECOVERY
    }
}

/// The faults of a run of this length, in the order of their starts. Each ends by the end of the
/// run.
pub fn plan(seed: u64, length: Duration) -> Vec<Fault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut faults: Vec<Fault> = Vec::new();
    let mut now = PEACE;
    loop {
        now += Duration::from_millis(rng.random_range(PAUSE_MS));
        let fault = draw(&mut rng, now);
        if now + PEACE >= length {
            return faults;
        }
        let fault = Fault { ends: fault.ends.min(length), ..fault };
        let collides = faults.iter().any(|earlier| earlier.collides_with(&fault));
        if !collides && !is_one_too_many(&faults, &fault) {
            faults.push(fault);
        }
    }
}

/// Whether this fault would make more ring nodes unavailable than the ring tolerates.
fn is_one_too_many(faults: &[Fault], fault: &Fault) -> bool {
    let is_of_ring = |fault: &&Fault| matches!(fault.target, Target::Ring(_)) && fault.takes_away();
    let at_the_time = faults.iter().filter(|other| other.ends + RECOVERY > fault.begins);
    is_of_ring(&fault) && at_the_time.filter(is_of_ring).count() >= MAX_RING_NODES_AWAY
}

fn draw(rng: &mut StdRng, begins: Duration) -> Fault {
    let target = match rng.random_range(0..10) {
        0..5 => Target::Ring(rng.random_range(0..RING_NODES)),
        5 => Target::Tracker(rng.random_range(0..TRACKERS)),
        _ => Target::Peer(rng.random_range(0..PEERS)),
    };
    let has_small_disk = match target {
        Target::Ring(number) | Target::Peer(number) => number < SMALL_DISKS,
        Target::Tracker(_) => false,
    };
    let (trouble, lasts_ms) = match rng.random_range(0..13) {
        0..3 => (Trouble::Kill, 0..4_000),
        3..6 => (Trouble::Stop, 500..7_000),
        6..8 => (Trouble::Cut, 1_000..8_000),
        8..10 if has_small_disk => (Trouble::FullDisk, 2_000..8_000),
        10 if !matches!(target, Target::Tracker(_)) => {
            let step = rng.random_range(STEP_MS);
            let step = if rng.random() { step } else { -step };
            (Trouble::Clock(step), 3_000..15_000)
        }
        _ => (Trouble::Attack(draw_attack(rng, target)), 2_000..8_000),
    };
    let ends = begins + Duration::from_millis(rng.random_range(lasts_ms));
    Fault { begins, ends, target, trouble }
}

fn draw_attack(rng: &mut StdRng, target: Target) -> Attack {
    use Attack::{Empties, Flooder, HalfSent, Idle, Poisoner, SilentLinks, Staller, Unread};
    let possible: &[Attack] = match target {
        Target::Ring(_) => &[Empties, HalfSent, Idle],
        Target::Tracker(_) => &[HalfSent, Idle],
        Target::Peer(_) => &[Idle, Unread, SilentLinks, Poisoner, Staller, Flooder],
    };
    *possible.choose(rng).expect("each kind of target has attacks")
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(number) => write!(f, "ring-{number}"),
            Self::Tracker(number) => write!(f, "tracker-{number}"),
            Self::Peer(number) => write!(f, "peer-{number}"),
        }
    }
}

impl Trouble {
    /// Its row in the report's table.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Cut => "cut network",
            Self::FullDisk => "full disk",
            Self::Clock(_) => "clock step",
            Self::Attack(_) => "attack",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begins, ends, target, trouble } = self;
        let lasts = ends.saturating_sub(*begins).as_secs_f64();
        match trouble {
            Trouble::Kill => write!(f, "{target} is killed, and restarted after {lasts:.1} s"),
            Trouble::Stop => write!(f, "{target} is stopped for {lasts:.1} s"),
            Trouble::Cut => write!(f, "{target} is cut off for {lasts:.1} s"),
            Trouble::FullDisk => write!(f, "the disk of {target} is full for {lasts:.1} s"),
            Trouble::Clock(ms) => {
                write!(f, "the clock of {target} is moved by {} s for {lasts:.1} s", ms / 1_000)
            }
            Trouble::Attack(attack) => {
                write!(f, "{target} is attacked for {lasts:.1} s: {attack:?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(600);

    #[test]
    fn a_plan_is_reproducible() {
        assert_eq!(plan(7, LENGTH), plan(7, LENGTH));
        assert_ne!(plan(7, LENGTH), plan(8, LENGTH));
    }

    #[test]
    fn a_plan_has_faults_of_each_kind_and_they_end_in_time() {
        for seed in 0..20 {
            let faults = plan(seed, LENGTH);
            let kinds: BTreeSet<_> = faults.iter().map(|fault| fault.trouble.kind()).collect();
            assert_eq!(kinds.len(), 6, "seed {seed}: {kinds:?}");
            assert!(faults.iter().all(|fault| fault.begins <= fault.ends && fault.ends <= LENGTH));
            assert!(faults.is_sorted_by_key(|fault| fault.begins));
            assert!(faults.len() > 200, "seed {seed}: {}", faults.len());
        }
    }

    #[test]
    fn at_most_two_ring_nodes_are_away_at_a_time_and_faults_of_a_process_do_not_collide() {
        for seed in 0..20 {
            let faults = plan(seed, LENGTH);
            for (index, fault) in faults.iter().enumerate() {
                let earlier = &faults[..index];
                assert!(!earlier.iter().any(|other| other.collides_with(fault)), "{fault}");
                let away: BTreeSet<_> = faults[..=index]
                    .iter()
                    .filter(|other| other.takes_away() && other.ends > fault.begins)
                    .map(|other| other.target)
                    .filter(|target| matches!(target, Target::Ring(_)))
                    .collect();
                assert!(away.len() <= MAX_RING_NODES_AWAY, "seed {seed}: {away:?}");
            }
        }
    }
}
