//! How fast the store hashes and takes in blocks, against one thread that only reads and hashes.
//!
//! `cargo run --release -p shoal-peer --example store_speed [DIRECTORY]`; by default in `/dev/shm`.

use std::{
    env,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use bytes::Bytes;
use shoal_core::{
    content::{BlockRange, Metadata, PieceLength},
    swarm::{Attempt, LinkKey},
};
use shoal_peer::store::{HashOptions, Hashed, OneShot, hash};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const BYTES: usize = 1 << 30;
const BLOCK: u32 = 256 << 10;
const THREADS: usize = 2;
const RUNS: u32 = 3;

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let scratch = directory.join(format!("store_speed.{}", std::process::id()));
    fs::create_dir(&scratch)?;
    let measured = measure(&scratch);
    fs::remove_dir_all(&scratch)?;
    measured
}

fn measure(scratch: &Path) -> Result<()> {
    let source = scratch.join("source");
    let bytes = noise();
    fs::write(&source, &bytes)?;
    for _ in 0..RUNS {
        let single = rate(|| read_and_hash(&source))?;
        println!("one thread that reads and hashes  {single:.2} GB/s");
        let all = rate(|| Ok(hash(&source, &HashOptions::default(), |_| {}).map(drop)?))?;
        println!("hash()                            {all:.2} GB/s, {:.2} of that", all / single);
        for bytes_in_piece in [256 << 10, 1 << 20, 16 << 20] {
            let piece_length = Some(PieceLength::new(bytes_in_piece)?);
            let options = HashOptions { piece_length, ..HashOptions::default() };
            let hashed = hash(&source, &options, |_| {})?;
            let accepted = accept_all(hashed, &bytes, &scratch.join("copy"))?;
            println!(
                "accept() by {THREADS} threads, {:>5} KiB   {accepted:.2} GB/s, {:.2} of that",
                bytes_in_piece >> 10,
                accepted / single
            );
        }
    }
    Ok(())
}

fn noise() -> Bytes {
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn read_and_hash(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BLOCK as usize];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => drop(hasher.update(&buffer[..read])),
        }
    }
    std::hint::black_box(hasher.finalize());
    Ok(())
}

/// Each thread is one neighbour that sends every other piece.
fn accept_all(hashed: Hashed, bytes: &Bytes, destination: &Path) -> Result<f64> {
    let download = OneShot::begin(destination, Metadata::Manifest(hashed.manifest))?;
    let stored = download.stored();
    let held = stored.held();
    let missing: Vec<_> = stored.layout().pieces().filter(|piece| !held.has(*piece)).collect();
    let send = |neighbour: usize| -> std::result::Result<(), shoal_peer::store::StoreError> {
        for piece in missing.iter().copied().skip(neighbour).step_by(THREADS) {
            let span = stored.layout().span(piece);
            for offset in (0..span.length).step_by(BLOCK as usize) {
                let length = BLOCK.min(span.length - offset);
                let start = span.offset as usize + offset as usize;
                let part = bytes.slice(start..start + length as usize);
                let block = BlockRange { piece, offset, length };
                stored.accept(LinkKey(neighbour as u64), Attempt(1), block, part)?;
            }
        }
        Ok(())
    };
    let rate = rate(|| {
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..THREADS).map(|neighbour| scope.spawn(move || send(neighbour))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| panicked())?.map_err(Into::into))
        })
    })?;
    let stored = download.finish(&CancellationToken::new())?;
    fs::remove_file(stored.path())?;
    Ok(rate)
}

fn panicked() -> Box<dyn std::error::Error> {
    io::Error::other("a thread panicked").into()
}

/// 10^9 bytes a second.
fn rate(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(BYTES as f64 / start.elapsed().as_secs_f64() / 1e9)
}
