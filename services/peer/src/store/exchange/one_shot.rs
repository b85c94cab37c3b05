//! A download without a data directory, for one run of a command.

use std::{
    fs::{self, DirBuilder, File, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{fs::CWD, process::geteuid};
use shoal_common::durable_files::{lock_file, read_if_exists, write_whole};
use shoal_core::content::{ContentId, Manifest, PieceHashes};
use uuid::Uuid;

use crate::store::{
    StoreError,
    catalogue::PRIVATE,
    content::{ContentDirectory, Stored},
    error::cannot,
    file_system::{rename_new, sync_parent},
};

/// A download. Until it is complete, its state is in `.NAME.shoal` beside its destination `NAME`.
pub struct OneShot {
    stored: Arc<Stored>,
    destination: Destination,
    _lock: File,
}

/// The path to which a download is moved when it is complete, and its state until then.
struct Destination {
    path: PathBuf,
    /// `.NAME.shoal` beside `path`.
    state: ContentDirectory,
}

impl OneShot {
    /// Resumes an interrupted download of this content to this destination, if there is one.
    pub fn resume(destination: &Path, id: ContentId) -> Result<Option<Self>, StoreError> {
        let destination = Destination::vacant(destination)?;
        if !destination.is_begun()? {
            return Ok(None);
        }
        let lock = destination.lock()?;
        let Some((manifest, hashes)) = destination.record(id)? else { return Ok(None) };
        Self::open(destination, lock, manifest, hashes).map(Some)
    }

    /// Starts a download, or resumes an interrupted one.
    pub fn begin(
        destination: &Path,
        manifest: Manifest,
        hashes: PieceHashes,
    ) -> Result<Self, StoreError> {
        let destination = Destination::vacant(destination)?;
        destination.create()?;
        let lock = destination.lock()?;
        if destination.record(manifest.id())?.is_none() {
            destination.write_record(&manifest, &hashes)?;
        }
        Self::open(destination, lock, manifest, hashes)
    }

    /// Deletes the state that is left beside a complete download if its process was killed after it
    /// had moved the files.
    pub fn tidy(destination: &Path, id: ContentId) -> Result<(), StoreError> {
        let destination = Destination::new(destination)?;
        if !destination.is_begun()? || destination.state.data().exists() {
            return Ok(());
        }
        let _lock = destination.lock()?;
        destination.record(id)?;
        destination.state.delete()
    }

    fn open(
        destination: Destination,
        lock: File,
        manifest: Manifest,
        hashes: PieceHashes,
    ) -> Result<Self, StoreError> {
        let stored = Stored::resume(manifest, hashes, &destination.state, Arc::default())?;
        Ok(Self { stored, destination, _lock: lock })
    }

    /// The content.
    pub const fn stored(&self) -> &Arc<Stored> {
        &self.stored
    }

    /// Moves the complete content to its destination, and deletes the state. It can be served from
    /// there as long as nobody changes it.
    pub fn finish(self) -> Result<Arc<Stored>, StoreError> {
        if !self.stored.is_complete() {
            return Err(StoreError::Incomplete(self.stored.id()));
        }
        self.stored.sync()?;
        self.stored.files.guard_as_is()?;
        let Destination { path, state } = self.destination;
        rename_new(CWD, &self.stored.path(), CWD, &path, &path)?;
        // Before the state is deleted: a power cut must leave the files or the state.
        sync_parent(&path)?;
        self.stored.files.moved_to(path);
        state.delete()?;
        Ok(self.stored)
    }
}

impl Destination {
    /// A destination that does not exist yet.
    fn vacant(path: &Path) -> Result<Self, StoreError> {
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        Self::new(path)
    }

    fn new(path: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(cannot("find", path))?;
        let name = match path.file_name().map(|name| name.to_str()) {
            Some(Some(name)) => name,
            Some(None) => return Err(StoreError::NotUtf8(path)),
            None => return Err(StoreError::Unnamed(path)),
        };
        let state = ContentDirectory::new(path.with_file_name(format!(".{name}.shoal")));
        Ok(Self { path, state })
    }

    /// Creates the directory of the state, which nobody else may enter, or keeps an existing one.
    fn create(&self) -> Result<(), StoreError> {
        let path = self.state.path();
        match DirBuilder::new().mode(PRIVATE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.is_begun().map(drop),
            created => created.map_err(cannot("create", path)),
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
    fn own_uid(&self, state: &Metadata) -> Result<u32, StoreError> {
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

    /// The content whose download was begun; an error if that is another one.
    fn record(&self, id: ContentId) -> Result<Option<(Manifest, PieceHashes)>, StoreError> {
        let Some(manifest) = read_if_exists(&self.manifest())? else { return Ok(None) };
        let Some(hashes) = read_if_exists(&self.hashes())? else { return Ok(None) };
        let found = ContentId::of_manifest(&manifest);
        if found != id {
            let path = self.state.path().to_owned();
            return Err(StoreError::OtherDownload { path, id: found });
        }
        let manifest = Manifest::decode(&manifest)?;
        let hashes = PieceHashes::verify(&manifest, &hashes)?;
        Ok(Some((manifest, hashes)))
    }

    /// Records which content is downloaded. The manifest is written last: only with it the download
    /// can be resumed.
    fn write_record(&self, manifest: &Manifest, hashes: &PieceHashes) -> Result<(), StoreError> {
        write_whole(&self.hashes(), hashes.as_bytes(), sync_parent)?;
        write_whole(&self.manifest(), &manifest.encode(), sync_parent).map(drop)
    }

    fn manifest(&self) -> PathBuf {
        self.state.path().join("manifest")
    }

    fn hashes(&self) -> PathBuf {
        self.state.path().join("hashes")
    }
}
