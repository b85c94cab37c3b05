//! Records, versions and digests.

use shoal_core::ring::Version;
use shoal_proto::dht::v1 as pb;

use super::{WireError, field};
use crate::store::{Digest, Record, Value};

pub(crate) fn record(record: &Record) -> pb::Record {
    pb::Record {
        key: record.key.as_bytes().clone(),
        version: record.version.to_string(),
        value: record.value.as_ref().map(|value| value.as_bytes().clone()),
        expires_ms: record.expires_ms.unwrap_or_default(),
    }
}

pub(crate) fn parse_record(record: Option<pb::Record>) -> Result<Record, WireError> {
    let record = record.ok_or(WireError::Missing("the record"))?;
    Ok(Record {
        key: record.key.try_into().map_err(field)?,
        version: record.version.parse().map_err(field)?,
        value: record.value.map(Value::try_from).transpose().map_err(field)?,
        expires_ms: Some(record.expires_ms).filter(|at| *at > 0),
    })
}

/// A version, or none if the text is empty.
pub(crate) fn parse_version(text: &str) -> Result<Option<Version>, WireError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(field) }
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
