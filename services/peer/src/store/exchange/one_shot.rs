//! A download without a data directory, for one run of a command.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, Metadata as FileMetadata, Permissions},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{fs::CWD, process::geteuid};
use shoal_common::durable_files::{lock_file, parent, read_if_exists, write_whole};
use shoal_core::content::{
    ContentId, Descriptor, EntryNumber, Kind, Manifest, ManifestHashes, Metadata,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    export::sync_staged,
    tree::{self, Blobs, Restored, Target},
};
use crate::store::{
    StoreError,
    arrangement::{Arrangement, FileNumber},
    catalogue::PRIVATE,
    content::{ContentDirectory, Stored, path_below},
    error::cannot,
    file_system::{delete_directory, free_bytes, rename_new, sync_parent},
    hash::{Fingerprint, Fingerprints},
};

/// A download. Until it is complete, its state is in a directory beside its destination.
pub struct OneShot {
    stored: Arc<Stored>,
    destination: Destination,
    _lock: File,
}

/// The path to which a download is moved when it is complete, and its state until then.
struct Destination {
    path: PathBuf,
    /// `.ID-NAME.shoal` beside `path`, with hex digits that stand for the content and for the name.
    state: ContentDirectory,
}

impl OneShot {
    /// Resumes an interrupted download of this content to this destination, if there is one.
    pub fn resume(destination: &Path, id: ContentId) -> Result<Option<Self>, StoreError> {
        let destination = Destination::vacant(destination, id)?;
        if !destination.is_begun()? {
            return Ok(None);
        }
        let lock = destination.lock()?;
        let Some(metadata) = destination.record(id)? else { return Ok(None) };
        Self::open(destination, lock, metadata).map(Some)
    }

    /// Starts a download, or resumes an interrupted one.
    pub fn begin(destination: &Path, metadata: Metadata) -> Result<Self, StoreError> {
        let id = metadata.id();
        let destination = Destination::vacant(destination, id)?;
        destination.create()?;
        let lock = destination.lock()?;
        if destination.record(id)?.is_none() {
            destination
                .check_room(metadata.descriptor())
                .inspect_err(|_| drop(destination.state.delete()))?;
            destination.write_record(&metadata)?;
        }
        Self::open(destination, lock, metadata)
    }

    /// Deletes the state that is left beside a complete download if its process was killed after it
    /// had moved the files.
    pub fn tidy(destination: &Path, id: ContentId) -> Result<(), StoreError> {
        let destination = Destination::new(destination, id)?;
        if !destination.is_begun()? {
            return Ok(());
        }
        let _lock = destination.lock()?;
        delete_rest(&destination.state);
        Ok(())
    }

    fn open(destination: Destination, lock: File, metadata: Metadata) -> Result<Self, StoreError> {
        destination.take_back(metadata.descriptor())?;
        destination.check_room(metadata.descriptor())?;
        let stored = Stored::resume(metadata, &destination.state, Arc::default())?;
        stored.try_names_in(destination.state.path().join("names"))?;
        Ok(Self { stored, destination, _lock: lock })
    }

    /// The content.
    pub const fn stored(&self) -> &Arc<Stored> {
        &self.stored
    }

    /// Moves the complete content to its destination, and deletes the state. It can be served from
    /// there as long as nobody changes it.
    pub fn finish(self, stop: &CancellationToken) -> Result<Arc<Stored>, StoreError> {
        let manifest = self.stored.complete_manifest()?;
        self.stored.sync()?;
        let Destination { path, state } = self.destination;
        let tree = state.tree();
        let directory = File::open(state.path()).map_err(cannot("open", state.path()))?;
        let target = Target {
            directory: directory.as_fd(),
            name: ContentDirectory::TREE.as_ref(),
            shown: &tree,
        };
        tree::create(&self.stored, target, Blobs::Move, stop)?;
        sync_staged(target, manifest.is_directory()).map_err(cannot("sync", &tree))?;
        let look = |file: FileNumber| Fingerprint::at(&path_below(&tree, manifest, file.entry()));
        let fingerprints = Fingerprints::find(manifest, Arrangement::Tree, look)?;
        fingerprints.wait_for_next_tick();
        let own = manifest.entry(EntryNumber::ROOT);
        let moved = own.attributes.filter(|_| own.kind == Kind::Directory);
        let moved = moved.map(|attributes| Ok((File::open(&tree)?, attributes))).transpose();
        let moved = moved.map_err(cannot("open", &tree))?;
        rename_new(CWD, &tree, CWD, &path, &path)?;
        // Not before: who may not write to a directory may not move it.
        if let Some((directory, attributes)) = moved {
            if tree::restore(&directory, attributes, &path)? == Restored::NotKept {
                tracing::warn!(path = %path.display(), "the file system does not keep its mode and time");
            }
            directory.sync_all().map_err(cannot("sync", &path))?;
        }
        // Before the state is deleted: a power cut must leave the files or the state.
        sync_parent(&path)?;
        self.stored.files.moved_to(path, fingerprints);
        delete_rest(&state);
        Ok(self.stored)
    }
}

impl Destination {
    /// A destination that does not exist yet.
    fn vacant(path: &Path, id: ContentId) -> Result<Self, StoreError> {
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        let destination = Self::new(path, id)?;
        destination.check_others()?;
        Ok(destination)
    }

    fn new(path: &Path, id: ContentId) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(cannot("find", path))?;
        let Some(name) = path.file_name() else { return Err(StoreError::Unnamed(path)) };
        // Not the names themselves, which may be as long as a name can be.
        let state = format!(".{}-{}", &id.to_string()[..16], suffix(name));
        let state = ContentDirectory::new(path.with_file_name(state));
        Ok(Self { path, state })
    }

    /// Refuses a download whose missing bytes the file system has no room for.
    fn check_room(&self, descriptor: &Descriptor) -> Result<(), StoreError> {
        let state = self.state.path();
        let needed = descriptor.disk_bytes().saturating_sub(self.state.allocated_bytes());
        let Some(free) = free_bytes(state) else { return Ok(()) };
        match needed.saturating_sub(free) {
            0 => Ok(()),
            missing => Err(StoreError::NoSpace { path: self.path.clone(), needed, missing, free }),
        }
    }

    /// Refuses to download two contents to one destination: the other is unfinished.
    fn check_others(&self) -> Result<(), StoreError> {
        let ours = self.state.path();
        let suffix = self.path.file_name().map(suffix).unwrap_or_default();
        // Who may not list the directory may still download to it.
        let Ok(names) = fs::read_dir(parent(ours)) else { return Ok(()) };
        for name in names.filter_map(Result::ok).map(|entry| entry.file_name()) {
            let path = ours.with_file_name(&name);
            if path == ours || !name.as_encoded_bytes().ends_with(suffix.as_bytes()) {
                continue;
            }
            let other = Self { path: self.path.clone(), state: ContentDirectory::new(path) };
            // What others put there, such as a pipe, is not read.
            if !matches!(other.is_begun(), Ok(true)) {
                continue;
            }
            if let Some(descriptor) = read_if_exists(&other.descriptor())? {
                let id = ContentId::of_descriptor(&descriptor);
                let Self { path: destination, state } = other;
                let path = state.path().to_owned();
                return Err(StoreError::OtherDownload { path, id, destination });
            }
        }
        Ok(())
    }

    /// Moves files back that had become part of the tree when the process ended.
    fn take_back(&self, descriptor: &Descriptor) -> Result<(), StoreError> {
        let tree = self.state.tree();
        if tree.symlink_metadata().is_err() {
            return Ok(());
        }
        if let Ok(manifest) = Manifest::decode(descriptor.clone(), self.state.manifest()?) {
            self.take_blobs_back(&manifest, &tree)?;
        }
        match fs::remove_file(&tree) {
            Ok(()) => Ok(()),
            // The content is one file, which was moved back.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => delete_directory(&tree),
        }
    }

    fn take_blobs_back(&self, manifest: &Manifest, tree: &Path) -> Result<(), StoreError> {
        // Permissions that were restored may forbid to move, read and delete.
        let allow = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        for (number, entry) in manifest.entries().filter(|(_, entry)| entry.attributes.is_some()) {
            if entry.kind == Kind::Directory {
                // It may not exist yet.
                let _ = allow(&path_below(tree, manifest, number), PRIVATE);
            }
        }
        for blob in manifest.layout().blobs().skip(1) {
            let place = self.state.blob(blob);
            let [file] = manifest.files_of(blob) else { continue };
            if place.exists() {
                continue;
            }
            let moved = path_below(tree, manifest, *file);
            match fs::rename(&moved, &place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                renamed => renamed.map_err(cannot("rename", &moved))?,
            }
            if manifest.entry(*file).attributes.is_some() {
                allow(&place, 0o600).map_err(cannot("change the mode of", &place))?;
            }
        }
        Ok(())
    }

    /// Creates the directory of the state, which nobody else may enter, or keeps an existing one.
    fn create(&self) -> Result<(), StoreError> {
        let path = self.state.path();
        match DirBuilder::new().mode(PRIVATE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.is_begun().map(drop),
            created => created.map_err(cannot("create", path)),
        }?;
        self.note_old_state();
        Ok(())
    }

    /// Reports the state that an older release kept for a download to this destination, which nobody
    /// would notice: it is as large as the content.
    fn note_old_state(&self) {
        let name = self.path.file_name().unwrap_or_default();
        let name = [OsStr::new("."), name, OsStr::new(".shoal")].join(OsStr::new(""));
        let old = self.path.with_file_name(name);
        if old.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            tracing::warn!(path = %old.display(), "an older release left its state of a download here; delete it");
        }
    }

    /// Whether there is a state. Other users may write beside the destination, as in `/tmp`: a
    /// directory of theirs, which may hold links to files of this user, is refused.
    fn is_begun(&self) -> Result<bool, StoreError> {
        let path = self.state.path();
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found.map_err(cannot("look at", path))?,
        };
        if !metadata.is_dir() || metadata.uid() != self.own_uid(&metadata)? {
            return Err(StoreError::NotOurs(path.to_owned()));
        }
        Ok(true)
    }

    /// This user's id on the file system, which may be another one on a network file system.
    fn own_uid(&self, state: &FileMetadata) -> Result<u32, StoreError> {
        let uid = geteuid().as_raw();
        if state.uid() == uid {
            return Ok(uid);
        }
        let probe = self.state.path().with_extension(Uuid::new_v4().simple().to_string());
        let file = File::create_new(&probe).map_err(cannot("create", &probe))?;
        let owner = file.metadata().map(|metadata| metadata.uid());
        // If it remains, it is empty, and its name tells where it comes from.
        let _ = fs::remove_file(&probe);
        owner.map_err(cannot("look at", &probe))
    }

    fn lock(&self) -> Result<File, StoreError> {
        Ok(lock_file(&self.state.path().join("lock"), self.state.path())?)
    }

    /// What was recorded about the content when the download was begun.
    fn record(&self, id: ContentId) -> Result<Option<Metadata>, StoreError> {
        let Some(encoded) = read_if_exists(&self.descriptor())? else { return Ok(None) };
        let Some(hashes) = read_if_exists(&self.hashes())? else { return Ok(None) };
        let damaged = |what| StoreError::Damaged { what, id };
        if ContentId::of_descriptor(&encoded) != id {
            return Err(damaged("the descriptor"));
        }
        let descriptor = Descriptor::decode(&encoded)?;
        let hashes = ManifestHashes::verify(&descriptor, &hashes)
            .map_err(|_| damaged("the list of the manifest's hashes"))?;
        Ok(Some(Metadata::Descriptor(descriptor, hashes)))
    }

    /// Records which content is downloaded. The descriptor is written last: only with it the
    /// download can be resumed.
    fn write_record(&self, metadata: &Metadata) -> Result<(), StoreError> {
        let hashes = match metadata {
            Metadata::Manifest(manifest) => &ManifestHashes::of(manifest),
            Metadata::Descriptor(_, hashes) => hashes,
        };
        write_whole(&self.hashes(), hashes.as_bytes(), sync_parent)?;
        let descriptor = metadata.descriptor().encode();
        write_whole(&self.descriptor(), &descriptor, sync_parent).map(drop)
    }

    fn descriptor(&self) -> PathBuf {
        self.state.path().join(DESCRIPTOR)
    }

    fn hashes(&self) -> PathBuf {
        self.state.path().join("manifest.hashes")
    }
}

/// Deletes the state of a download that has reached its destination. If that is impossible, as in a
/// directory where files can only be added, the content is there nevertheless.
fn delete_rest(state: &ContentDirectory) {
    if let Err(error) = state.delete() {
        tracing::warn!(%error, "the state of the complete download is left; delete it");
    }
}

/// The name of the encoded descriptor in the state.
const DESCRIPTOR: &str = "descriptor";

/// The end of the names of the states of all downloads to a name.
fn suffix(name: &OsStr) -> String {
    let hash = blake3::hash(name.as_encoded_bytes()).to_hex();
    format!("{}.shoal", &hash[..8])
}
