//! Finds the files, directories and links below a path that are to become a content.

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, OFlags, readlinkat, statat};
use shoal_core::content::{Attributes, MAX_ENTRIES, ManifestError, is_inner_target};
use tokio_util::sync::CancellationToken;

use super::{Links, fingerprint::Fingerprint};
use crate::store::{
    StoreError,
    error::{Paths, cannot, check_stop},
    file_system::names_in,
    rooted_path::Opener,
};

/// Everything below a path, in the order of a manifest.
pub(super) struct Tree {
    /// The path of the content.
    root: PathBuf,
    /// Name of the file or directory.
    pub(super) name: Vec<u8>,
    pub(super) entries: Vec<Found>,
}

/// A file, directory or link that was found.
pub(super) struct Found {
    /// The number of its directory; that of the content is 0.
    parent: u32,
    pub(super) depth: u32,
    /// Empty for the content itself.
    pub(super) name: Vec<u8>,
    pub(super) kind: FoundKind,
    /// Its mode bits and the time of its last modification.
    pub(super) attributes: Attributes,
}

pub(super) enum FoundKind {
    Directory,
    Link(Vec<u8>),
    File(Fingerprint),
}

impl Tree {
    /// The path on disk of the content.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path on disk of an entry.
    pub(super) fn path_of(&self, number: usize) -> PathBuf {
        let mut names = Vec::new();
        let mut at = number;
        while at != 0 {
            names.push(&self.entries[at].name);
            at = self.entries[at].parent as usize;
        }
        let mut path = self.root.clone();
        path.extend(names.iter().rev().map(|name| OsStr::from_bytes(name)));
        path
    }

    /// The fingerprint of a file, by the number of its entry.
    pub(super) fn fingerprint(&self, entry: usize) -> &Fingerprint {
        match &self.entries[entry].kind {
            FoundKind::File(fingerprint) => fingerprint,
            FoundKind::Directory | FoundKind::Link(_) => unreachable!("blobs consist of files"),
        }
    }

    /// The files, by the numbers of their entries.
    pub(super) fn files(&self) -> impl Iterator<Item = (usize, &Fingerprint)> {
        self.entries.iter().enumerate().filter_map(|(number, entry)| match &entry.kind {
            FoundKind::File(fingerprint) => Some((number, fingerprint)),
            FoundKind::Directory | FoundKind::Link(_) => None,
        })
    }
}

/// Scans a file or directory tree.
pub(super) fn scan(
    root: &Path,
    opener: &Opener,
    links: Links,
    stop: &CancellationToken,
) -> Result<Tree, StoreError> {
    let metadata = metadata_of(root, opener)?;
    let tree = Tree { root: root.to_owned(), name: name_of(root)?, entries: Vec::new() };
    let mut walk = Walk {
        tree,
        opener,
        links,
        stop,
        above: Vec::new(),
        dangling: Paths::default(),
        refused: Paths::default(),
        not_files: Paths::default(),
    };
    walk.all(root, &metadata)?;
    let Walk { tree, dangling, refused, not_files, .. } = walk;
    if !dangling.is_empty() {
        return Err(StoreError::Dangling(dangling));
    }
    if !refused.is_empty() {
        return Err(StoreError::LinksRefused(refused));
    }
    if !not_files.is_empty() {
        return Err(StoreError::NotFiles(not_files));
    }
    Ok(tree)
}

struct Walk<'a> {
    tree: Tree,
    opener: &'a Opener,
    links: Links,
    stop: &'a CancellationToken,
    /// The current directory and those above it. Not in a recursion: there may be thousands.
    above: Vec<Directory>,
    /// Links that lead nowhere.
    dangling: Paths,
    /// Links that lead out of the content.
    refused: Paths,
    /// Devices, sockets and pipes.
    not_files: Paths,
}

/// A directory whose content is being visited.
struct Directory {
    /// The number of its entry.
    number: u32,
    path: PathBuf,
    device: u64,
    inode: u64,
    /// A link led to it, so that `..` leads elsewhere on disk than in the content.
    is_linked: bool,
    /// What it contains and was not visited yet, in order.
    names: std::vec::IntoIter<Listed>,
}

/// A name in a directory.
struct Listed {
    name: OsString,
    /// If it is a link.
    target: Option<Vec<u8>>,
}

impl Walk<'_> {
    /// Adds the file or directory at `root`, with everything below it.
    fn all(&mut self, root: &Path, metadata: &Metadata) -> Result<(), StoreError> {
        self.found(Vec::new(), root.to_owned(), metadata, false)?;
        while let Some(directory) = self.above.last_mut() {
            check_stop(self.stop, &directory.path)?;
            let Some(Listed { name, target }) = directory.names.next() else {
                self.above.pop();
                continue;
            };
            let path = directory.path.join(&name);
            let name = name.into_vec();
            if let Some(target) = target {
                self.link(name, path, target)?;
            } else {
                let metadata = metadata_of(&path, self.opener)?;
                self.found(name, path, &metadata, false)?;
            }
        }
        Ok(())
    }

    /// Adds a file or directory, which a link may have led to. What a directory contains is visited
    /// next.
    fn found(
        &mut self,
        name: Vec<u8>,
        path: PathBuf,
        metadata: &Metadata,
        is_linked: bool,
    ) -> Result<(), StoreError> {
        let attributes = Attributes {
            mode: metadata.mode() & 0o7777,
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        };
        if metadata.is_dir() {
            let number = self.push(name, FoundKind::Directory, attributes)?;
            let directory = self.open(number, path, is_linked)?;
            self.above.push(directory);
        } else if metadata.is_file() {
            self.push(name, FoundKind::File(Fingerprint::of(metadata)), attributes)?;
        } else {
            self.not_files.push(path);
        }
        Ok(())
    }

    /// Adds an entry of the current directory.
    fn push(
        &mut self,
        name: Vec<u8>,
        kind: FoundKind,
        attributes: Attributes,
    ) -> Result<u32, StoreError> {
        let number = self.tree.entries.len() as u32;
        if number >= MAX_ENTRIES {
            return Err(ManifestError::TooManyEntries.into());
        }
        let parent = self.above.last().map_or(0, |directory| directory.number);
        let depth = self.above.len() as u32;
        self.tree.entries.push(Found { parent, depth, name, kind, attributes });
        Ok(number)
    }

    /// Opens a directory and lists it.
    fn open(&self, number: u32, path: PathBuf, is_linked: bool) -> Result<Directory, StoreError> {
        let opened = self.opener.open(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let metadata = opened.metadata().map_err(cannot("look at", &path))?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        if self.above.iter().any(|above| (above.device, above.inode) == (device, inode)) {
            return Err(StoreError::LinkCycle(path));
        }
        let mut names = names_in(&opened).map_err(cannot("list", &path))?;
        names.sort_unstable();
        let list = |name: OsString| match target_of(&opened, &name) {
            Ok(target) => Ok(Listed { name, target }),
            Err(error) => Err(StoreError::io("look at", &path.join(&name), error.into())),
        };
        let names: Vec<_> = names.into_iter().map(list).collect::<Result<_, _>>()?;
        Ok(Directory { number, path, device, inode, is_linked, names: names.into_iter() })
    }

    /// A link that stays in the content is kept; what becomes of others is a choice.
    fn link(&mut self, name: Vec<u8>, path: PathBuf, target: Vec<u8>) -> Result<(), StoreError> {
        let within = self.above.iter().rev().take_while(|above| !above.is_linked).count();
        let is_cut = within < self.above.len();
        if is_inner_target(&target, within + usize::from(is_cut)) {
            // Not part of the content.
            let attributes = Attributes { mode: 0o777, modified_ns: 0 };
            return self.push(name, FoundKind::Link(target), attributes).map(drop);
        }
        match self.links {
            Links::Skip => Ok(()),
            Links::Refuse => {
                self.refused.push(path);
                Ok(())
            }
            Links::Follow => match metadata_of(&path, self.opener) {
                Ok(metadata) => self.found(name, path, &metadata, true),
                Err(StoreError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    self.dangling.push(path);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// The target of the symbolic link with this name in a directory; none if it is something else.
fn target_of(directory: &File, name: &OsStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    Ok(Some(readlinkat(directory, name, Vec::new())?.into_bytes()))
}

/// Nanoseconds since 1970, within the range of the format.
const fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn metadata_of(path: &Path, opener: &Opener) -> Result<Metadata, StoreError> {
    let handle: File = opener.open(path, OFlags::PATH)?;
    handle.metadata().map_err(cannot("look at", path))
}

/// The last component; for `.` and the like, the name of the directory that it resolves to.
fn name_of(path: &Path) -> Result<Vec<u8>, StoreError> {
    let resolved;
    let name = if let Some(name) = path.file_name() {
        name
    } else {
        resolved = path.canonicalize().map_err(cannot("resolve", path))?;
        resolved.file_name().ok_or_else(|| StoreError::Unnamed(path.to_owned()))?
    };
    Ok(name.as_bytes().to_vec())
}
