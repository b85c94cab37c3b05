//! Small files that survive a power cut, and the lock and the format of a directory of such files.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// A file or a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refused an operation.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is not this process's directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// A directory belongs to another process, or to another version of shoal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Another process has it open.
    #[error("{} is in use by another shoal process; stop that, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// This version does not read the directory's format.
    #[error("{} has the format {found:?}, not {expected:?}; use the shoal that wrote it, or an empty directory", .path.display())]
    Format {
        /// The file that names the format.
        path: PathBuf,
        /// Its content.
        found: String,
        /// The expected content.
        expected: &'static str,
    },
}

/// For `map_err`: adds the operation and the path to an error.
pub fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

/// Locks a file while the returned handle is open. `directory` is what the lock protects, for
/// errors.
pub fn lock_file(path: &Path, directory: &Path) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path);
    let file = file.map_err(cannot("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(directory.to_owned()).into()),
        Err(TryLockError::Error(error)) => Err(cannot("lock", path)(error)),
    }
}

/// Checks that the file at `path` names the format `expected`. Creates it if it does not exist,
/// with `sync_name` as in [`write_whole`].
pub fn check_format<E: From<FileError>>(
    path: &Path,
    expected: &'static str,
    sync_name: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let Some(bytes) = read_if_exists(path)? else {
        return write_whole(path, format!("{expected}\n").as_bytes(), sync_name).map(drop);
    };
    let text = String::from_utf8_lossy(&bytes);
    let found = text.trim_end();
    if found == expected {
        return Ok(());
    }
    let found = found.chars().take(80).collect();
    Err(FileError::from(DirectoryError::Format { path: path.to_owned(), found, expected }).into())
}

/// The content of a file, if it exists.
pub fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", path)(error)),
    }
}

/// Writes a small file atomically, so that it survives a power cut, and returns it open for reading
/// and writing. `sync_name` makes its name survive too: [`sync_parent`], or a function that accepts
/// file systems that cannot sync a directory.
pub fn write_whole<E: From<FileError>>(
    path: &Path,
    bytes: &[u8],
    sync_name: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<File, E> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&fresh).map_err(cannot("create", &fresh))?;
    file.write_all_at(bytes, 0).map_err(cannot("write", &fresh))?;
    file.sync_all().map_err(cannot("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(cannot("rename", &fresh))?;
    sync_name(path)?;
    Ok(file)
}

/// Makes the name at `path`, created or renamed, survive a power cut.
pub fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = parent(path);
    File::open(parent).and_then(|opened| opened.sync_all()).map_err(cannot("sync", parent))
}

/// The directory of the name at `path`.
pub fn parent(path: &Path) -> &Path {
    // The parent of a relative path of one component is empty: the working directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_its_name_synced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, "a longer content").expect("it is written");
        let mut synced = Vec::new();
        let file = write_whole(&path, b"new", |path| {
            synced.push(path.to_owned());
            sync_parent(path)
        });
        let mut bytes = [0; 3];
        file.expect("it is written").read_exact_at(&mut bytes, 0).expect("it is open for reading");
        assert_eq!((&bytes, synced), (b"new", vec![path.clone()]));
        assert_eq!(read_if_exists(&path).expect("it can be read"), Some(b"new".to_vec()));
        assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 1);
    }

    #[test]
    fn a_new_directory_gets_the_format_and_another_format_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("format");
        for _ in 0..2 {
            check_format(&path, "ours 1", sync_parent).expect("it is ours");
        }
        assert_eq!(fs::read_to_string(&path).expect("it was written"), "ours 1\n");
        fs::write(&path, b"theirs \xff\n").expect("it is written");
        let error = check_format(&path, "ours 1", sync_parent).expect_err("it is not ours");
        assert!(error.to_string().contains("theirs \u{fffd}"), "{error}");
    }

    #[test]
    fn a_name_without_a_directory_lies_in_the_working_directory() {
        assert_eq!(parent("file".as_ref()), Path::new("."));
        assert_eq!(parent("/file".as_ref()), Path::new("/"));
        assert_eq!(parent("directory/file".as_ref()), Path::new("directory"));
    }
}
