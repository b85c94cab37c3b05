//! A download without a data directory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use shoal_core::content::{ContentId, Manifest, PieceHashes};

use super::{
    StoreError, Stored, content::create_directory, data_dir::lock_file, error::cannot,
    export::rename_new,
};

/// A download whose state lies in `.NAME.shoal` beside its destination until it is complete.
pub struct OneShot {
    stored: Arc<Stored>,
    destination: PathBuf,
    state: PathBuf,
    _lock: File,
}

impl OneShot {
    /// Goes on with an interrupted download of this content to this destination, if there is one.
    pub fn resume(destination: &Path, id: ContentId) -> Result<Option<Self>, StoreError> {
        let state = state_of(destination)?;
        let Some(manifest) = read_if_there(&state.join("manifest"))? else { return Ok(None) };
        let Some(hashes) = read_if_there(&state.join("hashes"))? else { return Ok(None) };
        let found = ContentId::of_manifest(&manifest);
        if found != id {
            return Err(StoreError::OtherDownload { path: state, id: found });
        }
        let manifest = Manifest::decode(&manifest)?;
        let hashes = PieceHashes::verify(&manifest, &hashes)?;
        Self::open(destination, state, manifest, hashes).map(Some)
    }

    /// Starts a download, or goes on with one that was interrupted.
    pub fn begin(
        destination: &Path,
        manifest: Manifest,
        hashes: PieceHashes,
    ) -> Result<Self, StoreError> {
        if let Some(resumed) = Self::resume(destination, manifest.id())? {
            return Ok(resumed);
        }
        let state = state_of(destination)?;
        create_directory(&state)?;
        // The manifest comes last: it makes the state one that can be resumed.
        for (name, bytes) in [("hashes", hashes.as_bytes()), ("manifest", &*manifest.encode())] {
            let path = state.join(name);
            let fresh = path.with_extension("new");
            fs::write(&fresh, bytes).map_err(cannot("write", &fresh))?;
            fs::rename(&fresh, &path).map_err(cannot("rename", &fresh))?;
        }
        Self::open(destination, state, manifest, hashes)
    }

    fn open(
        destination: &Path,
        state: PathBuf,
        manifest: Manifest,
        hashes: PieceHashes,
    ) -> Result<Self, StoreError> {
        if destination.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(destination.to_owned()));
        }
        let lock = lock_file(&state.join("lock"), &state)?;
        let directory = create_directory(&state)?;
        let stored = Stored::resume(manifest, hashes, &directory, Arc::default())?;
        Ok(Self { stored, destination: destination.to_owned(), state, _lock: lock })
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
        self.stored.checkpoint()?;
        self.stored.files.guard_as_is()?;
        rename_new(&self.stored.path(), &self.destination)?;
        self.stored.files.moved_to(self.destination);
        fs::remove_dir_all(&self.state).map_err(cannot("delete", &self.state))?;
        Ok(self.stored)
    }
}

/// `.NAME.shoal` beside the destination `NAME`.
fn state_of(destination: &Path) -> Result<PathBuf, StoreError> {
    let name = destination
        .file_name()
        .ok_or_else(|| StoreError::Unnamed(destination.to_owned()))?
        .to_str()
        .ok_or_else(|| StoreError::NotUtf8(destination.to_owned()))?;
    Ok(destination.with_file_name(format!(".{name}.shoal")))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}
