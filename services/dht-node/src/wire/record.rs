//! Records, stamps and digests.

use shoal_core::ring::{KeyRange, Stamp};
use shoal_proto::dht::v1 as pb;

use super::error::{WireError, at_most, field};
use crate::storage::{Digest, Key, Record, Value};

/// Records in one message.
const MAX_RECORDS: usize = 65_536;

pub(crate) fn record(record: &Record) -> pb::Record {
    pb::Record {
        key: record.key.as_bytes().clone(),
        version: record.stamp.version.to_string(),
        epoch: epoch(record.stamp),
        value: record.value.as_ref().map(|value| value.as_bytes().clone()),
        expires_ms: record.expires_ms.unwrap_or_default(),
    }
}

/// The epoch of a record, or none if it is that of its version.
pub(crate) fn epoch(Stamp { epoch, version }: Stamp) -> Option<u64> {
    (epoch != version.epoch).then_some(epoch)
}

fn parse_stamp(version: &str, epoch: Option<u64>) -> Result<Stamp, WireError> {
    let written = Stamp::of(version.parse().map_err(field)?);
    match epoch {
        Some(epoch) if epoch <= written.epoch => {
            Err(WireError::Field(format!("epoch {epoch} does not come after the one of {version}")))
        }
        Some(epoch) => Ok(Stamp { epoch, ..written }),
        None => Ok(written),
    }
}

fn parse_record(record: pb::Record) -> Result<Record, WireError> {
    Ok(Record {
        key: record.key.try_into().map_err(field)?,
        stamp: parse_stamp(&record.version, record.epoch)?,
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

/// One digest per requested range: each is compared with this node's digest of its range.
pub(crate) fn parse_digests(
    digests: Vec<pb::Digest>,
    asked: usize,
) -> Result<Vec<Digest>, WireError> {
    if digests.len() != asked {
        return Err(WireError::Unequal { what: "digests", got: digests.len(), asked });
    }
    digests.into_iter().map(|digest| parse_digest(Some(digest))).collect()
}

/// A page of the keys of a range and their stamps: clockwise, after `after`, and not empty if more
/// are announced. A missing key would be taken for removed.
pub(crate) fn parse_stamps(
    response: pb::ListVersionsResponse,
    range: KeyRange,
    after: Option<&Key>,
) -> Result<(Vec<(Key, Stamp)>, bool), WireError> {
    let rank = |key: &Key| (range.first().distance_to(key.position()), key.clone());
    let mut last = after.map(rank);
    let mut stamps = Vec::with_capacity(response.versions.len());
    for listed in response.versions {
        let key = Key::try_from(listed.key).map_err(field)?;
        let next = Some(rank(&key));
        if !range.contains(key.position()) || next <= last {
            return Err(WireError::OutOfOrder("keys"));
        }
        last = next;
        stamps.push((key, parse_stamp(&listed.version, listed.epoch)?));
    }
    if response.more && stamps.is_empty() {
        return Err(WireError::Missing("the next page of keys"));
    }
    Ok((stamps, response.more))
}

/// Records of some of the requested keys, in their order.
pub(crate) fn parse_records_of<'a>(
    records: Vec<pb::Record>,
    mut asked: impl Iterator<Item = &'a Key>,
) -> Result<Vec<Record>, WireError> {
    let records = parse_records(records)?;
    if records.iter().all(|record| asked.any(|key| *key == record.key)) {
        Ok(records)
    } else {
        Err(WireError::OutOfOrder("records"))
    }
}

pub(crate) fn parse_digest(digest: Option<pb::Digest>) -> Result<Digest, WireError> {
    let digest = digest.ok_or(WireError::Missing("the digest"))?;
    let hash: [u8; 16] = digest.hash[..]
        .try_into()
        .map_err(|_| WireError::Field("a digest has 16 bytes".to_owned()))?;
    Ok(Digest { hash: u128::from_be_bytes(hash), count: digest.count })
}

#[cfg(test)]
mod tests {
    use shoal_core::ring::{NodeId, Position, Version};
    use uuid::Uuid;

    use super::*;

    fn listed(key: &Key) -> pb::KeyVersion {
        let version = Version { epoch: 1, wall_ms: 1, counter: 0, node: NodeId::new(Uuid::nil()) };
        pb::KeyVersion { key: key.as_bytes().clone(), version: version.to_string(), epoch: None }
    }

    /// Five keys, clockwise after `after`, which lies between two of them.
    fn keys() -> (Position, Vec<Key>) {
        let key = |name: u8| Key::try_from(bytes::Bytes::from(vec![name])).expect("it is short");
        let mut keys: Vec<_> = (1..=5).map(key).collect();
        keys.sort_by_key(Key::position);
        keys.rotate_left(2);
        (keys[4].position(), keys)
    }

    #[test]
    fn fewer_or_more_digests_than_ranges_are_no_answer() {
        let digests = |count| vec![digest(Digest::default()); count];
        assert_eq!(parse_digests(digests(3), 3), Ok(vec![Digest::default(); 3]));
        for got in [0, 2, 4] {
            let wrong = parse_digests(digests(got), 3).expect_err("not as many as were asked for");
            assert_eq!(wrong.to_string(), format!("{got} digests answer a request for 3"));
        }
    }

    #[test]
    fn a_page_of_keys_continues_the_one_before_in_order_and_within_its_range() {
        let (after, keys) = keys();
        let range = KeyRange { after, last: keys[3].position() };
        let page = |keys: &[&Key], more, after| {
            let versions = keys.iter().map(|key| listed(key)).collect();
            parse_stamps(pb::ListVersionsResponse { versions, more }, range, after)
        };
        let whole: Vec<_> = keys[..4].iter().collect();
        assert_eq!(page(&whole, false, None).map(|(versions, _)| versions.len()), Ok(4));
        assert!(page(&whole[2..], true, Some(&keys[1])).is_ok());
        assert!(page(&[], false, Some(&keys[1])).is_ok());
        for (wrong, after) in [
            (&[&keys[1], &keys[0]][..], None),
            (&[&keys[0], &keys[0]], None),
            (&[&keys[4]], None),
            (&[&keys[1]], Some(&keys[1])),
            (&[&keys[0]], Some(&keys[1])),
        ] {
            assert_eq!(page(wrong, true, after), Err(WireError::OutOfOrder("keys")));
        }
        assert!(page(&[], true, None).is_err(), "more follow, and none came");
    }

    #[test]
    fn records_that_were_not_requested_are_no_answer() {
        let (_, keys) = keys();
        let of = |keys: &[&Key]| -> Vec<pb::Record> {
            let records = keys.iter().map(|key| pb::Record {
                key: key.as_bytes().clone(),
                version: listed(key).version,
                ..pb::Record::default()
            });
            records.collect()
        };
        let parse = |got: &[&Key]| parse_records_of(of(got), keys[..3].iter());
        assert!(parse(&[&keys[0], &keys[2]]).is_ok() && parse(&[]).is_ok());
        for wrong in [&[&keys[3]][..], &[&keys[1], &keys[0]], &[&keys[0], &keys[0]]] {
            assert_eq!(parse(wrong), Err(WireError::OutOfOrder("records")));
        }
    }
}
