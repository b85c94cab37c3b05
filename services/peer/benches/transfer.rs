//! The throughput of blocks from file to file on this machine, compared in the same run with a plain
//! copy over TCP that does the same work: it reads, sends, receives, hashes with BLAKE3, and writes. `cargo bench -p shoal-peer --bench transfer [-- MIB [PIECES_A_CALL [CALLS]]]`
//!
//! Each peer is a process with its files in /dev/shm: the server reads and sends, each client
//! receives, verifies and writes.

use std::{
    env, fs,
    hint::black_box,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener as StdListener, TcpStream},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use shoal_common::server::Limits;
use shoal_core::{
    Address,
    content::{ContentId, Metadata, PieceLength},
    swarm::{Attempt, ContentKey, FetchEnd, FetchKey, FetchRange, Input, LinkKey},
};
use shoal_peer::{
    store::{HashOptions, Hashed, OneShot, Stored, hash},
    transfer::{
        BlockSource, ContentIndex, Downloads, Event, FetchSpec, IoThreads, MAX_BLOCK_LENGTH,
        RateCap, RequestPiece, SocketTuning, Uploads,
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;

const IO_THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");
const CONTENT: ContentKey = ContentKey(1);
const LINK: LinkKey = LinkKey(1);
/// Runs for each number of clients.
const RUNS: usize = 4;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words {
        ["serve", file] => serve(Path::new(file)),
        ["fetch", file, to, from, pieces, calls] => {
            let pipeline = Pipeline { pieces_a_call: pieces.parse()?, calls: calls.parse()? };
            fetch(Path::new(file), Path::new(to), &from.parse()?, pipeline)
        }
        ["serve-tcp", file] => serve_tcp(Path::new(file)),
        ["fetch-tcp", to, from] => fetch_tcp(Path::new(to), from),
        _ => compare(&words),
    }
}

/// The calls that a client has in flight.
#[derive(Clone, Copy)]
struct Pipeline {
    pieces_a_call: usize,
    calls: usize,
}

fn compare(words: &[&str]) -> Result<()> {
    let word = |at: usize, default: usize| words.get(at).map_or(Ok(default), |word| word.parse());
    let bytes = word(0, 1024)? << 20;
    let (pieces, calls) = (word(1, 4)?.to_string(), word(2, 4)?.to_string());
    let directory = tempfile::tempdir_in("/dev/shm")?;
    let file = directory.path().join("source");
    write_noise(&file, bytes)?;
    let source = file.to_str().context("a path in UTF-8")?;

    for clients in [1, 8] {
        for _ in 0..RUNS {
            let tcp =
                Race { server: vec!["serve-tcp", source], client: vec!["fetch-tcp"], clients };
            let plain = tcp.run(directory.path(), &[])?;
            let client = vec!["fetch", source];
            let ours = Race { server: vec!["serve", source], client, clients };
            let ours = ours.run(directory.path(), &[&pieces, &calls])?;
            let ratio = ours.gb_per_s / plain.gb_per_s;
            println!("1 to {clients}: shoal {ours}; TCP {plain}; ratio {ratio:.2}");
        }
    }
    Ok(())
}

fn write_noise(path: &Path, bytes: usize) -> Result<()> {
    let mut noise = vec![0; 1 << 20];
    let mut file = fs::File::create(path)?;
    for at in 0..bytes >> 20 {
        blake3::Hasher::new().update(&at.to_le_bytes()).finalize_xof().fill(&mut noise);
        file.write_all(&noise)?;
    }
    Ok(())
}

/// One server and its clients, each given its task as arguments.
struct Race<'a> {
    server: Vec<&'a str>,
    /// The destination and the server's address are added.
    client: Vec<&'a str>,
    clients: u64,
}

struct Figures {
    gb_per_s: f64,
    gb_per_cpu_s: f64,
    peak_mib: u64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gb_per_s, gb_per_cpu_s, peak_mib } = self;
        write!(f, "{gb_per_s:.2} GB/s, {gb_per_cpu_s:.2} GB per CPU-s, {peak_mib} MiB")
    }
}

impl Race<'_> {
    fn run(&self, directory: &Path, more: &[&str]) -> Result<Figures> {
        let mut server = Racer::start(&self.server)?;
        let address = server.line()?;
        // And what is left beside them of unfinished ones.
        let copies = directory.join("copies");
        fs::create_dir(&copies)?;
        let mut clients = (0..self.clients)
            .map(|number| {
                let to = copies.join(number.to_string());
                let to = to.to_str().context("a path in UTF-8")?;
                let mut words = self.client.clone();
                words.extend([to, &address]);
                words.extend(more);
                Racer::start(&words)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut all: Vec<&mut Racer> = clients.iter_mut().chain([&mut server]).collect();
        // The server is last, and prints nothing more.
        let last = all.len() - 1;
        for client in &mut all[..last] {
            ensure!(client.line()? == "ready", "a client failed");
        }
        let before = cpu_seconds(&all)?;
        let started = Instant::now();
        for client in &mut all[..last] {
            client.go()?;
        }
        let mut bytes = 0;
        for client in &mut all[..last] {
            bytes += client.line()?.parse::<u64>()?;
        }
        let elapsed = started.elapsed().as_secs_f64();
        let cpu = cpu_seconds(&all)? - before;
        let peaks = all.iter().map(|racer| racer.peak_mib()).collect::<Result<Vec<_>>>()?;
        drop(clients);
        fs::remove_dir_all(copies)?;
        let gb = bytes as f64 / 1e9;
        let peak_mib = peaks.into_iter().max().unwrap_or(0);
        Ok(Figures { gb_per_s: gb / elapsed, gb_per_cpu_s: gb / cpu, peak_mib })
    }
}

/// A process of the race. It ends when its standard input is closed.
struct Racer {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Racer {
    fn start(words: &[&str]) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, output })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a process of the race died");
        Ok(line.trim().to_owned())
    }

    fn go(&mut self) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("a pipe")?.write_all(b"go\n")?)
    }

    fn file(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(format!("/proc/{}/{name}", self.child.id()))?)
    }

    fn peak_mib(&self) -> Result<u64> {
        let status = self.file("status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The user and system time of all processes so far, from the kernel's ticks of 10 ms.
fn cpu_seconds(racers: &[&mut Racer]) -> Result<f64> {
    let mut ticks = 0;
    for racer in racers {
        let stat = racer.file("stat")?;
        let (_, fields) = stat.rsplit_once(") ").context("stat")?;
        for field in fields.split(' ').skip(11).take(2) {
            ticks += field.parse::<u64>()?;
        }
    }
    Ok(ticks as f64 / 100.0)
}

/// Prints `ready`, and waits for the start.
fn wait_for_start() -> Result<()> {
    println!("ready");
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Waits until the race is over.
fn wait_for_end() -> Result<()> {
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

struct OneContent(Arc<Stored>);

impl ContentIndex for OneContent {
    fn content(&self, id: ContentId) -> Option<(ContentKey, Arc<Stored>)> {
        (id == self.0.id()).then(|| (CONTENT, self.0.clone()))
    }

    fn link(&self, _: ContentKey, _: &[u8]) -> Option<LinkKey> {
        None
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn hash_in_textbook_pieces(file: &Path) -> Result<Hashed> {
    let piece_length = Some(PieceLength::TEXTBOOK);
    Ok(hash(file, &HashOptions { piece_length, ..HashOptions::default() }, |_| {})?)
}

/// Serves the file to all callers, granting each request at once.
fn serve(file: &Path) -> Result<()> {
    let stored = Stored::in_place(hash_in_textbook_pieces(file)?);
    let io_threads = IoThreads::start(IO_THREADS)?;
    let (events, mut inbox) = mpsc::channel(1024);
    let uploads = Uploads::new(events, RateCap::new(None));
    let routes =
        RequestPiece::new(Arc::new(OneContent(stored)), uploads.clone()).add_to(Routes::default());
    let runtime = runtime()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?);
    let over = CancellationToken::new();
    let granting = async {
        while let Some(event) = inbox.recv().await {
            if let Event::Swarm(Input::ServeRequested { serve, ranges, .. }) = event {
                uploads.grant(serve, ranges.len());
            }
        }
    };
    let watching = over.clone();
    let watcher = std::thread::spawn(move || {
        let ended = wait_for_end();
        watching.cancel();
        ended
    });
    runtime.block_on(async {
        let (limits, tuning) = (Limits::default(), SocketTuning::default());
        tokio::select! {
            () = io_threads.serve(listener, routes, &limits, &tuning, over) => {}
            () = granting => {}
        }
    });
    watcher.join().expect("the watcher does not panic")
}

/// Fetches the content of `file` to `to`, with a few calls in flight.
fn fetch(file: &Path, to: &Path, from: &Address, pipeline: Pipeline) -> Result<()> {
    let manifest = hash_in_textbook_pieces(file)?.manifest;
    let copy = OneShot::begin(to, Metadata::Manifest(manifest))?;
    let io_threads = IoThreads::start(IO_THREADS)?;
    let (events, inbox) = mpsc::channel(1024);
    let downloads = Downloads::new(events, RateCap::new(None), Duration::from_secs(10));
    let source = downloads.source(&io_threads, from);
    let fetcher = Fetcher::new(copy.stored().clone(), source, pipeline.pieces_a_call);
    wait_for_start()?;
    runtime()?.block_on(fetcher.run(inbox, pipeline.calls))?;
    println!("{}", copy.stored().held_bytes());
    wait_for_end()
}

/// Takes the place of the state machine.
struct Fetcher {
    stored: Arc<Stored>,
    source: BlockSource,
    /// The ranges of the calls to come, the next one last.
    to_request: Vec<Vec<FetchRange>>,
    calls: Vec<DropGuard>,
}

impl Fetcher {
    fn new(stored: Arc<Stored>, source: BlockSource, pieces_a_call: usize) -> Self {
        let whole = |piece| FetchRange { attempt: Attempt(1), range: stored.layout().whole(piece) };
        let missing = stored.layout().pieces().filter(|piece| !stored.has(*piece));
        let pieces: Vec<_> = missing.map(whole).collect();
        let to_request = pieces.chunks(pieces_a_call).rev().map(<[_]>::to_vec).collect();
        Self { stored, source, to_request, calls: Vec::new() }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Event>, calls: usize) -> Result<()> {
        for _ in 0..calls {
            self.ask();
        }
        let mut missing = self.stored.layout().piece_count() - self.stored.held_pieces();
        while missing > 0 {
            match inbox.recv().await.context("the I/O threads run")? {
                Event::Swarm(Input::PieceStored { .. }) => missing -= 1,
                Event::Swarm(Input::FetchEnded { end: FetchEnd::Done, .. }) => self.ask(),
                Event::Swarm(Input::BlockArrived { .. } | Input::RoundTrip { .. }) => {}
                unexpected => bail!("{unexpected:?}"),
            }
        }
        Ok(())
    }

    fn ask(&mut self) {
        let Some(ranges) = self.to_request.pop() else { return };
        self.calls.push(self.source.fetch(FetchSpec {
            fetch: FetchKey(self.calls.len() as u64),
            link: LINK,
            content: CONTENT,
            stored: self.stored.clone(),
            ranges,
            block_length: MAX_BLOCK_LENGTH,
            link_token: Bytes::new(),
        }));
    }
}

/// Sends the file on each connection.
fn serve_tcp(file: &Path) -> Result<()> {
    let listener = StdListener::bind("127.0.0.1:0")?;
    SocketTuning::default().apply(&listener);
    println!("{}", listener.local_addr()?);
    let file = PathBuf::from(file);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let file = file.clone();
            std::thread::spawn(move || copy(&mut fs::File::open(file)?, &mut stream?, |_| {}));
        }
    });
    wait_for_end()
}

fn fetch_tcp(to: &Path, from: &str) -> Result<()> {
    let mut copied = fs::File::create(to)?;
    wait_for_start()?;
    let mut hasher = blake3::Hasher::new();
    let hash = |bytes: &[u8]| {
        hasher.update(bytes);
    };
    let bytes = copy(&mut TcpStream::connect(from)?, &mut copied, hash)?;
    black_box(hasher.finalize());
    println!("{bytes}");
    wait_for_end()
}

/// Copies in user space, and shows the bytes to `inspect`; `io::copy` would let the kernel copy.
fn copy(
    from: &mut impl io::Read,
    to: &mut impl io::Write,
    mut inspect: impl FnMut(&[u8]),
) -> io::Result<u64> {
    let mut buffer = vec![0; MAX_BLOCK_LENGTH as usize];
    let mut copied = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(copied);
        }
        inspect(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        copied += count as u64;
    }
}
