//! Records, versions and digests.

use shoal_proto::dht::v1 as pb;

use super::{WireError, at_most, field};
use crate::store::{Digest, Record, Value};

/// Records in one message.
const MAX_RECORDS: usize = 65_536;

pub(crate) fn record(record: &Record) -> pb::Record {
    pb::Record {
        key: record.key.as_bytes().clone(),
        version: record.version.to_string(),
        value: record.value.as_ref().map(|value| value.as_bytes().clone()),
        expires_ms: record.expires_ms.unwrap_or_default(),
    }
}

fn parse_record(record: pb::Record) -> Result<Record, WireError> {
    Ok(Record {
        key: record.key.try_into().map_err(field)?,
        version: record.version.parse().map_err(field)?,
        value: record.value.map(Value::try_from).transpose().map_err(field)?,
        expires_ms: Some(record.expires_ms).filter(|at| *at > 0),
    })
}

pub(crate) fn parse_records(records: Vec<pb::Record>) -> Result<Vec<Record>, WireError> {
    let records = at_most("records", records, MAX_RECORDS)?.into_iter();
    records.map(parse_record).collect()
}

pub(crate) fn digest(digest: Digest) -> pb::Digest {
    pb::Digest { hash: digest.hash.to_be_bytes().to_vec().into(), count: digest.count }
}

pub(crate) fn parse_digest(digest: Option<pb::Digest>) -> Result<Digest, WireError> {
    let digest = digest.ok_or(WireError::Missing("the digest"))?;
    let hash: [u8; 16] = digest.hash[..]
        .try_into()
        .map_err(|_| WireError::Field("a digest has 16 bytes".to_owned()))?;
    Ok(Digest { hash: u128::from_be_bytes(hash), count: digest.count })
}
