//! File systems of their own, each in a file of the temporary directory.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::geteuid,
};
use shoal_testkit::small_disk::SmallDisk;
use tempfile::TempDir;

/// Bytes of a file system: mkfs.xfs refuses less than 300 MiB. The file is sparse.
const DISK_BYTES: u64 = 512 << 20;

/// A mounted file system. Unmounted when dropped, also if the test fails.
pub(crate) enum Disk {
    /// In memory.
    Memory(SmallDisk),
    /// In a file, on a loop device that is freed when it is unmounted.
    Loop {
        /// Where it is mounted.
        mounted: PathBuf,
        /// Has the file and the place where it is mounted. Deleted after it is unmounted.
        _directory: TempDir,
    },
}

impl Disk {
    /// Makes and mounts one of this kind. None, with a message, where that is impossible: without
    /// root, if the kernel does not know it, or, except in CI, if its mkfs is missing.
    pub(crate) fn make(kind: &str) -> Option<Self> {
        if kind == "tmpfs" {
            return SmallDisk::anywhere(DISK_BYTES).map(Self::Memory);
        }
        if !geteuid().is_root() {
            eprintln!("not tested: only root can mount {kind}");
            return None;
        }
        let known = fs::read_to_string("/proc/filesystems").expect("/proc is mounted");
        // As a module it may be missing there until it is used; Debian's kernels have all as modules.
        let is_module = || Command::new("modprobe").arg(kind).status().is_ok_and(|s| s.success());
        if !known.lines().any(|line| line.trim() == kind) && !is_module() {
            eprintln!("not tested: this kernel has no {kind}");
            return None;
        }
        let directory = TempDir::new().expect("a temporary directory");
        let (image, mounted) = (directory.path().join("image"), directory.path().join("disk"));
        let file = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        file.and_then(|()| fs::create_dir(&mounted)).expect("the disk of the tests has room");
        let Ok(made) = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output() else {
            let is_required = env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!is_required, "mkfs.{kind} is missing; .ci/run installs it");
            eprintln!("not tested: mkfs.{kind} is missing");
            return None;
        };
        assert!(made.status.success(), "mkfs.{kind}: {}", String::from_utf8_lossy(&made.stderr));
        let mount = Command::new("mount").args(["-o", "loop"]).args([&image, &mounted]).output();
        let mount = mount.expect("mount runs");
        assert!(mount.status.success(), "{kind}: {}", String::from_utf8_lossy(&mount.stderr));
        Some(Self::Loop { mounted, _directory: directory })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Memory(disk) => disk.path(),
            Self::Loop { mounted, .. } => mounted,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Loop { mounted, .. } = self {
            // Lazily: a process that is about to end may still have files open.
            let _ = unmount(&*mounted, UnmountFlags::DETACH);
        }
    }
}
