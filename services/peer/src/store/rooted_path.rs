//! Paths that clients name, and the directory that they must not lead out of.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::Errno,
};

use shoal_common::open_files::open_patiently;

use super::{StoreError, error::cannot};

/// The kernel gives up on a path with `..` if something is renamed meanwhile (openat2(2), EAGAIN).
const MAX_ATTEMPTS: u32 = 64;

/// A path as a client named it, and the directory that it must not lead out of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootedPath {
    path: PathBuf,
    root: Option<PathBuf>,
}

impl RootedPath {
    /// A path without a root: symbolic links are followed wherever they lead.
    pub fn anywhere(path: &Path) -> Self {
        Self { path: path.to_owned(), root: None }
    }

    /// A path that by its text lies below one of these directories; none if it lies below none.
    /// Symbolic links that lead out of that directory are refused when the path is opened.
    pub fn beneath(roots: &[PathBuf], path: &Path) -> Option<Self> {
        // If one root lies in another, the outer one permits more.
        let root = roots.iter().filter(|root| path.starts_with(root));
        let root = root.min_by_key(|root| root.as_os_str().len())?.clone();
        Some(Self { path: path.to_owned(), root: Some(root) })
    }

    /// The path as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the root, which may be renamed while the opener is used.
    pub(super) fn opener(&self) -> Result<Opener, StoreError> {
        let Some(path) = &self.root else { return Ok(Opener { root: None }) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = openat(CWD, path, flags, Mode::empty())
            .map_err(|error| StoreError::io("open the directory", path, error.into()))?;
        Ok(Opener { root: Some(Root { path: path.clone(), handle }) })
    }
}

/// Opens paths, all of them beneath the root if there is one.
pub(super) struct Opener {
    root: Option<Root>,
}

struct Root {
    path: PathBuf,
    handle: OwnedFd,
}

impl Opener {
    /// Opens the file or directory at a path.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> Result<File, StoreError> {
        let action = if flags.contains(OFlags::PATH) { "look at" } else { "open" };
        let flags = flags | OFlags::CLOEXEC;
        let Some(root) = &self.root else {
            let opened = open_patiently(|| Ok(openat(CWD, path, flags, Mode::empty())?));
            return opened.map(File::from).map_err(cannot(action, path));
        };
        let outside = || StoreError::Outside { path: path.to_owned(), root: root.path.clone() };
        let inside = match path.strip_prefix(&root.path) {
            Ok(inside) if inside.as_os_str().is_empty() => Path::new("."),
            Ok(inside) => inside,
            Err(_) => return Err(outside()),
        };
        match beneath(root.handle.as_fd(), inside, flags) {
            Ok(opened) => Ok(opened.into()),
            Err(Errno::XDEV | Errno::LOOP) => Err(outside()),
            Err(error) => Err(StoreError::io(action, path, error.into())),
        }
    }
}

/// Opens a relative path without ever leaving `root`.
fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..MAX_ATTEMPTS {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            // Linux before 5.6, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return step_by_step(root, path, flags),
            outcome => return outcome,
        }
    }
    Err(Errno::AGAIN)
}

/// The same for kernels without openat2: opens one name at a time in the directory opened before,
/// and follows no link. So links and `..` are refused even if they would not lead out.
fn step_by_step(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let step = |from: BorrowedFd<'_>, name: &Path, flags: OFlags| {
        let opened = openat(from, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        // With PATH, a link itself is opened.
        let is_link = FileType::from_raw_mode(fstat(&opened)?.st_mode) == FileType::Symlink;
        if is_link { Err(Errno::LOOP) } else { Ok(opened) }
    };
    let through = OFlags::PATH | OFlags::CLOEXEC;
    let mut at = step(root, Path::new("."), through)?;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        match name {
            Component::Normal(name) if names.peek().is_some() => {
                at = step(at.as_fd(), name.as_ref(), through)?;
            }
            Component::Normal(name) => return step(at.as_fd(), name.as_ref(), flags),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Errno::XDEV);
            }
        }
    }
    step(at.as_fd(), Path::new("."), flags)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Read as _,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    type Open = fn(BorrowedFd<'_>, &Path, OFlags) -> rustix::io::Result<OwnedFd>;

    /// A root, and a secret file outside it.
    fn tree() -> tempfile::TempDir {
        let here = tempfile::tempdir().unwrap();
        let root = here.path().join("root");
        fs::create_dir_all(root.join("tree/inner")).unwrap();
        fs::create_dir(here.path().join("outside")).unwrap();
        fs::write(here.path().join("outside/file"), "secret").unwrap();
        fs::write(root.join("tree/inner/file"), "public").unwrap();
        symlink("../../../outside/file", root.join("tree/inner/up")).unwrap();
        symlink(here.path().join("outside/file"), root.join("tree/absolute")).unwrap();
        symlink("../../outside", root.join("tree/directory")).unwrap();
        symlink("/proc/self/root", root.join("tree/magic")).unwrap();
        here
    }

    #[test]
    fn no_path_leads_out_of_its_root() {
        let here = tree();
        let root = File::open(here.path().join("root")).unwrap();
        for open in [beneath as Open, step_by_step] {
            let read = |path: &str| {
                let mut text = String::new();
                let opened = open(root.as_fd(), path.as_ref(), OFlags::RDONLY)?;
                File::from(opened).read_to_string(&mut text).map(|_| text)
            };
            assert_eq!(read("tree/inner/file").unwrap(), "public");
            assert_eq!(read("./tree/./inner/file").unwrap(), "public");
            for path in [
                "../outside/file",
                "tree/../../outside/file",
                "tree/inner/up",
                "tree/absolute",
                "tree/directory/file",
                "tree/magic/etc/passwd",
                "tree/inner/../../../outside/file",
            ] {
                let error = open(root.as_fd(), path.as_ref(), OFlags::RDONLY).err();
                // A link in the middle that is not followed is not a directory.
                let refusals = [Errno::XDEV, Errno::LOOP, Errno::NOTDIR];
                assert!(error.is_some_and(|error| refusals.contains(&error)), "{path}: {error:?}");
                let inspected = open(root.as_fd(), path.as_ref(), OFlags::PATH).err();
                assert!(inspected.is_some_and(|error| refusals.contains(&error)), "{path}");
            }
        }
    }

    #[test]
    fn a_directory_that_alternates_with_a_link_never_leads_out_of_the_root() {
        let here = tree();
        let root = here.path().join("root");
        let (directory, spare) = (root.join("tree/inner"), root.join("tree/spare"));
        let handle = File::open(&root).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&directory, &spare).unwrap();
                    symlink("../../outside", &directory).unwrap();
                    fs::remove_file(&directory).unwrap();
                    fs::rename(&spare, &directory).unwrap();
                }
            });
            for open in [beneath as Open, step_by_step] {
                for _ in 0..20_000 {
                    let path = Path::new("tree/inner/file");
                    let Ok(opened) = open(handle.as_fd(), path, OFlags::RDONLY) else { continue };
                    let mut text = String::new();
                    File::from(opened).read_to_string(&mut text).unwrap();
                    assert_eq!(text, "public");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_path_is_compared_with_a_root_by_whole_names() {
        let roots = [PathBuf::from("/srv/models"), PathBuf::from("/srv/models/public")];
        let root_of = |path: &str| RootedPath::beneath(&roots, path.as_ref()).map(|path| path.root);
        assert_eq!(root_of("/srv/models/a"), Some(Some(roots[0].clone())));
        assert_eq!(root_of("/srv/models/public/a"), Some(Some(roots[0].clone())));
        assert_eq!(root_of("/srv/models"), Some(Some(roots[0].clone())));
        for path in ["/srv/models-private/a", "/srv", "/etc/shadow", "srv/models/a"] {
            assert_eq!(root_of(path), None, "{path}");
        }
    }
}
