//! The agreed replica sets and promises, on disk.

use prost::Message as _;
use shoal_core::ring::{Custody, NodeId};
use shoal_proto::dht::v1 as pb;

use super::{
    StoreError,
    database::{Database, META},
    error::Fault,
};
use crate::wire;

/// The name under which they are stored.
pub(super) const CUSTODY: &str = "custody";

pub(super) fn encode(custody: &Custody) -> Vec<u8> {
    wire::custody(custody).encode_to_vec()
}

/// The agreed sets and promises when the node was last stopped.
pub(super) fn load(database: &Database, node: NodeId) -> Result<Custody, StoreError> {
    database.read(|transaction| {
        let Some(bytes) = transaction.open_table(META)?.get(CUSTODY)? else {
            return Ok(Custody::new(node));
        };
        let stored = pb::Custody::decode(bytes.value()).map_err(|_| Fault::UNREADABLE_CUSTODY)?;
        wire::parse_custody(stored, node).map_err(|_| Fault::UNREADABLE_CUSTODY)
    })
}
