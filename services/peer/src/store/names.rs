//! Finds out, before a download begins, whether a file system can keep the names of a content.
//!
//! Some refuse names that Linux allows, or symbolic links; some take two names for one, by case or
//! by Unicode normalisation. Only names that may be such are tried: most contents have none.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use shoal_core::content::{EntryNumber, Kind, Manifest};

use crate::store::{
    StoreError,
    catalogue::PRIVATE,
    error::{Paths, cannot},
    file_system::delete_directory,
};

/// Longer names are refused by some file systems that encrypt them.
const SAFE_LENGTH: usize = 143;

/// Linux's PATH_MAX, without the NUL at the end.
const LONGEST_PATH: usize = 4095;

/// Tries the names of a content in a new directory at `place`, which is deleted again. An error
/// names all that the file system cannot keep.
pub(in crate::store) fn check_names(manifest: &Manifest, place: &Path) -> Result<(), StoreError> {
    let longest = longest_path(manifest);
    if longest > 0 && place.as_os_str().len() + 1 + longest > LONGEST_PATH {
        let directory = place.parent().and_then(Path::parent).unwrap_or(place).to_owned();
        return Err(StoreError::TooLong { directory, longest });
    }
    let mut refused = Paths::default();
    let mut directories = doubtful(manifest);
    let links = manifest.entries().filter(|(_, entry)| matches!(entry.kind, Kind::Link(_)));
    if let Some((link, _)) = links.take(1).next() {
        directories.entry(manifest.parent_of(link)).or_default().insert(link);
    }
    if directories.is_empty() {
        return Ok(());
    }
    // A crash may have left it.
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(cannot("delete", place))?,
    }
    DirBuilder::new().mode(PRIVATE).create(place).map_err(cannot("create", place))?;
    for (number, entries) in directories.values().enumerate() {
        let directory = place.join(number.to_string());
        fs::create_dir(&directory).map_err(cannot("create", &directory))?;
        for entry in entries {
            let path = directory.join(OsStr::from_bytes(manifest.entry(*entry).name));
            let is_link = matches!(manifest.entry(*entry).kind, Kind::Link(_));
            match create(&path, is_link) {
                Ok(()) => {}
                Err(error) if is_refusal(&error) => {
                    refused.push(PathBuf::from(OsStr::from_bytes(&manifest.path_of(*entry))));
                }
                Err(error) => return Err(StoreError::io("create", &path, error)),
            }
        }
    }
    delete_directory(place)?;
    if refused.is_empty() {
        return Ok(());
    }
    let directory = place.parent().and_then(Path::parent).unwrap_or(place).to_owned();
    Err(StoreError::Names { directory, names: refused })
}

/// Bytes of the longest path below the content.
fn longest_path(manifest: &Manifest) -> usize {
    // Of the current directory and those above it; that of the content is empty.
    let mut lengths: Vec<usize> = Vec::new();
    let mut longest = 0;
    for (_, entry) in manifest.entries() {
        lengths.truncate(entry.depth as usize);
        let above = lengths.last().map_or(0, |above| above + usize::from(*above > 0));
        let length = above + entry.name.len();
        longest = longest.max(length);
        lengths.push(length);
    }
    longest
}

fn create(path: &Path, is_link: bool) -> io::Result<()> {
    if is_link { symlink("target", path) } else { File::create_new(path).map(drop) }
}

/// The file system refuses the name, or takes it for that of another file, or has no links.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidFilename, InvalidInput, PermissionDenied, Unsupported,
    };
    let kinds = [AlreadyExists, InvalidFilename, InvalidInput, PermissionDenied, Unsupported];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(EILSEQ)
}

/// The error of file systems that demand UTF-8.
const EILSEQ: i32 = rustix::io::Errno::ILSEQ.raw_os_error();

/// The entries whose names may be refused, or taken for others in the same directory.
fn doubtful(manifest: &Manifest) -> BTreeMap<EntryNumber, BTreeSet<EntryNumber>> {
    let mut doubtful: BTreeMap<EntryNumber, BTreeSet<EntryNumber>> = BTreeMap::new();
    // By hashes: names that have the same are tried without need, and there may be millions.
    let mut folded: HashMap<u64, EntryNumber> = HashMap::new();
    for (number, entry) in manifest.entries().skip(1) {
        let directory = manifest.parent_of(number);
        let lower = String::from_utf8_lossy(entry.name).to_lowercase();
        let same = folded.insert(hash_of(directory, &lower), number);
        let in_directory = doubtful.entry(directory).or_default();
        in_directory.extend(same);
        if same.is_some() || is_doubtful(entry.name) {
            in_directory.insert(number);
        }
    }
    doubtful.retain(|_, entries| !entries.is_empty());
    doubtful
}

fn hash_of(directory: EntryNumber, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (directory, name).hash(&mut hasher);
    hasher.finish()
}

/// A name that Windows or an encrypting file system refuses, or that has more than one form.
fn is_doubtful(name: &[u8]) -> bool {
    let is_odd = |byte: &u8| !(b' '..=b'~').contains(byte) || br#"\:*?"<>|"#.contains(byte);
    name.len() > SAFE_LENGTH || name.iter().any(is_odd) || matches!(name.last(), Some(b'.' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::hash::{HashOptions, hash};

    #[test]
    fn only_names_that_may_be_refused_are_tried() {
        let here = tempfile::tempdir().unwrap();
        let tree = here.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        let names = ["a", "A", "sub/b", "sub/plain", "back\\slash", "caf\u{e9}", "end."];
        for name in names {
            fs::write(tree.join(name), name).unwrap();
        }
        let manifest = hash(&tree, &HashOptions::default(), |_| {}).unwrap().manifest;
        let doubtful = doubtful(&manifest);
        let mut paths: Vec<_> = doubtful
            .values()
            .flatten()
            .map(|entry| String::from_utf8(manifest.path_of(*entry)).unwrap())
            .collect();
        paths.sort_unstable();
        assert_eq!(paths, ["A", "a", "back\\slash", "caf\u{e9}", "end."]);
        let place = here.path().join("probe");
        check_names(&manifest, &place).unwrap();
        assert!(!place.exists());
    }
}
