//! Imports a content as a stream: hashes it while it is written, and adds it when it is complete.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use shoal_core::content::{
    Bitfield, FileEntry, Layout, Manifest, PieceHash, PieceHasher, PieceHashes, PieceIndex,
    PieceLength, file_root,
};

use crate::store::{
    StoreError,
    catalogue::{Reservation, Store},
    content::{ContentDirectory, HeldLog, Stored, create_file},
    error::cannot,
    file_system::{create_parent, sync_file_system},
    hash::build_manifest,
};

/// What is to be imported.
#[derive(Clone, Debug)]
pub struct ImportPlan {
    /// Name of the content.
    pub name: String,
    /// A directory tree, instead of one file.
    pub is_directory: bool,
    /// Bytes of all files, at most. Room for them is reserved.
    pub total_bytes: u64,
    /// None: chosen by size.
    pub piece_length: Option<PieceLength>,
}

/// A running import. If it is dropped before [`Import::finish`], its files are deleted.
pub struct Import {
    store: Arc<Store>,
    /// None once the content is in the store.
    room: Option<Reservation>,
    plan: ImportPlan,
    piece_length: PieceLength,
    /// A directory of its own in the store's `import`.
    directory: ContentDirectory,
    /// Bytes of `plan` that no file has used yet.
    unclaimed: u64,
    current: Option<Current>,
    files: Vec<(FileEntry, Vec<PieceHash>)>,
    empty_directories: Vec<String>,
}

/// The file whose bytes are arriving.
struct Current {
    entry: FileEntry,
    path: PathBuf,
    file: File,
    /// The layout of this file alone.
    layout: Layout,
    written: u64,
    /// The hasher of the piece at `written`.
    hasher: Option<PieceHasher>,
    pieces: Vec<PieceHash>,
}

impl Import {
    /// Starts an import, if there is room for it.
    pub fn start(store: &Arc<Store>, plan: ImportPlan) -> Result<Self, StoreError> {
        let room = store.reserve(plan.total_bytes)?;
        Self::start_within(room, store, plan)
    }

    /// Like [`Import::start`], in room that [`Store::make_room`] has reserved.
    pub fn start_within(
        room: Reservation,
        store: &Arc<Store>,
        plan: ImportPlan,
    ) -> Result<Self, StoreError> {
        let piece_length =
            plan.piece_length.unwrap_or_else(|| PieceLength::for_size(plan.total_bytes));
        let import = Self {
            store: store.clone(),
            room: Some(room),
            piece_length,
            directory: ContentDirectory::new(store.staging()),
            unclaimed: plan.total_bytes,
            plan,
            current: None,
            files: Vec::new(),
            empty_directories: Vec::new(),
        };
        import.directory.create()?;
        Ok(import)
    }

    /// Starts the next file, whose bytes follow in chunks. The file before must be complete.
    pub fn file(&mut self, path: String, size: u64, executable: bool) -> Result<(), StoreError> {
        self.end_file()?;
        self.unclaimed = self
            .unclaimed
            .checked_sub(size)
            .ok_or(StoreError::Import("the files are larger than announced"))?;
        let entry = FileEntry { path, size, executable, root: [0; 32] };
        let layout = self.check_path(&entry)?;
        let mut place = self.directory.data();
        if self.plan.is_directory {
            place.push(&entry.path);
            create_parent(&place)?;
        }
        let file = create_file(&place, &entry)?;
        let (hasher, pieces) = (None, Vec::new());
        self.current =
            Some(Current { entry, path: place, file, layout, written: 0, hasher, pieces });
        Ok(())
    }

    /// Adds the next bytes of the current file.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let current =
            self.current.as_mut().ok_or(StoreError::Import("bytes arrived before a file"))?;
        current.write(bytes)
    }

    /// Adds an empty directory.
    pub fn empty_directory(&mut self, path: String) -> Result<(), StoreError> {
        Manifest::of_directory(
            self.plan.name.clone(),
            self.piece_length,
            Vec::new(),
            vec![path.clone()],
        )?;
        let place = self.directory.data().join(&path);
        fs::create_dir_all(&place).map_err(cannot("create", &place))?;
        self.empty_directories.push(path);
        Ok(())
    }

    /// Adds the content to the store, after all its parts.
    pub fn finish(mut self) -> Result<Arc<Stored>, StoreError> {
        self.end_file()?;
        if !self.plan.is_directory && self.files.len() != 1 {
            return Err(StoreError::Import(
                "a content that is not a directory has exactly one file",
            ));
        }
        if self.plan.is_directory {
            let place = self.directory.data();
            fs::create_dir_all(&place).map_err(cannot("create", &place))?;
        }
        let mut files = std::mem::take(&mut self.files);
        files.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        let (entries, pieces): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let manifest = build_manifest(
            self.plan.name.clone(),
            self.plan.is_directory,
            self.piece_length,
            entries,
            std::mem::take(&mut self.empty_directories),
        )?;
        let hashes = PieceHashes::verify(&manifest, pieces.concat().as_flattened())?;
        sync_file_system(self.directory.path())?;
        HeldLog::create(&self.directory.log(), &Bitfield::full(manifest.layout().piece_count()))?;
        let room = self.room.take().expect("an import is finished once");
        self.store.add_complete(room, manifest, hashes, self.directory.path())
    }

    /// Checks that a manifest may have the file's path, and returns the file's layout.
    fn check_path(&self, entry: &FileEntry) -> Result<Layout, StoreError> {
        if !self.plan.is_directory && entry.path != self.plan.name {
            return Err(StoreError::Import("a single file must have the name of the content"));
        }
        let files = vec![entry.clone()];
        let alone =
            Manifest::of_directory(self.plan.name.clone(), self.piece_length, files, Vec::new())?;
        Ok(alone.layout().clone())
    }

    fn end_file(&mut self) -> Result<(), StoreError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        if current.written != current.entry.size {
            return Err(StoreError::Import("a file is shorter than announced"));
        }
        current.entry.root = file_root(&current.pieces);
        self.files.push((current.entry, current.pieces));
        Ok(())
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        // Fails if the import was finished. What remains is deleted when the store is next opened.
        let _ = self.directory.delete();
    }
}

impl Current {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() as u64 > self.entry.size - self.written {
            return Err(StoreError::Import("a file is longer than announced"));
        }
        self.file.write_all_at(bytes, self.written).map_err(cannot("write", &self.path))?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let span = self.layout.span(PieceIndex::new(self.pieces.len() as u32));
            let end = span.offset + u64::from(span.length);
            let (part, later) = rest.split_at(rest.len().min((end - self.written) as usize));
            let hasher = self.hasher.get_or_insert_with(|| PieceHasher::new(&self.layout, span));
            hasher.update(part);
            self.written += part.len() as u64;
            if self.written == end {
                self.pieces.extend(self.hasher.take().map(|hasher| hasher.finish()));
            }
            rest = later;
        }
        Ok(())
    }
}
