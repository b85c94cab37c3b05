//! Any small tree arrives as it was published, whichever way.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use shoal_core::{
    content::{Metadata, PieceIndex},
    swarm::LinkKey,
};
use shoal_peer::store::{Exported, OneShot, Store, Stored, find_at};
use tokio_util::sync::CancellationToken;

use crate::support::{Found, Source, finish, mode, noise, options, snapshot, umask};

const PIECE: usize = 65_536;

/// Something in a tree: it gets a name in one of the directories before it, if that is free.
#[derive(Clone, Debug)]
struct Node {
    directory: usize,
    name: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory {
        is_private: bool,
    },
    File {
        bytes: Bytes,
        mode: u32,
    },
    /// To a name beside it, which may exist.
    Link(Vec<u8>),
}

/// Few different ones, so that files are equal.
#[derive(Clone, Debug)]
enum Bytes {
    Noise {
        length: usize,
        seed: u8,
    },
    /// Zeros, and a last byte.
    Zeros {
        length: usize,
        last: u8,
    },
}

impl Bytes {
    fn get(&self) -> Vec<u8> {
        match *self {
            Self::Noise { length, seed } => noise(length, seed),
            Self::Zeros { length, last } => {
                let mut bytes = vec![0; length];
                bytes.extend((last > 0).then_some(last));
                bytes
            }
        }
    }
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![b'a'..=b'c', any::<u8>()];
    prop::collection::vec(byte, 1..4).prop_filter("no name", |name| {
        !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b".."
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let length = prop_oneof![
        3 => prop::sample::select(vec![0, 1, 2, 5, 300]),
        3 => 0..PIECE,
        2 => prop::sample::select(vec![PIECE - 1, PIECE, PIECE + 1, 2 * PIECE]),
        1 => PIECE..4 * PIECE,
    ];
    let bytes = |(length, is_noise, seed)| {
        if is_noise { Bytes::Noise { length, seed } } else { Bytes::Zeros { length, last: seed } }
    };
    (length, any::<bool>(), 0..3_u8).prop_map(bytes)
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let modes = prop::sample::select(vec![0o644, 0o755, 0o600, 0o700, 0o444]);
    let kind = prop_oneof![
        2 => any::<bool>().prop_map(|is_private| Kind::Directory { is_private }),
        6 => (bytes(), modes).prop_map(|(bytes, mode)| Kind::File { bytes, mode }),
        1 => names().prop_map(Kind::Link),
    ];
    let node = (0..8_usize, names(), kind);
    let node = node.prop_map(|(directory, name, kind)| Node { directory, name, kind });
    prop::collection::vec(node, 0..16)
}

fn make(root: &Path, nodes: &[Node]) {
    let mut directories = vec![root.to_owned()];
    for Node { directory, name, kind } in nodes {
        let path = directories[directory % directories.len()].join(OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let mode = match kind {
            Kind::Directory { is_private } => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
                if *is_private { 0o700 } else { 0o755 }
            }
            Kind::File { bytes, mode } => {
                fs::write(&path, bytes.get()).unwrap();
                *mode
            }
            Kind::Link(target) => {
                symlink(OsStr::from_bytes(target), &path).unwrap();
                continue;
            }
        };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
}

/// Who may do what with the files of a tree.
fn modes(path: &Path) -> Vec<(PathBuf, u32)> {
    let found = snapshot(path).into_iter().filter(|(_, found)| !matches!(found, Found::Link(_)));
    // A file that everybody may read, its owner may write in a copy.
    let mode_of = |inside: PathBuf| (mode(&path.join(&inside)) & !umask() | 0o200, inside);
    let modes = found.skip(1).map(|(inside, _)| mode_of(inside));
    modes.map(|(mode, inside)| (inside, mode)).collect()
}

/// Sends all pieces of the manifest and then the others, in some order.
fn download(source: &Source, to: &Stored, is_reversed: bool) {
    if to.manifest().is_none() {
        source.send(to, LinkKey(1), PieceIndex::new(0)).unwrap();
        to.learn_manifest().unwrap();
    }
    let mut pieces: Vec<_> = to.layout().pieces().collect();
    if is_reversed {
        pieces.reverse();
    }
    for piece in pieces.into_iter().filter(|piece| !to.has(*piece)) {
        source.send(to, LinkKey(1), piece).unwrap();
    }
    source.assert_same(to);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_tree_arrives_as_it_was_published(nodes in nodes(), is_reversed: bool, restarts: bool) {
        let source = Source::made(&options(PIECE as u64), |path| make(path, &nodes));
        source.assert_same(&source.stored);
        let here = tempfile::tempdir().unwrap();
        let place = |name: &str| here.path().join(name);
        let arrived = |copy: &Path| {
            assert!(snapshot(copy) == snapshot(&source.path), "{}", copy.display());
            assert_eq!(modes(copy), modes(&source.path));
            let found = find_at(copy, &source.metadata(), &CancellationToken::new()).unwrap();
            source.assert_same(&Stored::in_place(found));
        };
        let ways: [(&str, Metadata); 2] =
            [("whole", source.metadata()), ("in-pieces", source.descriptor_only())];
        for (way, metadata) in ways {
            let open = || {
                let store = Store::open(&place(&format!("store-{way}")), None).unwrap();
                let stored = store.add(metadata.clone()).unwrap();
                (store, stored)
            };
            let (mut store, mut stored): (Store, Arc<Stored>) = open();
            download(&source, &stored, is_reversed);
            if restarts {
                drop((store, stored));
                (store, stored) = open();
                source.assert_same(&stored);
            }
            let copy = place(&format!("exported-{way}"));
            store.export(&stored, &copy).unwrap();
            arrived(&copy);
            prop_assert_eq!(store.export(&stored, &copy).unwrap(), Exported::Unchanged);

            let destination = place(&format!("moved-{way}"));
            let mut one_shot = OneShot::begin(&destination, metadata.clone()).unwrap();
            download(&source, one_shot.stored(), is_reversed);
            if restarts {
                drop(one_shot);
                one_shot = OneShot::begin(&destination, metadata).unwrap();
            }
            source.assert_same(&finish(one_shot).unwrap());
            arrived(&destination);
        }
    }
}
