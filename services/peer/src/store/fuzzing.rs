//! Entrances of the fuzz targets to what lies on the disk.

use redb::Value as _;
use shoal_core::content::{Bitfield, ContentId, PieceIndex};

use super::{
    database::{Described, OptionsRow, Row, Texts},
    held,
    rows::{Checked, Sound},
    scan::Fingerprint,
};

/// What a `held.log` says.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Pieces whose data is there.
    pub held: Bitfield,
    /// Pieces that have to be hashed first.
    pub doubtful: Vec<PieceIndex>,
    /// Pieces that are held, of which no checkpoint knows.
    pub unsynced: Vec<PieceIndex>,
}

/// Reads a `held.log` of a content with so many pieces, during some run of the machine.
pub fn read_held_log(bytes: &[u8], piece_count: u32, boot: [u8; 16]) -> Held {
    let held::Contents { held, doubtful, unsynced, .. } = held::parse(bytes, piece_count, &boot);
    Held { held, doubtful, unsynced }
}

/// What a `held.log` begins with, and its record of a value: a piece, or a checkpoint after so many of
/// them if the highest bit is set.
pub fn held_log(boot: [u8; 16], values: &[u32]) -> Vec<u8> {
    let mut bytes = held::header(&boot);
    bytes.extend(values.iter().flat_map(|value| held::record(*value)));
    bytes
}

/// Reads the rows of a content whose id they have; false if they are damaged.
pub fn read_rows(manifest: &[u8], hashes: &[u8], fingerprints: Option<&[u8]>) -> bool {
    let id = ContentId::of_manifest(manifest);
    let [manifest, hashes] = [manifest, hashes].map(<[u8]>::to_vec);
    let described = Described { manifest, hashes, fingerprints: fingerprints.map(<[u8]>::to_vec) };
    described.checked(id).is_ok()
}

/// Reads the row of the fingerprints of so many files, and writes it again.
pub fn fingerprints(bytes: &[u8], files: usize) -> Option<Vec<u8>> {
    Fingerprint::decode_all(bytes, files).map(|list| Fingerprint::encode_all(&list))
}

/// Reads bytes as each kind of rows of several columns.
pub fn read_columns(bytes: &[u8]) {
    let _ = Checked::<Row>::from_bytes(bytes);
    let _ = Checked::<OptionsRow>::from_bytes(bytes);
    let _ = Checked::<Texts>::from_bytes(bytes);
}

/// The same, and what is read is read again once it was written.
pub fn check_columns(bytes: &[u8]) {
    check_row::<Row>(bytes);
    check_row::<OptionsRow>(bytes);
    check_row::<Texts>(bytes);
}

fn check_row<R: Sound + 'static>(bytes: &[u8]) {
    let Some(row) = Checked::<R>::from_bytes(bytes) else { return };
    let row = Some(row);
    let written = Checked::<R>::as_bytes(&row);
    let again = Checked::<R>::from_bytes(written.as_ref());
    assert_eq!(format!("{again:?}"), format!("{row:?}"));
}
