//! The directory of a content that belongs to shoal: its manifest, and its blobs as files.

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, OFlags, fallocate},
    io::Errno,
};
use shoal_core::content::{BlobNumber, Kind, Manifest};

use shoal_common::durable_files::write_whole;

use crate::store::{
    StoreError,
    error::cannot,
    file_system::{delete_directory, sync_parent},
};

/// The directory of a content.
#[derive(Clone)]
pub(in crate::store) struct ContentDirectory(PathBuf);

impl ContentDirectory {
    pub(in crate::store) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.0
    }

    /// The log of the pieces held.
    pub(in crate::store) fn log(&self) -> PathBuf {
        self.0.join("held.log")
    }

    /// The file of a blob, or of the manifest.
    pub(in crate::store) fn blob(&self, blob: BlobNumber) -> PathBuf {
        match blob {
            BlobNumber::MANIFEST => self.0.join("manifest"),
            _ => self.blobs().join(blob.get().to_string()),
        }
    }

    /// The name of [`ContentDirectory::tree`].
    pub(in crate::store) const TREE: &str = "tree";

    /// The file or tree that is made of the blobs of a complete download, before it is moved to its
    /// destination.
    pub(in crate::store) fn tree(&self) -> PathBuf {
        self.0.join(Self::TREE)
    }

    /// The files of the blobs.
    pub(super) fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    pub(in crate::store) fn create(&self) -> Result<(), StoreError> {
        let blobs = self.blobs();
        fs::create_dir_all(&blobs).map_err(cannot("create", &blobs))
    }

    /// Bytes that the manifest and the blobs take on disk, as of now.
    pub(in crate::store) fn allocated_bytes(&self) -> u64 {
        // In units of 512 bytes, whatever the file system's.
        let allocated = |path: &Path| path.symlink_metadata().map_or(0, |file| file.blocks() * 512);
        let blobs = fs::read_dir(self.blobs()).into_iter().flatten().filter_map(Result::ok);
        let blobs: u64 = blobs.map(|blob| allocated(&blob.path())).sum();
        blobs + allocated(&self.blob(BlobNumber::MANIFEST))
    }

    /// Allocates the blocks of all pieces that are no holes, so that no other process can take them.
    /// Does nothing where the file system cannot.
    pub(super) fn allocate(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let layout = manifest.layout();
        let mut holes = manifest.holes().peekable();
        for blob in layout.blobs().skip(1) {
            let path = self.blob(blob);
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(cannot("open", &path))?;
            let mut run = 0..0;
            for piece in layout.pieces_of(blob) {
                if holes.next_if_eq(&piece).is_some() {
                    continue;
                }
                let span = layout.span(piece);
                if span.offset != run.end {
                    if !allocate(&file, &path, &run)? {
                        return Ok(());
                    }
                    run.start = span.offset;
                }
                run.end = span.offset + u64::from(span.length);
            }
            if !allocate(&file, &path, &run)? {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(in crate::store) fn delete(&self) -> Result<(), StoreError> {
        delete_directory(&self.0)
    }

    /// The encoded manifest, as far as it is there.
    pub(in crate::store) fn manifest(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.blob(BlobNumber::MANIFEST);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(cannot("read", &path)),
        }
    }

    /// Writes the encoded manifest.
    pub(in crate::store) fn write_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        fs::create_dir_all(&self.0).map_err(cannot("create", &self.0))?;
        let path = self.blob(BlobNumber::MANIFEST);
        write_whole(&path, manifest.encoded(), sync_parent).map(drop)
    }

    /// The blobs whose files do not exist, or are shorter or longer than they should be.
    pub(super) fn missing_blobs(&self, manifest: &Manifest) -> Vec<BlobNumber> {
        let layout = manifest.layout();
        let is_missing = |blob: &BlobNumber| {
            let found = self.blob(*blob).symlink_metadata();
            !found.is_ok_and(|found| found.is_file() && found.len() == layout.size_of(*blob))
        };
        layout.blobs().skip(1).filter(is_missing).collect()
    }

    /// Creates the files of the blobs, sparse and of full size. Existing bytes are kept.
    pub(super) fn create_blobs(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let layout = manifest.layout();
        layout.blobs().skip(1).try_for_each(|blob| {
            create_file(&self.blob(blob), layout.size_of(blob), mode_of(manifest, blob)).map(drop)
        })
    }

    /// Creates the file of the manifest, sparse and of full size. Existing bytes are kept.
    pub(super) fn create_manifest(&self, bytes: u64) -> Result<(), StoreError> {
        create_file(&self.blob(BlobNumber::MANIFEST), bytes, 0o644).map(drop)
    }
}

/// The mode of the file that is a whole blob, so that it can become that file.
fn mode_of(manifest: &Manifest, blob: BlobNumber) -> u32 {
    match manifest.files_of(blob) {
        [file] => {
            let entry = manifest.entry(*file);
            let executable = matches!(entry.kind, Kind::File { executable: true, .. });
            file_mode(executable, entry.private)
        }
        _ => 0o644,
    }
}

/// The mode of a file, before the user's mask.
pub(in crate::store) const fn file_mode(executable: bool, private: bool) -> u32 {
    match (executable, private) {
        (true, true) => 0o700,
        (true, false) => 0o755,
        (false, true) => 0o600,
        (false, false) => 0o644,
    }
}

/// Allocates a range of a file. False if the file system cannot.
fn allocate(file: &File, path: &Path, range: &Range<u64>) -> Result<bool, StoreError> {
    if range.is_empty() {
        return Ok(true);
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, range.start, range.end - range.start) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
        Err(error) => Err(StoreError::io("allocate", path, error.into())),
    }
}

/// Creates one file, sparse and of full size. Existing bytes are kept.
fn create_file(path: &Path, size: u64, mode: u32) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .mode(mode)
        .open(path)
        .map_err(cannot("create", path))?;
    let found = file.metadata().map_err(cannot("look at", path))?;
    // Setting the same length would change the file's time, so that it would look changed.
    if found.len() != size {
        file.set_len(size).map_err(cannot("resize", path))?;
    }
    Ok(file)
}
