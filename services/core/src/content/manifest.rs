//! The manifest: the files of a content.

mod wire;

use std::collections::HashSet;

use self::wire::Wire;
use super::{ContentId, Layout, LayoutError, PieceLength};

/// The only version so far.
const FORMAT_VERSION: u32 = 1;

/// Bytes of an encoded manifest: room for some hundred thousand files.
pub const MAX_MANIFEST_BYTES: usize = 64 << 20;

/// Bytes of a path: Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Bytes of a path component: NAME_MAX of most file systems.
const MAX_COMPONENT_BYTES: usize = 255;

/// A file or a directory tree; every value is valid, whatever its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    name: String,
    is_directory: bool,
    files: Vec<FileEntry>,
    empty_directories: Vec<String>,
    layout: Layout,
}

/// One file of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the content, `/`-separated.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Some execute bit is set.
    pub executable: bool,
    /// BLAKE3 root of its bytes.
    pub root: [u8; 32],
}

/// The manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST_BYTES`].
    #[error("a manifest of {0} bytes is longer than the {MAX_MANIFEST_BYTES} allowed")]
    TooLong(usize),
    /// Not a protobuf manifest.
    #[error("the manifest cannot be decoded: {0}")]
    Encoding(String),
    /// It does not encode back to the same bytes.
    #[error("the manifest is not in canonical form")]
    NotCanonical,
    /// A later format.
    #[error("manifest version {0} is unknown; this is version {FORMAT_VERSION}; upgrade shoal")]
    Version(u32),
    /// Absolute, empty, too long, or with an empty, `.`, `..` or otherwise unusable component.
    #[error("the path {0:?} is refused: {1}")]
    Path(String, &'static str),
    /// Out of order, twice, or below a path that is a file.
    #[error("the path {0:?} clashes with another or is out of order")]
    Clash(String),
    /// A root is not 32 bytes long.
    #[error("the root of {0:?} is not 32 bytes long")]
    Root(String),
    /// A content that is not a directory has exactly one file, named as the content.
    #[error("a content that is not a directory has one file, named as itself")]
    NotOneFile,
    /// The files cannot be cut into pieces this way.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Manifest {
    /// The manifest of one file.
    pub fn of_file(piece_length: PieceLength, file: FileEntry) -> Result<Self, ManifestError> {
        Self::checked(file.path.clone(), false, piece_length, vec![file], Vec::new())
    }

    /// The manifest of a directory; files and empty directories may come in any order.
    pub fn of_directory(
        name: String,
        piece_length: PieceLength,
        mut files: Vec<FileEntry>,
        mut empty_directories: Vec<String>,
    ) -> Result<Self, ManifestError> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        empty_directories.sort();
        Self::checked(name, true, piece_length, files, empty_directories)
    }

    fn checked(
        name: String,
        is_directory: bool,
        piece_length: PieceLength,
        files: Vec<FileEntry>,
        empty_directories: Vec<String>,
    ) -> Result<Self, ManifestError> {
        check_component(&name).map_err(|why| ManifestError::Path(name.clone(), why))?;
        if !is_directory
            && (files.len() != 1 || files[0].path != name || !empty_directories.is_empty())
        {
            return Err(ManifestError::NotOneFile);
        }
        check_tree(&files, &empty_directories)?;
        let layout = Layout::new(piece_length, files.iter().map(|file| file.size).collect())?;
        Ok(Self { name, is_directory, files, empty_directories, layout })
    }

    /// Parses what [`Manifest::encode`] wrote, and refuses everything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let wire = Wire::read(bytes)?;
        if wire.format_version != FORMAT_VERSION {
            return Err(ManifestError::Version(wire.format_version));
        }
        if wire.has_unknown {
            return Err(ManifestError::NotCanonical);
        }
        let manifest = Self::checked(
            wire.name.to_owned(),
            wire.directory,
            PieceLength::new(wire.piece_length)?,
            wire.files,
            wire.empty_directories,
        )?;
        // Part by part: a copy of the whole would double the memory.
        let mut rest = Some(bytes);
        manifest.write(|part| rest = rest.and_then(|rest| rest.strip_prefix(part)));
        if rest != Some(&[]) {
            return Err(ManifestError::NotCanonical);
        }
        Ok(manifest)
    }

    /// The canonical bytes, as `shoal/content/v1/manifest.proto` defines them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(|part| bytes.extend_from_slice(part));
        bytes
    }

    fn write(&self, sink: impl FnMut(&[u8])) {
        let head = (FORMAT_VERSION, &*self.name, u64::from(self.layout.piece_length().get()));
        wire::write(head, &self.files, &self.empty_directories, self.is_directory, sink);
    }

    /// The id of the content.
    pub fn id(&self) -> ContentId {
        ContentId::of_manifest(&self.encode())
    }

    /// Name of the file or directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory tree, not one file.
    pub const fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Empty directories, sorted.
    pub fn empty_directories(&self) -> &[String] {
        &self.empty_directories
    }

    /// How the files are cut into pieces.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Whether the name can be that of a file or directory on every relevant system.
fn check_component(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("a component is empty"),
        "." | ".." => Err("a component is . or .."),
        _ if name.len() > MAX_COMPONENT_BYTES => Err("a component is longer than 255 bytes"),
        _ if name.contains(['/', '\\']) => Err("a component has a slash or backslash"),
        _ if name.contains(char::is_control) => Err("a component has a control character"),
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), ManifestError> {
    if path.len() > MAX_PATH_BYTES {
        let start = path.chars().take(80).collect();
        return Err(ManifestError::Path(start, "it is longer than 4096 bytes"));
    }
    path.split('/')
        .try_for_each(check_component)
        .map_err(|why| ManifestError::Path(path.to_owned(), why))
}

/// Every path is valid, in order and unique, and none lies below one that is a file or empty.
fn check_tree(files: &[FileEntry], empty_directories: &[String]) -> Result<(), ManifestError> {
    check_sorted(files.iter().map(|file| file.path.as_str()))?;
    check_sorted(empty_directories.iter().map(String::as_str))?;

    let all = || {
        files.iter().map(|file| file.path.as_str()).chain(empty_directories.iter().map(|d| &**d))
    };
    let mut leaves = HashSet::new();
    for path in all() {
        if !leaves.insert(path) {
            return Err(ManifestError::Clash(path.to_owned()));
        }
    }
    for path in all() {
        let mut parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if parents.any(|parent| leaves.contains(parent)) {
            return Err(ManifestError::Clash(path.to_owned()));
        }
    }
    Ok(())
}

fn check_sorted<'a>(paths: impl Iterator<Item = &'a str>) -> Result<(), ManifestError> {
    let mut last = None;
    for path in paths {
        check_path(path)?;
        if last.is_some_and(|last| last >= path) {
            return Err(ManifestError::Clash(path.to_owned()));
        }
        last = Some(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    /// The messages as prost would define them, for comparison.
    mod wire {
        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct Manifest {
            #[prost(uint32, tag = "1")]
            pub(super) format_version: u32,
            #[prost(string, tag = "2")]
            pub(super) name: String,
            #[prost(uint64, tag = "3")]
            pub(super) piece_length: u64,
            #[prost(message, repeated, tag = "4")]
            pub(super) files: Vec<FileEntry>,
            #[prost(string, repeated, tag = "5")]
            pub(super) empty_directories: Vec<String>,
            #[prost(bool, tag = "6")]
            pub(super) directory: bool,
        }

        #[derive(Clone, PartialEq, prost::Message)]
        pub(super) struct FileEntry {
            #[prost(string, tag = "1")]
            pub(super) path: String,
            #[prost(uint64, tag = "2")]
            pub(super) size: u64,
            #[prost(bool, tag = "3")]
            pub(super) executable: bool,
            #[prost(bytes = "vec", tag = "4")]
            pub(super) root: Vec<u8>,
        }
    }

    fn as_prost(manifest: &Manifest) -> wire::Manifest {
        let entry = |file: &FileEntry| wire::FileEntry {
            path: file.path.clone(),
            size: file.size,
            executable: file.executable,
            root: file.root.to_vec(),
        };
        wire::Manifest {
            format_version: FORMAT_VERSION,
            name: manifest.name.clone(),
            piece_length: u64::from(manifest.layout.piece_length().get()),
            files: manifest.files.iter().map(entry).collect(),
            empty_directories: manifest.empty_directories.clone(),
            directory: manifest.is_directory,
        }
    }

    fn file(path: &str) -> FileEntry {
        FileEntry { path: path.to_owned(), size: 5, executable: false, root: [7; 32] }
    }

    fn tree(paths: &[&str], empty: &[&str]) -> Result<Manifest, ManifestError> {
        Manifest::of_directory(
            "tree".to_owned(),
            PieceLength::MIN,
            paths.iter().map(|path| file(path)).collect(),
            empty.iter().map(|path| (*path).to_owned()).collect(),
        )
    }

    #[test]
    fn a_manifest_reads_as_it_is_written() {
        let manifest = tree(&["b", "a/x", "a/y"], &["c/d"]).unwrap();
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
        let single = Manifest::of_file(PieceLength::TEXTBOOK, file("a")).unwrap();
        assert_eq!(Manifest::decode(&single.encode()), Ok(single.clone()));
        assert_ne!(manifest.id(), single.id());
    }

    #[test]
    fn paths_that_leave_the_directory_are_refused() {
        let long = "x".repeat(256);
        let deep = "x/".repeat(3000);
        for path in [
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "",
            ".",
            "a\\b",
            "a\0b",
            "a\nb",
            &long,
            &deep,
        ] {
            assert!(matches!(tree(&[path], &[]), Err(ManifestError::Path(..))), "{path}");
            assert!(matches!(tree(&[], &[path]), Err(ManifestError::Path(..))), "{path}");
        }
    }

    #[test]
    fn files_that_overlap_are_refused() {
        for (files, empty) in [
            (vec!["a", "a"], vec![]),
            (vec!["a", "a/b"], vec![]),
            (vec!["a/b"], vec!["a"]),
            (vec!["a"], vec!["a"]),
            (vec![], vec!["a", "a/b"]),
            (vec!["a", "a-b", "a/b"], vec![]),
        ] {
            assert!(
                matches!(tree(&files, &empty), Err(ManifestError::Clash(_))),
                "{files:?} {empty:?}"
            );
        }
    }

    #[test]
    fn a_manifest_that_is_not_canonical_is_refused() {
        let mut bytes = tree(&["a"], &[]).unwrap().encode();
        bytes.extend([0xf8, 0x07, 1]);
        assert_eq!(Manifest::decode(&bytes), Err(ManifestError::NotCanonical));
        let reversed = wire::Manifest {
            format_version: 1,
            name: "tree".to_owned(),
            piece_length: 65_536,
            files: ["b", "a"]
                .map(|path| wire::FileEntry {
                    path: path.to_owned(),
                    size: 0,
                    executable: false,
                    root: vec![0; 32],
                })
                .into(),
            empty_directories: Vec::new(),
            directory: true,
        };
        assert!(matches!(
            Manifest::decode(&reversed.encode_to_vec()),
            Err(ManifestError::Clash(_))
        ));
        let future = wire::Manifest { format_version: 2, ..reversed.clone() };
        assert_eq!(Manifest::decode(&future.encode_to_vec()), Err(ManifestError::Version(2)));
        let single = wire::Manifest { directory: false, ..reversed };
        assert_eq!(Manifest::decode(&single.encode_to_vec()), Err(ManifestError::NotOneFile));
    }

    #[test]
    fn empty_entries_are_refused_before_there_is_memory_for_them() {
        let head = as_prost(&tree(&[], &[]).unwrap()).encode_to_vec();
        for entry in [&[0x22, 0][..], &[0x22, 3, 0x0a, 1, b'a'], &[0x2a, 0]] {
            let mut bytes = head.clone();
            bytes.extend(entry.repeat(1000));
            let refused = Manifest::decode(&bytes);
            assert!(matches!(refused, Err(ManifestError::Encoding(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_truncated_manifest_is_refused() {
        let bytes = tree(&["a", "b"], &["c"]).unwrap().encode();
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn it_is_written_as_prost_writes_it(
            names in prop::collection::btree_set("[a-z]{1,9}(/[a-z]{1,9}){0,2}", 1..20),
            piece_length in prop::sample::select(vec![PieceLength::MIN, PieceLength::TEXTBOOK]),
            size in 0..1_u64 << 40,
            executable: bool,
            split in 0_usize..20,
        ) {
            let names: Vec<_> = names.into_iter().collect();
            let (files, empty) = names.split_at(split.min(names.len()));
            let files = files.iter().map(|path| FileEntry { path: path.clone(), size, executable, root: [9; 32] });
            let made = Manifest::of_directory("tree".into(), piece_length, files.collect(), empty.to_vec());
            if let Ok(manifest) = made {
                prop_assert_eq!(manifest.encode(), as_prost(&manifest).encode_to_vec());
                prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode(), bytes);
            }
        }
    }
}
