//! Trees of files to be hashed.

use std::{
    ffi::OsString,
    fs::{self, File, FileTimes, Permissions},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{FileExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

/// Bytes that depend on a seed.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A directory, which is deleted when dropped.
pub(crate) struct Tree {
    folder: TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        set_mode(folder.path(), 0o755);
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of an entry, whose directory is created.
    fn place(&self, path: &Path) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("it is below the tree")).expect("it is created");
        path
    }

    pub(crate) fn file(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) {
        let path = self.place(path.as_ref());
        fs::write(&path, bytes).expect("it is written");
        set_mode(&path, mode);
    }

    /// A file with these bytes at these offsets, and holes before them.
    pub(crate) fn sparse(&self, path: impl AsRef<Path>, parts: &[(u64, &[u8])]) {
        let file = File::create(self.place(path.as_ref())).expect("it is created");
        for (offset, bytes) in parts {
            file.set_len(*offset).expect("it becomes longer");
            file.write_all_at(bytes, *offset).expect("it is written");
        }
    }

    pub(crate) fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        symlink(target, self.place(path.as_ref())).expect("it is linked");
    }

    /// A tree with odd names, modes and times, equal files, and files around the length of a piece.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tree = Self::new();
        let mut folders = vec![PathBuf::new()];
        for number in 0..30 {
            let path = folders[rng.random_range(0..folders.len())].join(name(&mut rng, number));
            match rng.random_range(0..10) {
                0..3 => {
                    fs::create_dir(tree.place(&path)).expect("it is new");
                    set_mode(&tree.path().join(&path), [0o755, 0o700, 0o751][number % 3]);
                    folders.push(path.clone());
                }
                3 => tree.link(&path, name(&mut rng, number)),
                kind => {
                    let sizes = [0, 1, 1000, 3000, 65_535, 65_536, 70_000, 131_073];
                    let size = sizes[rng.random_range(0..if kind < 9 { 4 } else { sizes.len() })];
                    let modes = [0o644, 0o600, 0o755, 0o640, 0o700, 0o444, 0o4711];
                    let mode = modes[rng.random_range(0..modes.len())];
                    tree.file(&path, &bytes(rng.random_range(0..3), size), mode);
                }
            }
            let path = tree.path().join(path);
            if !path.is_symlink() {
                set_time(&path, &mut rng);
            }
        }
        tree
    }
}

/// A name with any bytes, which differs from those of other numbers.
fn name(rng: &mut StdRng, number: usize) -> OsString {
    let odd = [&b"a"[..], b"a-", b"\n", b"\\", b"\xff", b"\xc3\xa9", b" ", b"\x7f", b"-", b"\"'"];
    let mut name = odd[rng.random_range(0..odd.len())].to_vec();
    name.extend(number.to_string().into_bytes());
    name.resize(if number % 10 == 9 { 255 } else { name.len() }, b'x');
    OsString::from_vec(name)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Sets a time of modification, maybe before 1970, with nanoseconds.
fn set_time(path: &Path, rng: &mut StdRng) {
    let distance = Duration::new(rng.random_range(0..1 << 31), rng.random_range(0..1 << 29));
    let modified = if rng.random() { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance };
    let file = File::open(path).expect("it is there");
    file.set_times(FileTimes::new().set_modified(modified)).expect("it is ours");
}
