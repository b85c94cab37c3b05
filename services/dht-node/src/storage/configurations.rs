//! The agreed replica sets and promises, on disk.

use prost::Message as _;
use shoal_core::ring::{Configurations, NodeId};
use shoal_proto::dht::v1 as pb;

use super::{
    StoreError,
    database::{Database, META},
    error::Fault,
};
use crate::wire;

/// The name under which they are stored.
pub(super) const CONFIGURATIONS: &str = "custody";

pub(super) fn encode(configurations: &Configurations) -> Vec<u8> {
    wire::configurations(configurations).encode_to_vec()
}

/// The agreed sets and promises when the node was last stopped.
pub(super) fn load(database: &Database, node: NodeId) -> Result<Configurations, StoreError> {
    database.read(|transaction| {
        let Some(bytes) = transaction.open_table(META)?.get(CONFIGURATIONS)? else {
            return Ok(Configurations::new(node));
        };
        let stored =
            pb::Custody::decode(bytes.value()).map_err(|_| Fault::UNREADABLE_CONFIGURATIONS)?;
        wire::parse_configurations(stored, node).map_err(|_| Fault::UNREADABLE_CONFIGURATIONS)
    })
}
