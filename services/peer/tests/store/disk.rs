use std::fs;

use shoal_core::swarm::LinkKey;
use shoal_peer::store::{OneShot, Store, StoreError};

use crate::support::{MIB, Mount, Source, snapshot};

#[test]
fn a_full_disk_stops_a_download_until_there_is_room() {
    for piece_length in [256 << 10, 2 << 20] {
        let Some(mount) = Mount::tmpfs("size=3m") else { return };
        let source = Source::file(8 * MIB, piece_length);
        let begin = || {
            let (manifest, hashes) = (source.stored.manifest().clone(), source.stored.hashes());
            OneShot::begin(&mount.path().join("model.bin"), manifest, hashes.clone()).unwrap()
        };
        let download = begin();
        let error = source
            .stored
            .layout()
            .pieces()
            .find_map(|piece| source.send(download.stored(), LinkKey(1), piece).err())
            .unwrap();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("model.bin"), "{error}");
        let held = download.stored().held();
        assert!(held.held() > 0 && !held.is_full());

        // The same download goes on, and so does one that starts over.
        mount.resize("size=20m");
        let next = held.piece_count() - 1;
        let next = source.stored.layout().piece(next).unwrap();
        source.send(download.stored(), LinkKey(1), next).unwrap();
        drop(download);
        let download = begin();
        assert_eq!(download.stored().held().held(), held.held() + 1);
        source.send_all(download.stored());
        download.finish().unwrap();
        assert_eq!(
            fs::read(mount.path().join("model.bin")).unwrap(),
            fs::read(&source.path).unwrap()
        );
    }
}

#[test]
fn a_store_on_a_full_disk_says_so() {
    let Some(mount) = Mount::tmpfs("size=64k") else { return };
    fs::write(mount.path().join("ballast"), vec![1; 60_000]).unwrap();
    let error = Store::open(&mount.path().join("store"), None).err().unwrap();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
}

#[test]
fn a_read_only_directory_says_so() {
    let Some(mount) = Mount::tmpfs("size=20m") else { return };
    let source = Source::tree(&[100_000], 65_536);
    drop(Store::open(mount.path(), None).unwrap());
    mount.make_read_only();
    let before = snapshot(mount.path());
    let error = Store::open(mount.path(), None).err().unwrap();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("lock"), "{error}");
    let (manifest, hashes) = (source.stored.manifest().clone(), source.stored.hashes().clone());
    let error = OneShot::begin(&mount.path().join("model"), manifest, hashes).err().unwrap();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert_eq!(snapshot(mount.path()), before);
}
