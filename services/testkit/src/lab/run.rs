//! A run: a file is published, the peers start, and their events give each one's completion time.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};

use super::{
    PREFIX,
    processors::Ticks,
    report::{Measurement, Peer},
    setup::{PublisherFate, Setup},
};
use crate::{
    files::{self, Fill},
    fleet::{Event, Fleet, Member, Part, ToldBy, Usage},
    interrupt::Interrupt,
    network::{Link, Network, address, process_network},
};

/// Files are kept in memory, since disks are not measured.
pub(super) const MEMORY: &str = "/dev/shm";
/// The publisher's host, which also runs the tracker.
const SERVER: u32 = 0;
/// Longest wait for an event before other conditions are checked.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// Runs one distribution and measures it.
pub fn measure(setup: &Setup, interrupt: &Interrupt) -> anyhow::Result<Measurement> {
    setup.check()?;
    let folder = tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", process::id()))
        .tempdir_in(MEMORY)
        .with_context(|| format!("cannot use {MEMORY}"))?;
    let source = prepare(setup, folder.path(), interrupt)?;
    // Declared before the fleet, so that it is dropped after the fleet.
    let _network = Network::new(PREFIX, &links(setup), interrupt)?;
    let tracker = format!("{}:7070", address(SERVER));
    let mut fleet = Fleet::start(&process_network(PREFIX, SERVER), tracker, interrupt)?;
    let (server, id) = fleet.seed(&part(SERVER), &source)?;
    let run = Run { setup, folder: folder.path(), id: &id, server };
    let before = Ticks::now()?;
    let (peers, usage) = run.distribute(&mut fleet)?;
    let stolen_percent = Ticks::now()?.stolen_since(before);
    drop(fleet);
    let published = files::hash(&source)?;
    for peer in 0..setup.peers.get() {
        interrupt.check()?;
        files::check_copy(&run.copy(peer), published)?;
    }
    Ok(Measurement { setup: setup.clone(), peers, usage, stolen_percent })
}

/// Writes the file. Fails if its copies would not fit.
fn prepare(setup: &Setup, folder: &Path, interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let source = folder.join("data.bin");
    let total = setup.size.bytes() + setup.copies();
    files::ensure_room(folder, total)?;
    if setup.is_unshaped() {
        // A virtual machine's memory is slow when first written (0.3-0.7 GB/s).
        let warm = folder.join("warm");
        files::write(&warm, total, Fill::Zeros, interrupt)?;
        fs::remove_file(warm)?;
    }
    files::write(&source, setup.size.bytes(), Fill::Random, interrupt)?;
    Ok(source)
}

/// The links of the server and the peers.
fn links(setup: &Setup) -> Vec<Link> {
    let link = |up| Link { up, down: setup.down };
    let peers = (0..setup.peers.get()).map(|peer| link(setup.uplink(peer)));
    std::iter::once(link(setup.server_up)).chain(peers).collect()
}

fn part(host: u32) -> Part {
    Part {
        network: process_network(PREFIX, host),
        listen: format!("{}:7072", address(host)),
        up: None,
        told_by: ToldBy::Tracker,
    }
}

/// A run whose content is published and whose peers are not started yet.
struct Run<'a> {
    setup: &'a Setup,
    folder: &'a Path,
    id: &'a str,
    server: Member,
}

impl Run<'_> {
    /// Starts the peers and waits until all are complete. Time counts from the first start.
    fn distribute(&self, fleet: &mut Fleet) -> anyhow::Result<(Vec<Peer>, Usage)> {
        let count = self.setup.peers.get();
        let (started, started_unix) =
            (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
        let mut waiting = 0..count;
        let mut fetching = BTreeMap::new();
        let mut complete = Vec::new();
        while complete.len() < count as usize {
            while waiting.start < count && self.setup.start(waiting.start) <= started.elapsed() {
                let peer = waiting.start;
                fetching.insert(self.start(fleet, peer)?, peer);
                waiting.start += 1;
            }
            if let Some((member, Event::Completed { wasted_bytes, unix_ms })) =
                fleet.next(CHECK_EVERY)?
                && fetching.contains_key(&member)
            {
                let time = Duration::from_millis(unix_ms).saturating_sub(started_unix);
                complete.push(Peer { time, wasted_bytes });
                if complete.len() == 1 && self.setup.publisher == PublisherFate::DiesAfterOneCopy {
                    fleet.kill(self.server);
                }
            }
            if started.elapsed() > self.setup.limit {
                let done = complete.len();
                bail!("{done} of {count} peers were complete after {:?}", self.setup.limit);
            }
        }
        Ok((complete, fleet.usage()))
    }

    fn start(&self, fleet: &mut Fleet, peer: u32) -> anyhow::Result<Member> {
        fleet.get(&format!("peer {}", peer + 1), &part(peer + 1), self.id, &self.copy(peer))
    }

    fn copy(&self, peer: u32) -> PathBuf {
        self.folder.join(format!("copy-{}", peer + 1))
    }
}
