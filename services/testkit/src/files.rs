//! The file that a swarm distributes, and its copies.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, ensure};
use indicatif::DecimalBytes;
use rand::Rng as _;
use rustix::fs::statvfs;

use crate::interrupt::Interrupt;

/// Bytes written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Incompressible bytes.
    Random,
    /// Zeros, which are fast to make.
    Zeros,
}

/// Writes a file.
pub fn write(path: &Path, bytes: u64, fill: Fill, interrupt: &Interrupt) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(cannot)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        interrupt.check()?;
        if fill == Fill::Random {
            rand::rng().fill_bytes(&mut chunk);
        }
        let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&chunk[..length]).with_context(cannot)?;
        left -= length as u64;
    }
    Ok(())
}

/// The hash of a file's bytes, as `b3sum` prints it.
pub fn hash(path: &Path) -> anyhow::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    File::open(path)
        .and_then(|file| {
            io::copy(&mut io::BufReader::with_capacity(CHUNK_BYTES, file), &mut hasher)
        })
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize())
}

/// Fails if a copy differs from the published file.
pub fn check_copy(copy: &Path, published: blake3::Hash) -> anyhow::Result<()> {
    let found = hash(copy)?;
    ensure!(
        found == published,
        "{} differs from the published file: its BLAKE3 is {found}",
        copy.display()
    );
    Ok(())
}

/// Fails if the disk of a folder has less than `bytes` free.
pub fn ensure_room(folder: &Path, bytes: u64) -> anyhow::Result<()> {
    let disk = statvfs(folder)
        .with_context(|| format!("cannot read the free space of {}", folder.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    ensure!(
        free >= bytes,
        "{} has {} free, and {} are needed",
        folder.display(),
        DecimalBytes(free),
        DecimalBytes(bytes)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_that_differs_in_one_byte_is_rejected() {
        let interrupt = Interrupt::deaf().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
        write(&source, 1_500_000, Fill::Random, &interrupt).unwrap();
        let mut bytes = fs::read(&source).unwrap();
        assert_eq!(bytes.len(), 1_500_000);
        let published = hash(&source).unwrap();
        fs::write(&copy, &bytes).unwrap();
        check_copy(&copy, published).unwrap();
        bytes[1_234_567] ^= 1;
        fs::write(&copy, &bytes).unwrap();
        assert!(check_copy(&copy, published).is_err());
    }

    #[test]
    fn the_error_names_the_full_disk() {
        let error = ensure_room(Path::new("/"), u64::MAX).unwrap_err();
        assert!(error.to_string().starts_with("/ has"), "{error}");
    }
}
