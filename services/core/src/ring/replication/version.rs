//! Versions of values, and the order of two records of a key.
//!
//! A version tells when a value was written, as far as possible, and is greater than that of the
//! value it replaces whatever the wall clocks do: a hybrid logical clock for each key (Kulkarni et
//! al., "Logical Physical Clocks", OPODIS 2014). So the last writer wins by comparison alone.
//!
//! The epoch of the replica set that accepts the write precedes the time: an unfinished write of an
//! earlier set on one of its replicas may appear late, and must not be taken for the last write
//! because its primary's clock was ahead. For the same reason a time counts only within its epoch:
//! a clock that was years ahead and is right again has no lasting effect.

use std::{cmp::max, fmt, str::FromStr};

use uuid::Uuid;

use crate::ring::NodeId;

/// The last millisecond of the year 9999, the last that RFC 3339 can express.
const MAX_WALL_MS: u64 = 253_402_300_799_999;

/// The identity of a write of a key. Clients compare it: it does not change while the value stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Of the replica set that accepted the write, or of the record it replaced if that is higher.
    pub epoch: u64,
    /// Milliseconds since the Unix epoch, by the clock of the node, or later if the value it
    /// replaced was written later in the same epoch. At most the year 9999.
    pub wall_ms: u64,
    /// Orders versions of one millisecond.
    pub counter: u32,
    /// The node that created it: no two nodes create the same version.
    pub node: NodeId,
}

impl Version {
    /// Bytes of [`Version::to_bytes`].
    pub const BYTES: usize = 36;

    /// A version for a write of `node` under the set of an epoch, whose record is newer than the
    /// one it replaces, with the stamp `above`.
    pub fn next(node: NodeId, now_ms: u64, epoch: u64, above: Option<Stamp>) -> Self {
        let epoch = above.map_or(epoch, |above| max(epoch, max(above.epoch, above.version.epoch)));
        let of_epoch = above.filter(|above| above.version.epoch == epoch);
        let now = (now_ms.min(MAX_WALL_MS), 0);
        let (wall_ms, counter) = of_epoch.map_or(now, |above| max(now, above.version.later()));
        Self { epoch, wall_ms, counter, node }
    }

    /// The next wall time and counter.
    fn later(self) -> (u64, u32) {
        let next = self.counter.checked_add(1).map(|counter| (self.wall_ms, counter));
        next.unwrap_or((self.wall_ms.saturating_add(1), 0))
    }

    /// The version as bytes that sort like versions.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.wall_ms.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.counter.to_be_bytes());
        bytes[20..].copy_from_slice(self.node.as_bytes());
        bytes
    }

    /// The version of these bytes.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (epoch, rest) = bytes.split_first_chunk().expect("36 bytes begin with 8");
        let (wall_ms, rest) = rest.split_first_chunk().expect("28 bytes begin with 8");
        let (counter, node) = rest.split_first_chunk().expect("20 bytes begin with 4");
        let node = node.first_chunk().expect("16 bytes are left");
        Self {
            epoch: u64::from_be_bytes(*epoch),
            wall_ms: u64::from_be_bytes(*wall_ms),
            counter: u32::from_be_bytes(*counter),
            node: NodeId::new(Uuid::from_bytes(*node)),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}@{}", self.epoch, self.wall_ms, self.counter, self.node)
    }
}

/// The text is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a version is EPOCH.MILLISECONDS.COUNTER@NODE, of a time before the year 10000, such as 4.1764000000000.3@2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10"
)]
pub struct VersionError;

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let (time, node) = text.split_once('@').ok_or(VersionError)?;
        let (epoch, time) = time.split_once('.').ok_or(VersionError)?;
        let (wall_ms, counter) = time.split_once('.').ok_or(VersionError)?;
        let wall_ms = Some(number(wall_ms)?).filter(|wall_ms| *wall_ms <= MAX_WALL_MS);
        Ok(Self {
            epoch: number(epoch)?,
            wall_ms: wall_ms.ok_or(VersionError)?,
            counter: number(counter)?,
            node: node.parse().map_err(|_| VersionError)?,
        })
    }
}

/// Digits only: Rust's numbers may have a sign.
fn number<T: FromStr>(text: &str) -> Result<T, VersionError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten().ok_or(VersionError)
}

/// The order of two records of a key: the one written, or written again, under the later set is
/// newer, and within one set the one with the greater version. A record that a reconfiguration
/// writes again keeps its version, so that a client's compare-and-set of it still holds (Oki and
/// Liskov, "Viewstamped Replication", PODC 1988).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Of the replica set under which the record was last written.
    pub epoch: u64,
    /// Of the write.
    pub version: Version,
}

impl Stamp {
    /// Of a record that was not written again.
    pub const fn of(version: Version) -> Self {
        Self { epoch: version.epoch, version }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_764_000_000_000;
    const YEAR: u64 = 365 * 86_400_000;
    const EPOCH: u64 = 3;

    fn node(number: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(number))
    }

    fn version(wall_ms: u64, counter: u32) -> Version {
        Version { epoch: EPOCH, wall_ms, counter, node: node(7) }
    }

    #[test]
    fn a_version_tells_the_time_of_its_write() {
        let first = Version { epoch: EPOCH, wall_ms: NOW, counter: 0, node: node(1) };
        assert_eq!(Version::next(node(1), NOW, EPOCH, None), first);
        let second = Version::next(node(2), NOW + 1, EPOCH, Some(Stamp::of(first)));
        assert_eq!(second.to_string().split('@').next(), Some("3.1764000000001.0"));
    }

    #[test]
    fn a_clock_that_goes_back_gives_greater_versions_all_the_same() {
        let first = version(NOW, 0);
        let next = |above, now_ms| Version::next(node(1), now_ms, EPOCH, Some(Stamp::of(above)));
        let second = next(first, NOW - 1_000);
        assert!(second > first && second.wall_ms == NOW && second.counter == 1);
        assert_eq!(next(second, NOW + 5).counter, 0);
        let full = next(version(NOW, u32::MAX), NOW - 1_000);
        assert_eq!((full.wall_ms, full.counter), (NOW + 1, 0));
    }

    #[test]
    fn a_record_of_an_earlier_set_is_older_whatever_its_clock() {
        let left_behind = Version::next(node(1), NOW + YEAR, 3, None);
        let next = Version::next(node(2), NOW, 4, None);
        assert!(next > left_behind);
        assert!(Version::next(node(2), NOW, 2, Some(Stamp::of(next))) > next);
    }

    #[test]
    fn a_time_that_was_far_ahead_ends_with_its_epoch() {
        let ahead = Stamp::of(version(NOW + YEAR, 7));
        let within = Version::next(node(1), NOW, EPOCH, Some(ahead));
        assert_eq!((within.wall_ms, within.counter), (NOW + YEAR, 8));
        let after = Version::next(node(1), NOW, EPOCH + 1, Some(ahead));
        assert_eq!((after.wall_ms, after.counter), (NOW, 0));
    }

    #[test]
    fn a_rewritten_record_is_newer_under_its_version_and_older_than_later_writes() {
        let written = Stamp::of(version(NOW + YEAR, 7));
        let left_behind = Stamp::of(version(NOW + YEAR, 9));
        let again = Stamp { epoch: EPOCH + 2, ..written };
        assert!(again > left_behind);
        for epoch in [EPOCH + 2, EPOCH + 3] {
            assert!(Stamp::of(Version::next(node(1), NOW, epoch, Some(again))) > again);
        }
    }

    #[test]
    fn a_text_that_is_not_a_version_is_refused_with_a_reason() {
        let node = node(3);
        let bad = [
            "",
            "12",
            "1@2",
            "1.2",
            "+1.2.3",
            "1.2.+3",
            "1.2.4294967296",
            "-1.0.0",
            "..",
            "1.2.3.4",
            "1.253402300800000.0",
        ];
        for text in bad.map(|bad| format!("{bad}@{node}")).iter().chain([&"1.2.3@x".to_owned()]) {
            let refused = text.parse::<Version>().expect_err(text);
            assert!(refused.to_string().contains("MILLISECONDS.COUNTER@NODE"));
        }
    }

    prop_compose! {
        fn versions()(
            epoch: u64,
            wall_ms in 0..=MAX_WALL_MS,
            counter: u32,
            number: u128,
        ) -> Version {
            Version { epoch, wall_ms, counter, node: node(number) }
        }
    }

    prop_compose! {
        /// Versions close to each other.
        fn near()(
            epoch in 0..3_u64,
            wall_ms in NOW..NOW + 9,
            counter in prop_oneof![0..3_u32, Just(u32::MAX)],
            number in 0..3_u128,
        ) -> Version {
            Version { epoch, wall_ms, counter, node: node(number) }
        }
    }

    proptest! {
        #[test]
        fn text_and_bytes_give_the_version_back(version in versions()) {
            prop_assert_eq!(version.to_string().parse(), Ok(version));
            prop_assert_eq!(Version::from_bytes(&version.to_bytes()), version);
        }

        #[test]
        fn bytes_are_ordered_as_versions_are(one in near(), other in near()) {
            prop_assert_eq!(one.to_bytes().cmp(&other.to_bytes()), one.cmp(&other));
        }

        #[test]
        fn no_text_reaches_a_panic(text in ".*") {
            let _ = text.parse::<Version>();
        }

        #[test]
        fn each_record_is_newer_than_the_one_it_replaces(
            version in near(),
            again in 0..5_u64,
            steps in prop::collection::vec((NOW..NOW + 9, 0..5_u64, 0..3_u128), 1..50),
        ) {
            let mut above = Stamp { epoch: max(again, version.epoch), version };
            for (now_ms, epoch, number) in steps {
                let next = Stamp::of(Version::next(node(number), now_ms, epoch, Some(above)));
                prop_assert!(next > above && next.version > above.version);
                prop_assert!(next.epoch >= epoch && next.version.wall_ms >= now_ms);
                above = next;
            }
        }
    }
}
