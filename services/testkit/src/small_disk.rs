//! A small file system, for tests in which a disk fills up.
//!
//! The store tests of the peer and of the ring node include this file: if they depended on the
//! testkit, each change of it would build them again.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tempfile::TempDir;

/// A tmpfs, unmounted when dropped. Mounted without a child process: a new process briefly shares
/// the locks that other tests hold.
pub struct SmallDisk {
    path: PathBuf,
    /// Deleted after it is unmounted.
    directory: Option<TempDir>,
}

impl SmallDisk {
    /// Mounts one at `path`. None, with a message, without the right to mount, which needs root.
    pub fn mount(path: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(path).expect("the directory is made");
        match mount("tmpfs", path, "tmpfs", MountFlags::empty(), &*size(bytes)) {
            Ok(()) => Some(Self { path: path.to_owned(), directory: None }),
            Err(error) => {
                eprintln!("not tested: cannot mount a file system at {}: {error}", path.display());
                None
            }
        }
    }

    /// Mounts one in a directory of its own.
    pub fn anywhere(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut disk = Self::mount(directory.path(), bytes)?;
        disk.directory = Some(directory);
        Some(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes the size.
    pub fn resize(&self, bytes: u64) {
        let flags = MountFlags::empty();
        mount_remount(&self.path, flags, &*size(bytes)).expect("the remount succeeds");
    }

    /// Remounts it read-only.
    pub fn make_read_only(&self) {
        mount_remount(&self.path, MountFlags::RDONLY, c"").expect("the remount succeeds");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may still have files open.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

fn size(bytes: u64) -> CString {
    CString::new(format!("size={bytes}")).expect("no zero in it")
}
