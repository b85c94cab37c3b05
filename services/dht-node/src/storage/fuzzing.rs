//! Entry points for fuzz targets: rows of the database. Each returns none if its input is damaged.

use shoal_core::ring::{Configurations, NodeId};

use super::{
    node_state,
    row::{self, Row, end_of, parse_end, parse_row_key},
};

/// Reads the row of a record, counts it, and writes it again.
pub fn row(bytes: &[u8]) -> Option<Vec<u8>> {
    let row = Row::parse(bytes)?;
    assert_eq!(row.info().row_bytes, bytes.len(), "a row is counted as long as it is");
    Some(row.encode())
}

/// Reads a row key. Returns it again, if its position is that of its key.
pub fn row_key(bytes: &[u8]) -> Option<Vec<u8>> {
    let (position, key) = parse_row_key(bytes)?;
    (key.position() == position).then(|| row::row_key(&key))
}

/// Reads an entry of the index of ends, and writes it again.
pub fn end(bytes: &[u8]) -> Option<Vec<u8>> {
    let (leaf, position, key) = parse_end(bytes)?;
    let (_, time) = bytes.split_first_chunk::<2>()?;
    let ends_ms = u64::from_be_bytes(*time.first_chunk()?);
    let row_key = [&position.to_u128().to_be_bytes()[..], key.as_bytes()].concat();
    Some(end_of(leaf, ends_ms, &row_key))
}

/// Writes the agreed replica sets as on disk.
pub fn keep_configurations(configurations: &Configurations) -> Vec<u8> {
    node_state::encode_configurations(configurations)
}

/// Reads the agreed replica sets as on disk.
pub fn kept_configurations(bytes: &[u8], node: NodeId) -> Option<Configurations> {
    node_state::parse_configurations(bytes, node)
}
