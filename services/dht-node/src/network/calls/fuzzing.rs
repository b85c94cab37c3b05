//! Entry points for fuzz targets: answers of members of a replica set.

use bytes::Bytes;
use shoal_core::ring::KeyRange;
use shoal_proto::dht::v1 as pb;

use super::replica;
use crate::{
    storage::{Key, Record},
    wire,
};

/// The methods whose answers [`is_answer`] parses.
pub const ANSWERED: [&str; 8] =
    ["Prepare", "Accept", "Learn", "Renew", "Replicate", "Supply", "ListVersions", "ReadRecords"];

/// Parses the response of a method of `ReplicaService` to a request about a range, or about the
/// keys of records.
pub fn is_answer(method: &str, message: Bytes, range: KeyRange, records: &[Record]) -> bool {
    let keys = || records.iter().map(|record| &record.key);
    let parsed = || {
        Some(match method {
            "Prepare" => replica::parse_prepared(decode(message)?).is_ok(),
            "Accept" => replica::parse_accepted(decode(message)?).is_ok(),
            "Learn" => {
                let superseded = decode::<pb::LearnResponse>(message)?.superseded;
                wire::parse_superseded(superseded.unwrap_or_default()).is_ok()
            }
            "Renew" => replica::parse_renewed(decode(message)?).is_ok(),
            "Replicate" => replica::parse_replicated(decode(message)?, records).is_ok(),
            "Supply" => replica::parse_supplied(decode(message)?).is_ok(),
            "ListVersions" => {
                let after: Option<&Key> = keys().next();
                wire::parse_stamps(decode(message)?, range, after).is_ok()
            }
            _ => {
                let response: pb::ReadRecordsResponse = decode(message)?;
                wire::parse_records_of(response.records, keys()).is_ok()
            }
        })
    };
    parsed().unwrap_or(false)
}

fn decode<M: prost::Message + Default>(message: Bytes) -> Option<M> {
    M::decode(message).ok()
}
