//! The tables of the database.

use redb::TableDefinition;
use shoal_core::ring::Version;

/// Records by their row key: position and key.
pub(super) const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");

/// Versions of records that end, by leaf (two bytes, big-endian), end time (eight bytes,
/// big-endian) and row key.
pub(super) const ENDS: TableDefinition<&[u8], &[u8; Version::BYTES]> =
    TableDefinition::new("ends-by-leaf");

/// Other persistent state of a node, by name.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// The number of the last batch of writes, which tells which sums belong to a reader's view.
pub(super) const BATCH: TableDefinition<(), u64> = TableDefinition::new("batch");
