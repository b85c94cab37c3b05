//! The processes of a run, each with a folder and a log, and, if run as root, a host of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context as _, ensure};

use super::plan::{PEERS, RING_NODES, SMALL_DISKS, TRACKERS, Target};
use crate::{
    fleet::{ProcessNetwork, last_lines},
    interrupt::Interrupt,
    lab::LinkRate,
    network::{self, Link, Network},
    process::{Process, binary, free_port},
    small_disk::SmallDisk,
};

/// The prefix of the namespaces' names.
const PREFIX: &str = "shoal-chaos-";
/// The number of processes, each on its own host. Two more hosts follow: one for the clients and
/// one for the attackers, separate because services limit what each host may use.
const HOSTS: u32 = (RING_NODES + TRACKERS + PEERS) as u32;
const CLIENTS: u32 = HOSTS;
const STRANGERS: u32 = HOSTS + 1;
/// The size of a small disk of a ring node or peer, with room for all contents of a run at a time.
const DISK_BYTES: u64 = 96 << 20;
/// Bytes written at a time to fill a disk.
const FILL_BYTES: usize = 64 << 10;
/// The upload limit of a peer: low enough that faults happen during downloads.
const PEER_UPLOAD: &str = "4MB/s";
/// The number of ring nodes that a peer is configured with.
const CONTACTS: usize = 3;

/// All processes of a run, and their addresses.
pub(super) struct World {
    members: BTreeMap<Target, Member>,
    places: Arc<Places>,
    network: Option<Arc<Network>>,
    /// What is not possible here, and why.
    skipped: Vec<String>,
}

/// The addresses and folders of the processes. They do not change during a run.
#[derive(Debug)]
pub(super) struct Places {
    /// HOST:PORT of each process.
    addresses: BTreeMap<Target, String>,
    /// The folder of the run, with a folder per process and one for the published files.
    folder: PathBuf,
    /// The address of the attackers.
    pub(super) strangers: IpAddr,
}

/// A process that can be restarted.
struct Member {
    target: Target,
    network: ProcessNetwork,
    arguments: Vec<String>,
    folder: PathBuf,
    process: Option<Process>,
    disk: Option<SmallDisk>,
    /// The peak resident memory since the start of the run, over all restarts, in bytes.
    peak_memory: u64,
}

impl Places {
    /// HOST:PORT of a process.
    pub(super) fn address(&self, target: Target) -> &str {
        &self.addresses[&target]
    }

    /// HOST:PORT of each ring node.
    pub(super) fn ring(&self) -> Vec<String> {
        (0..RING_NODES).map(|number| self.address(Target::Ring(number)).to_owned()).collect()
    }

    /// The folder of a process.
    pub(super) fn folder(&self, target: Target) -> PathBuf {
        self.folder.join(target.to_string())
    }

    /// The data directory of a process.
    pub(super) fn data(&self, target: Target) -> PathBuf {
        self.folder(target).join("data")
    }

    /// The socket of a peer's local API.
    pub(super) fn control(&self, peer: usize) -> PathBuf {
        self.folder(Target::Peer(peer)).join("control.sock")
    }

    /// The folder of the files to publish.
    pub(super) fn sources(&self) -> PathBuf {
        self.folder.join("sources")
    }
}

impl World {
    /// Makes hosts and disks, as far as possible here, and starts no process yet.
    pub(super) fn new(folder: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let mut skipped = Vec::new();
        let unshaped = Link { up: LinkRate::UNSHAPED, down: LinkRate::UNSHAPED };
        let network = match network::check_requirements() {
            Ok(()) => {
                let links = [unshaped; HOSTS as usize + 2];
                Some(Arc::new(Network::new(PREFIX, &links, interrupt)?))
            }
            Err(error) => {
                skipped.push(format!("cut network: {error}"));
                None
            }
        };
        let has_hosts = network.is_some();
        let addresses = targets().map(|target| (target, address_of(target, has_hosts)));
        let strangers = if has_hosts { network::address(STRANGERS) } else { Ipv4Addr::LOCALHOST };
        let places = Arc::new(Places {
            addresses: addresses.collect(),
            folder: folder.to_owned(),
            strangers: strangers.into(),
        });
        fs::create_dir(places.sources())?;
        let mut world = Self { members: BTreeMap::new(), places, network, skipped };
        for target in targets() {
            let member = world.member(target)?;
            world.members.insert(target, member);
        }
        if world.members.values().all(|member| member.disk.is_none()) {
            world
                .skipped
                .push("full disk: small file systems need root, and the right to mount".into());
        }
        Ok(world)
    }

    fn member(&self, target: Target) -> anyhow::Result<Member> {
        let (places, folder) = (&self.places, self.places.folder(target));
        fs::create_dir_all(folder.join("faults"))?;
        let network = match self.network {
            Some(_) => network::process_network(PREFIX, host_of(target)),
            None => ProcessNetwork::Here,
        };
        let has_disk = matches!(target, Target::Ring(n) | Target::Peer(n) if n < SMALL_DISKS);
        let disk = has_disk.then(|| SmallDisk::mount(&places.data(target), DISK_BYTES)).flatten();
        let arguments = arguments(target, places)?;
        Ok(Member { target, network, arguments, folder, process: None, disk, peak_memory: 0 })
    }

    /// The addresses and folders.
    pub(super) fn places(&self) -> Arc<Places> {
        self.places.clone()
    }

    /// The network, if one was made.
    pub(super) fn network(&self) -> Option<Arc<Network>> {
        self.network.clone()
    }

    /// What is not possible here, and why.
    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Moves this thread, and the threads that it starts later, to the clients' host.
    pub(super) fn enter_clients(&self) -> anyhow::Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.enter(CLIENTS))
    }

    pub(super) fn start_all(&mut self) -> anyhow::Result<()> {
        self.members.values_mut().try_for_each(Member::start)
    }

    /// Restarts a process.
    pub(super) fn start(&mut self, target: Target) -> anyhow::Result<()> {
        self.member_mut(target).start()
    }

    /// Kills a process with SIGKILL.
    pub(super) fn kill(&mut self, target: Target) {
        let member = self.member_mut(target);
        member.note_memory();
        if let Some(mut process) = member.process.take() {
            process.kill();
        }
    }

    /// Stops a process with SIGSTOP.
    pub(super) fn pause(&self, target: Target) {
        self.members[&target].running().pause();
    }

    /// Resumes a stopped process.
    pub(super) fn resume(&self, target: Target) {
        self.members[&target].running().resume();
    }

    /// Disconnects a process from the network. Returns whether that is possible here.
    pub(super) fn cut(&self, target: Target) -> anyhow::Result<bool> {
        let Some(network) = &self.network else { return Ok(false) };
        network.part([host_of(target)]).map(|()| true)
    }

    /// Undoes [`cut`](Self::cut).
    pub(super) fn heal(&self, target: Target) -> anyhow::Result<()> {
        self.network.as_ref().map_or(Ok(()), |network| network.heal([host_of(target)]))
    }

    /// Fills the disk of a process. Returns false if the process has no disk of its own.
    pub(super) fn fill_disk(&self, target: Target) -> io::Result<bool> {
        if self.members[&target].disk.is_none() {
            return Ok(false);
        }
        let mut file = File::create(self.filling(target))?;
        let zeros = vec![0; FILL_BYTES];
        loop {
            match file.write(&zeros) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Undoes [`fill_disk`](Self::fill_disk).
    pub(super) fn empty_disk(&self, target: Target) -> io::Result<()> {
        fs::remove_file(self.filling(target))
    }

    fn filling(&self, target: Target) -> PathBuf {
        self.places.data(target).join("filling")
    }

    /// Moves the wall clock of a process, or that of its next start if it is not running.
    pub(super) fn move_clock(&self, target: Target, ahead_ms: i64) -> io::Result<()> {
        let faults = self.places.folder(target).join("faults");
        let (new, file) = (faults.join("clock.new"), faults.join("clock"));
        fs::write(&new, ahead_ms.to_string())?;
        // The rename is atomic: a reader finds the old number or the new one.
        fs::rename(new, file)
    }

    /// The log of a process so far.
    pub(super) fn log(&self, target: Target) -> String {
        fs::read_to_string(self.places.folder(target).join("log")).unwrap_or_default()
    }

    /// Whether its health check succeeds.
    pub(super) fn is_ready(&self, target: Target) -> bool {
        let member = &self.members[&target];
        let mut health = member.network.command(binary(program(target)));
        health.args(["health", "--listen", self.places.address(target)]);
        health.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    }

    /// A process that ended without being killed, if any, with its last log lines.
    pub(super) fn ended_by_itself(&mut self) -> Option<String> {
        let mut members = self.members.values_mut();
        let (target, status) = members.find_map(|member| {
            let status = member.process.as_mut()?.ended()?;
            Some((member.target, status))
        })?;
        Some(format!("{target} ended by itself, {status}: {}", last_lines(&self.log(target))))
    }

    /// The peak memory of each process, in bytes.
    pub(super) fn peak_memory(&mut self) -> Vec<(Target, u64)> {
        self.members.values_mut().for_each(Member::note_memory);
        self.members.values().map(|member| (member.target, member.peak_memory)).collect()
    }

    fn member_mut(&mut self, target: Target) -> &mut Member {
        self.members.get_mut(&target).expect("all targets have a process")
    }
}

impl Member {
    fn start(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("log");
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = self.network.command(binary(program(self.target)));
        command.args(&self.arguments).env("SHOAL_FAULTS", self.folder.join("faults"));
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        // Ctrl-C must reach this process only.
        command.process_group(0);
        let name = self.target.to_string();
        let process = Process::spawn_logged(&name, command, log);
        self.process = Some(process.with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the process runs, since its faults do not overlap")
    }

    fn note_memory(&mut self) {
        let peak = self.process.as_ref().and_then(Process::peak_memory);
        self.peak_memory = self.peak_memory.max(peak.unwrap_or_default());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Processes must end before their disks are unmounted.
        for member in self.members.values_mut() {
            member.process = None;
        }
    }
}

/// All processes of a run.
pub(super) fn targets() -> impl Iterator<Item = Target> {
    let ring = (0..RING_NODES).map(Target::Ring);
    ring.chain((0..TRACKERS).map(Target::Tracker)).chain((0..PEERS).map(Target::Peer))
}

/// Moves this thread, and the threads that it starts later, to the attackers' host.
pub(super) fn enter_strangers(network: Option<&Network>) -> anyhow::Result<()> {
    network.map_or(Ok(()), |network| network.enter(STRANGERS))
}

fn host_of(target: Target) -> u32 {
    let number = match target {
        Target::Ring(number) => number,
        Target::Tracker(number) => RING_NODES + number,
        Target::Peer(number) => RING_NODES + TRACKERS + number,
    };
    number as u32
}

fn address_of(target: Target, has_hosts: bool) -> String {
    if !has_hosts {
        return format!("127.0.0.1:{}", free_port());
    }
    let port = match target {
        Target::Tracker(_) => 7070,
        Target::Ring(_) => 7071,
        Target::Peer(_) => 7072,
    };
    format!("{}:{port}", network::address(host_of(target)))
}

fn program(target: Target) -> &'static str {
    match target {
        Target::Ring(_) => "shoal-dht-node",
        Target::Tracker(_) => "shoal-tracker",
        Target::Peer(_) => "shoal-peer",
    }
}

fn arguments(target: Target, places: &Places) -> anyhow::Result<Vec<String>> {
    let text = |path: PathBuf| {
        let text = path.into_os_string().into_string().ok();
        text.context("the path of the temporary directory is not UTF-8")
    };
    let mut arguments = vec!["--listen".to_owned(), places.address(target).to_owned()];
    let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    add("--admin", "off".to_owned());
    if !matches!(target, Target::Tracker(_)) {
        add("--data-dir", text(places.data(target))?);
    }
    let ring = places.ring().into_iter();
    match target {
        Target::Tracker(_) => {}
        Target::Ring(_) => ring.for_each(|node| add("--join", node)),
        Target::Peer(number) => {
            let control = text(places.control(number))?;
            ensure!(control.len() < 100, "{control} is too long for a socket; set TMPDIR");
            add("--control", format!("unix:{control}"));
            add("--limits-upload", PEER_UPLOAD.to_owned());
            for tracker in (0..TRACKERS).map(Target::Tracker) {
                add("--tracker", places.address(tracker).to_owned());
            }
            ring.take(CONTACTS).for_each(|node| add("--dht", node));
        }
    }
    Ok(arguments)
}
