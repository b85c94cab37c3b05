//! The file that a swarm is given, and the copies that it makes.

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

/// Written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What a file is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Bytes that nothing can compress.
    Random,
    /// Zeros, which cost nothing to make.
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

/// An error if a file differs from what was published.
pub fn check_copy(copy: &Path, published: blake3::Hash) -> anyhow::Result<()> {
    let found = hash(copy)?;
    ensure!(found == published, "{} is no true copy: its BLAKE3 is {found}", copy.display());
    Ok(())
}

/// An error if a folder's disk has no room for so many bytes.
pub fn ensure_room(folder: &Path, bytes: u64) -> anyhow::Result<()> {
    let disk = statvfs(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
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
    fn a_copy_that_differs_in_one_byte_is_no_copy() {
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
    fn a_disk_without_room_is_named() {
        let error = ensure_room(Path::new("/"), u64::MAX).unwrap_err();
        assert!(error.to_string().starts_with("/ has"), "{error}");
    }
}
