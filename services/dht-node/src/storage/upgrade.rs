//! Upgrades of a database that an earlier version wrote. Each keeps its table's old name, so that a
//! database is upgraded once; the records themselves are read in all of their formats.

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use shoal_core::ring::Version;

use super::{
    error::Fault,
    leaves::leaf_of,
    row::{Row, end_of, parse_row_key},
    tables::{ENDS, RECORDS},
};

/// [`ENDS`] without leaves.
const ENDS_BY_TIME: TableDefinition<&[u8], &[u8; Version::BYTES]> = TableDefinition::new("ends");

/// Makes a database of any earlier version one of the present version.
pub(super) fn upgrade(redb: &redb::Database) -> Result<(), Fault> {
    if redb.begin_read()?.open_table(ENDS_BY_TIME).is_ok() {
        order_ends_by_leaf(redb)?;
    }
    Ok(())
}

/// Rebuilds the index of ends from the records.
fn order_ends_by_leaf(redb: &redb::Database) -> Result<(), Fault> {
    let transaction = redb.begin_write()?;
    transaction.delete_table(ENDS_BY_TIME)?;
    transaction.delete_table(ENDS)?;
    let mut ends = transaction.open_table(ENDS)?;
    for entry in transaction.open_table(RECORDS)?.iter()? {
        let (row_key, row) = entry?;
        let (position, _) = parse_row_key(row_key.value()).ok_or(Fault::UNREADABLE_KEY)?;
        let info = Row::parse(row.value()).ok_or(Fault::UNREADABLE_RECORD)?.info();
        if let Some(ends_ms) = info.ends_ms {
            let end = end_of(leaf_of(position.to_u128()), ends_ms, row_key.value());
            ends.insert(&*end, &info.stamp.version.to_bytes())?;
        }
    }
    drop(ends);
    Ok(transaction.commit()?)
}
