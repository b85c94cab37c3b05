//! The demonstration: a swarm on this machine, from its start to verified copies, which loses its
//! tracker half-way.

mod display;
mod report;

use std::{
    collections::BTreeMap,
    fs, iter,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use indicatif::DecimalBytes;
use shoal_common::units::{ByteSize, Rate};

use self::{display::Display, report::Report};
use crate::{
    files::{self, Fill},
    fleet::{Event, Fleet, Member, Part, ProcessNetwork, Progress, ToldBy},
    interrupt::Interrupt,
    process::free_port,
};

/// Number of ring nodes.
const RING_NODES: usize = 5;
/// The interval at which the display is updated.
const UPDATE_EVERY: Duration = Duration::from_millis(100);
/// The demonstration fails if no peer receives a byte for so long.
const STALL: Duration = Duration::from_secs(60);
/// Longest wait for the seeder's last progress event. It sends a few per second.
const LAST_PROGRESS: Duration = Duration::from_secs(2);

/// The settings of the demonstration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The file to distribute; `None`: `size` random bytes.
    pub file: Option<PathBuf>,
    /// The size of the random file.
    pub size: ByteSize,
    /// Peers that fetch from the start. One more joins half-way.
    pub peers: NonZeroU32,
    /// The upload limit of the seeder.
    pub server_up: Option<Rate>,
    /// The upload limit of each peer.
    pub peer_up: Option<Rate>,
}

/// Distributes the file, shows the progress, verifies every copy and prints a report.
pub fn run(setup: &Setup, interrupt: &Interrupt) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("shoal-demo-").tempdir()?;
    let file = prepare(setup, folder.path(), interrupt)?;
    let bytes = fs::metadata(&file)?.len();
    ensure!(bytes > 0, "{} is empty", file.display());
    let tracker = address();
    println!("tracker     {tracker}");
    let mut fleet = Fleet::start(&ProcessNetwork::Here, tracker, interrupt)?;
    let ring: Vec<_> = iter::repeat_with(address).take(RING_NODES).collect();
    fleet.ring(&ProcessNetwork::Here, &ring, folder.path())?;
    println!("ring        {RING_NODES} nodes, {} and others; each peer knows one", ring[0]);
    let told_by = ToldBy::Both(ring[0].clone());
    let (seeder, id) = fleet.seed(&part(setup.server_up, told_by), &file)?;
    println!("seeder      {}, {}, id {id}", file.display(), DecimalBytes(bytes));
    println!("peers       {} fetch it", setup.peers);
    let mut swarm = Swarm {
        fleet,
        content: Content { id, bytes, folder: folder.path() },
        ring,
        seeder,
        started: Instant::now(),
        started_unix: SystemTime::now().duration_since(UNIX_EPOCH)?,
        peers: Vec::new(),
        by_member: BTreeMap::new(),
        sent_by_seeder: Progress::default(),
    };
    let report = swarm.distribute(setup)?;
    let published = files::hash(&file)?;
    for peer in &swarm.peers {
        interrupt.check()?;
        files::check_copy(&peer.copy, published)?;
    }
    println!("checked     {} copies, each with the BLAKE3 {published}", swarm.peers.len());
    println!("{report}");
    Ok(())
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// The file to distribute. Fails if its copies would not fit.
fn prepare(setup: &Setup, folder: &Path, interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let copies = u64::from(setup.all_peers().get());
    let room = |bytes: u64| {
        files::ensure_room(folder, bytes)
            .context("too little disk space; set TMPDIR to another folder")
    };
    let Some(file) = &setup.file else {
        let file = folder.join("demo.bin");
        room((copies + 1) * setup.size.bytes())?;
        files::write(&file, setup.size.bytes(), Fill::Random, interrupt)?;
        return Ok(file);
    };
    let file = file.canonicalize().with_context(|| file.display().to_string())?;
    ensure!(file.is_file(), "{} is not a file", file.display());
    room(copies * fs::metadata(&file)?.len())?;
    Ok(file)
}

fn part(up: Option<Rate>, told_by: ToldBy) -> Part {
    Part { network: ProcessNetwork::Here, listen: "127.0.0.1:0".to_owned(), up, told_by }
}

/// The running processes, with the latest progress of each.
struct Swarm<'a> {
    fleet: Fleet<'a>,
    content: Content<'a>,
    /// HOST:PORT of the ring nodes.
    ring: Vec<String>,
    seeder: Member,
    started: Instant,
    started_unix: Duration,
    peers: Vec<Peer>,
    by_member: BTreeMap<Member, usize>,
    sent_by_seeder: Progress,
}

/// The content that is distributed.
struct Content<'a> {
    id: String,
    bytes: u64,
    /// The folder of the copies.
    folder: &'a Path,
}

/// A leecher.
struct Peer {
    name: String,
    copy: PathBuf,
    progress: Progress,
    /// Completion time since the start.
    completed: Option<Duration>,
}

impl Setup {
    /// The number of peers, including the one that joins half-way.
    fn all_peers(&self) -> NonZeroU32 {
        self.peers.saturating_add(1)
    }
}

impl Swarm<'_> {
    /// Runs the peers until all are complete and the seeder has reported the bytes it sent.
    fn distribute(&mut self, setup: &Setup) -> anyhow::Result<Report> {
        let bytes = self.content.bytes;
        for number in 0..setup.peers.get() as usize {
            let node = self.ring[number % self.ring.len()].clone();
            self.join(setup, ToldBy::Both(node))?;
        }
        let mut display = Display::new(bytes);
        let mut last_gain = (0, Instant::now());
        while self.peers.iter().any(|peer| peer.completed.is_none()) {
            self.follow()?;
            let held = self.peers.iter().map(|peer| peer.progress.held_bytes).sum::<u64>();
            let is_half_way = 2 * held >= bytes * u64::from(setup.peers.get());
            if is_half_way && self.peers.len() == setup.peers.get() as usize {
                display.print_event(self.started.elapsed(), &self.lose_tracker(setup)?);
            }
            display.show(self.started.elapsed(), &self.peers);
            if held > last_gain.0 {
                last_gain = (held, Instant::now());
            }
            ensure!(last_gain.1.elapsed() < STALL, "no peer has received a byte in {STALL:?}");
        }
        display.end();
        let last = self.last();
        let deadline = Instant::now() + LAST_PROGRESS;
        let reported_at = |swarm: &Self| Duration::from_millis(swarm.sent_by_seeder.unix_ms);
        while reported_at(self) < self.started_unix + last && Instant::now() < deadline {
            self.follow()?;
        }
        Ok(Report {
            bytes,
            peers: setup.all_peers(),
            last,
            sent_by_seeder: self.sent_by_seeder.uploaded_bytes,
            server_up: setup.server_up,
            peer_up: setup.peer_up,
        })
    }

    /// Starts one more peer.
    fn join(&mut self, setup: &Setup, told_by: ToldBy) -> anyhow::Result<()> {
        let number = self.peers.len() + 1;
        let name = format!("peer {number}");
        let copy = self.content.folder.join(format!("copy-{number}"));
        let part = part(setup.peer_up, told_by);
        let member = self.fleet.get(&name, &part, &self.content.id, &copy)?;
        self.by_member.insert(member, self.peers.len());
        self.peers.push(Peer { name, copy, progress: Progress::default(), completed: None });
        Ok(())
    }

    /// Kills the tracker, and starts a peer that never knew it. Returns a message about it.
    fn lose_tracker(&mut self, setup: &Setup) -> anyhow::Result<String> {
        self.fleet.kill_tracker();
        let node = self.ring.last().context("the ring has no nodes")?.clone();
        let event = format!(
            "the tracker is killed; peer {} joins, which knows only the ring node {node}",
            self.peers.len() + 1
        );
        self.join(setup, ToldBy::Ring(node))?;
        Ok(event)
    }

    fn follow(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + UPDATE_EVERY;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if let Some((member, event)) = self.fleet.next(left)? {
                self.note(member, &event);
            }
        }
    }

    fn note(&mut self, member: Member, event: &Event) {
        let peer = self.by_member.get(&member).map(|&number| &mut self.peers[number]);
        match (event, peer) {
            (Event::Progress(progress), Some(peer)) => peer.progress = *progress,
            (Event::Progress(progress), None) if member == self.seeder => {
                self.sent_by_seeder = *progress;
            }
            (Event::Completed { unix_ms, .. }, Some(peer)) => {
                peer.progress.held_bytes = self.content.bytes;
                let at = Duration::from_millis(*unix_ms);
                peer.completed = Some(at.saturating_sub(self.started_unix));
            }
            _ => {}
        }
    }

    fn last(&self) -> Duration {
        self.peers.iter().filter_map(|peer| peer.completed).max().unwrap_or_default()
    }
}
