//! Entry points for fuzz targets: the formats on disk.

use redb::Value as _;
use shoal_core::content::{Bitfield, ContentId, Manifest, PieceIndex};

use super::{
    arrangement::Arrangement,
    catalogue::{
        database::{ContentRecord, OptionsRow, PathsRow, Row, Texts},
        rows::{Checked, Sound},
    },
    content::held_log,
    hash::Fingerprints,
};

/// The pieces that a `held.log` lists.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Pieces whose data is on disk or in the page cache.
    pub held: Bitfield,
    /// Pieces that have to be hashed again.
    pub doubtful: Vec<PieceIndex>,
    /// Pieces of `held` that no checkpoint covers.
    pub unsynced: Vec<PieceIndex>,
}

/// Reads the `held.log` of a content with this number of pieces, during a given boot.
pub fn read_held_log(bytes: &[u8], piece_count: u32, boot: [u8; 16]) -> Held {
    let logged = held_log::parse(bytes, piece_count, &boot);
    let held_log::LoggedPieces { held, doubtful, unsynced, .. } = logged;
    Held { held, doubtful, unsynced }
}

/// The first bytes of a `held.log`, and a record for each value: a piece, or, with the highest bit
/// set, a checkpoint after this number of pieces.
pub fn held_log(boot: [u8; 16], values: &[u32]) -> Vec<u8> {
    let mut bytes = held_log::header(&boot);
    bytes.extend(values.iter().flat_map(|value| held_log::record(*value)));
    bytes
}

/// Reads the rows of a content, under the id of the descriptor; false if they are damaged.
pub fn read_rows(descriptor: &[u8], hashes: &[u8]) -> bool {
    let id = ContentId::of_descriptor(descriptor);
    let [descriptor, hashes] = [descriptor, hashes].map(<[u8]>::to_vec);
    ContentRecord { descriptor, hashes, fingerprints: None }.decode(id).is_ok()
}

/// Reads the row with the fingerprints of the files of a content in place, and writes it again.
pub fn fingerprints(manifest: &Manifest, bytes: &[u8]) -> Option<Vec<u8>> {
    Fingerprints::decode(manifest, Arrangement::Tree, bytes).map(|list| list.encode())
}

/// Reads bytes as each kind of row of several columns.
pub fn read_columns(bytes: &[u8]) {
    let _ = Checked::<Row>::from_bytes(bytes);
    let _ = Checked::<OptionsRow>::from_bytes(bytes);
    let _ = Checked::<Texts>::from_bytes(bytes);
}

/// The same, and checks that a row that was read is read the same after it was written.
pub fn check_columns(bytes: &[u8]) {
    check_row::<Row>(bytes);
    check_row::<OptionsRow>(bytes);
    check_row::<Texts>(bytes);
    check_row::<PathsRow>(bytes);
}

fn check_row<R: Sound + 'static>(bytes: &[u8]) {
    let Some(row) = Checked::<R>::from_bytes(bytes) else { return };
    let row = Some(row);
    let written = Checked::<R>::as_bytes(&row);
    let again = Checked::<R>::from_bytes(written.as_ref());
    assert_eq!(format!("{again:?}"), format!("{row:?}"));
}
