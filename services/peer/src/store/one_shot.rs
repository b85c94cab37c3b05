//! A download without a data directory.

use std::{
    fs::{self, DirBuilder, File, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{fs::CWD, process::geteuid};
use shoal_core::content::{ContentId, Manifest, PieceHashes};

use uuid::Uuid;

use super::{
    StoreError, Stored,
    content::ContentDirectory,
    data_dir::{PRIVATE, lock_file},
    error::cannot,
    export::rename_new,
    files::{sync_parent, write_whole},
};

/// A download whose state lies in `.NAME.shoal` beside its destination until it is complete.
pub struct OneShot {
    stored: Arc<Stored>,
    place: Place,
    _lock: File,
}

/// Where a download goes, and its state until then.
struct Place {
    destination: PathBuf,
    /// `.NAME.shoal` beside the destination `NAME`.
    state: ContentDirectory,
}

impl OneShot {
    /// Goes on with an interrupted download of this content to this destination, if there is one.
    pub fn resume(destination: &Path, id: ContentId) -> Result<Option<Self>, StoreError> {
        let place = Place::vacant(destination)?;
        if !place.is_begun()? {
            return Ok(None);
        }
        let lock = place.lock()?;
        let Some((manifest, hashes)) = place.described(id)? else { return Ok(None) };
        Self::open(place, lock, manifest, hashes).map(Some)
    }

    /// Starts a download, or goes on with one that was interrupted.
    pub fn begin(
        destination: &Path,
        manifest: Manifest,
        hashes: PieceHashes,
    ) -> Result<Self, StoreError> {
        let place = Place::vacant(destination)?;
        place.create()?;
        let lock = place.lock()?;
        if place.described(manifest.id())?.is_none() {
            place.describe(&manifest, &hashes)?;
        }
        Self::open(place, lock, manifest, hashes)
    }

    /// Deletes the state that is left beside a complete download if its process was killed after
    /// moving it there.
    pub fn tidy(destination: &Path, id: ContentId) -> Result<(), StoreError> {
        let place = Place::of(destination)?;
        if !place.is_begun()? || place.state.data().exists() {
            return Ok(());
        }
        let _lock = place.lock()?;
        place.described(id)?;
        place.state.delete()
    }

    fn open(
        place: Place,
        lock: File,
        manifest: Manifest,
        hashes: PieceHashes,
    ) -> Result<Self, StoreError> {
        let stored = Stored::resume(manifest, hashes, &place.state, Arc::default())?;
        Ok(Self { stored, place, _lock: lock })
    }

    /// The content.
    pub const fn stored(&self) -> &Arc<Stored> {
        &self.stored
    }

    /// Moves the complete content to its destination and deletes the state. It can be served from
    /// there as long as nobody changes it.
    pub fn finish(self) -> Result<Arc<Stored>, StoreError> {
        if !self.stored.is_complete() {
            return Err(StoreError::Incomplete(self.stored.id()));
        }
        self.stored.sync()?;
        self.stored.files.guard_as_is()?;
        let Place { destination, state } = self.place;
        rename_new(CWD, &self.stored.path(), CWD, &destination, &destination)?;
        // Before the state goes: a power cut must leave one or the other.
        sync_parent(&destination)?;
        self.stored.files.moved_to(destination);
        state.delete()?;
        Ok(self.stored)
    }
}

impl Place {
    /// Of a destination where nothing lies yet.
    fn vacant(destination: &Path) -> Result<Self, StoreError> {
        if destination.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(destination.to_owned()));
        }
        Self::of(destination)
    }

    fn of(destination: &Path) -> Result<Self, StoreError> {
        let destination = std::path::absolute(destination).map_err(cannot("find", destination))?;
        let name = match destination.file_name().map(|name| name.to_str()) {
            Some(Some(name)) => name,
            Some(None) => return Err(StoreError::NotUtf8(destination)),
            None => return Err(StoreError::Unnamed(destination)),
        };
        let state = ContentDirectory(destination.with_file_name(format!(".{name}.shoal")));
        Ok(Self { destination, state })
    }

    /// Makes the directory of the state, which nobody else may enter, or goes on with ours.
    fn create(&self) -> Result<(), StoreError> {
        let path = &self.state.0;
        match DirBuilder::new().mode(PRIVATE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.is_begun().map(drop),
            created => created.map_err(cannot("create", path)),
        }
    }

    /// Whether there is a state. Others may write where the destination lies, as in `/tmp`: what
    /// they put there, with links to files of ours in it, is no state of ours.
    fn is_begun(&self) -> Result<bool, StoreError> {
        let path = &self.state.0;
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found.map_err(cannot("look at", path))?,
        };
        if !metadata.is_dir() || metadata.uid() != self.our_name(&metadata)? {
            return Err(StoreError::NotOurs(path.clone()));
        }
        Ok(true)
    }

    /// What the file system calls this user: on a network file system that may be another id.
    fn our_name(&self, state: &Metadata) -> Result<u32, StoreError> {
        let uid = geteuid().as_raw();
        if state.uid() == uid {
            return Ok(uid);
        }
        let probe = self.state.0.with_extension(Uuid::new_v4().simple().to_string());
        let file = File::create_new(&probe).map_err(cannot("create", &probe))?;
        let owner = file.metadata().map(|metadata| metadata.uid());
        // Empty, and under a name that tells, should it stay.
        let _ = fs::remove_file(&probe);
        owner.map_err(cannot("look at", &probe))
    }

    fn lock(&self) -> Result<File, StoreError> {
        lock_file(&self.state.0.join("lock"), &self.state.0)
    }

    /// What was begun here; of another content it is an error.
    fn described(&self, id: ContentId) -> Result<Option<(Manifest, PieceHashes)>, StoreError> {
        let Some(manifest) = read_if_there(&self.state.0.join("manifest"))? else {
            return Ok(None);
        };
        let Some(hashes) = read_if_there(&self.state.0.join("hashes"))? else { return Ok(None) };
        let found = ContentId::of_manifest(&manifest);
        if found != id {
            return Err(StoreError::OtherDownload { path: self.state.0.clone(), id: found });
        }
        let manifest = Manifest::decode(&manifest)?;
        let hashes = PieceHashes::verify(&manifest, &hashes)?;
        Ok(Some((manifest, hashes)))
    }

    /// Notes what is downloaded. The manifest comes last: it makes the state one to resume.
    fn describe(&self, manifest: &Manifest, hashes: &PieceHashes) -> Result<(), StoreError> {
        write_whole(&self.state.0.join("hashes"), hashes.as_bytes())?;
        write_whole(&self.state.0.join("manifest"), &manifest.encode()).map(drop)
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}
