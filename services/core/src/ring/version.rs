//! Versions of values, from a hybrid logical clock.
//!
//! A version tells the wall time of its write as far as that is possible, and is greater than every
//! version that its maker had given or seen, whatever the wall clock does (Kulkarni et al., "Logical
//! Physical Clocks", OPODIS 2014). So the last writer wins by comparing versions alone.
//!
//! The epoch of the replica set that takes the write goes before the time: what an earlier set left
//! unfinished on one of its replicas may turn up late, and must not be taken for the last write
//! because its primary's clock was ahead.

use std::{cmp::max, fmt, str::FromStr, time::Duration};

use uuid::Uuid;

use super::NodeId;

/// How far ahead of our clock a version may be. Clocks that NTP keeps differ by milliseconds, those
/// of machines that just woke up by seconds: a minute forgives them. And a node whose clock is a year
/// ahead can hide the writes of others for no more than a minute.
pub const MAX_AHEAD: Duration = Duration::from_secs(60);

/// Which write of a key is the last: the one with the greatest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Of the replica set that took the write, or of what it replaced if that is higher.
    pub epoch: u64,
    /// Milliseconds since the Unix epoch, by the clock of the node, or of one it had heard from.
    pub wall_ms: u64,
    /// Tells versions of one millisecond apart.
    pub counter: u32,
    /// The node that made it: no two nodes make the same version.
    pub node: NodeId,
}

impl Version {
    /// Bytes of [`Version::to_bytes`].
    pub const BYTES: usize = 36;

    /// The version in bytes that are ordered as versions are.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.wall_ms.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.counter.to_be_bytes());
        bytes[20..].copy_from_slice(self.node.as_bytes());
        bytes
    }

    /// The version of which these are the bytes.
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

/// The text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a version is EPOCH.MILLISECONDS.COUNTER@NODE, such as 4.1764000000000.3@2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10"
)]
pub struct VersionError;

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let (time, node) = text.split_once('@').ok_or(VersionError)?;
        let (epoch, time) = time.split_once('.').ok_or(VersionError)?;
        let (wall_ms, counter) = time.split_once('.').ok_or(VersionError)?;
        Ok(Self {
            epoch: number(epoch)?,
            wall_ms: number(wall_ms)?,
            counter: number(counter)?,
            node: node.parse().map_err(|_| VersionError)?,
        })
    }
}

/// Digits alone: Rust's numbers may have a sign.
fn number<T: FromStr>(text: &str) -> Result<T, VersionError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten().ok_or(VersionError)
}

/// A version is too far ahead of this node's clock to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "version {version} is {} s ahead of this node's clock, and more than {} s are not believed; \
     set the clocks of both nodes",
    .ahead.as_secs(),
    MAX_AHEAD.as_secs()
)]
pub struct FromTheFuture {
    /// The version.
    pub version: Version,
    /// How far it is ahead.
    pub ahead: Duration,
}

/// A node's hybrid logical clock. It is handed the wall time, which may stand still or go back.
#[derive(Clone, Debug)]
pub struct Clock {
    node: NodeId,
    /// Wall time and counter of the greatest version given or observed.
    latest: (u64, u32),
}

impl Clock {
    /// The clock of a node. `above` is the greatest version known from before it was last stopped.
    pub fn new(node: NodeId, above: Option<Version>) -> Self {
        Self { node, latest: above.map_or((0, 0), time_of) }
    }

    /// A version for a write taken in an epoch, greater than every one that was given in that epoch,
    /// and than `above`: that of the value to be replaced, which was observed here or elsewhere and so
    /// is not from the far future.
    pub fn next(&mut self, now_ms: u64, epoch: u64, above: Option<Version>) -> Version {
        let latest = above.map(time_of).map_or(self.latest, |above| max(above, self.latest));
        self.latest = max((now_ms, 0), after(latest));
        let (wall_ms, counter) = self.latest;
        let epoch = above.map_or(epoch, |above| max(epoch, above.epoch));
        Version { epoch, wall_ms, counter, node: self.node }
    }

    /// Takes note of a version made elsewhere, unless it is more than [`MAX_AHEAD`] ahead of
    /// `now_ms`: it must then not be stored either.
    pub fn observe(&mut self, version: Version, now_ms: u64) -> Result<(), FromTheFuture> {
        let ahead = Duration::from_millis(version.wall_ms.saturating_sub(now_ms));
        if ahead > MAX_AHEAD {
            return Err(FromTheFuture { version, ahead });
        }
        self.latest = max(self.latest, time_of(version));
        Ok(())
    }
}

const fn time_of(version: Version) -> (u64, u32) {
    (version.wall_ms, version.counter)
}

/// The next wall time and counter. Nothing observed is near the end of time, where there is none.
fn after((wall_ms, counter): (u64, u32)) -> (u64, u32) {
    counter.checked_add(1).map_or((wall_ms.saturating_add(1), 0), |counter| (wall_ms, counter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_764_000_000_000;
    const MINUTE: u64 = 60_000;
    const EPOCH: u64 = 3;

    fn node(number: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(number))
    }

    fn version(wall_ms: u64, counter: u32) -> Version {
        Version { epoch: EPOCH, wall_ms, counter, node: node(7) }
    }

    #[test]
    fn a_version_tells_the_time_of_its_write() {
        let mut clock = Clock::new(node(1), None);
        let first = Version { epoch: EPOCH, wall_ms: NOW, counter: 0, node: node(1) };
        assert_eq!(clock.next(NOW, EPOCH, None), first);
        assert_eq!(
            clock.next(NOW + 1, EPOCH, None).to_string().split('@').next(),
            Some("3.1764000000001.0")
        );
    }

    #[test]
    fn a_clock_that_goes_back_gives_greater_versions_all_the_same() {
        let mut clock = Clock::new(node(1), None);
        let first = clock.next(NOW, EPOCH, None);
        let second = clock.next(NOW - 1_000, EPOCH, None);
        assert!(second > first && second.wall_ms == NOW && second.counter == 1);
        assert_eq!(clock.next(NOW + 5, EPOCH, None).counter, 0);
    }

    #[test]
    fn what_an_earlier_set_left_behind_is_older_whatever_its_clock_said() {
        let left_behind = Clock::new(node(1), None).next(NOW + MINUTE, 3, None);
        let next = Clock::new(node(2), None).next(NOW, 4, None);
        assert!(next > left_behind);
        let replacing = Clock::new(node(2), None).next(NOW, 2, Some(next));
        assert!(replacing > next);
    }

    #[test]
    fn a_restart_goes_on_above_what_was_given_before() {
        let before = version(NOW + 10 * MINUTE, u32::MAX);
        let next = Clock::new(node(1), Some(before)).next(NOW, EPOCH, None);
        assert_eq!((next.wall_ms, next.counter), (NOW + 10 * MINUTE + 1, 0));
    }

    #[test]
    fn a_version_from_the_far_future_is_refused_and_forgotten() {
        let mut clock = Clock::new(node(1), None);
        clock.observe(version(NOW + MINUTE, 3), NOW).expect("a minute is believed");
        let refused =
            clock.observe(version(NOW + 90_500, 0), NOW).expect_err("it is too far ahead");
        assert_eq!(refused.ahead, Duration::from_millis(90_500));
        let words = refused.to_string();
        assert!(words.contains("90 s ahead") && words.contains("more than 60 s"), "{words}");
        assert_eq!(clock.observe(version(u64::MAX, 0), 0).expect_err("too far").version.counter, 0);
        assert_eq!(clock.next(NOW, EPOCH, None).wall_ms, NOW + MINUTE);
    }

    #[test]
    fn what_is_no_version_is_refused_with_words() {
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
        ];
        for text in bad.map(|bad| format!("{bad}@{node}")).iter().chain([&"1.2.3@x".to_owned()]) {
            let refused = text.parse::<Version>().expect_err(text);
            assert!(refused.to_string().contains("MILLISECONDS.COUNTER@NODE"));
        }
    }

    prop_compose! {
        fn versions()(epoch: u64, wall_ms: u64, counter: u32, number: u128) -> Version {
            Version { epoch, wall_ms, counter, node: node(number) }
        }
    }

    /// Versions close to each other, of a time that observers may believe.
    fn near() -> impl Strategy<Value = Version> {
        let counter = prop_oneof![0..3_u32, Just(u32::MAX)];
        (0..3_u64, NOW..NOW + MINUTE, counter, 0..3_u128).prop_map(
            |(epoch, wall_ms, counter, number)| Version {
                epoch,
                wall_ms,
                counter,
                node: node(number),
            },
        )
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
        fn each_version_is_later_than_all_before(
            number in 0..3_u128,
            steps in prop::collection::vec((NOW..NOW + MINUTE, prop::option::of(near()), any::<bool>()), 1..50),
        ) {
            let mut clock = Clock::new(node(number), None);
            let mut latest = None;
            for (now_ms, other, is_observed) in steps {
                match other {
                    Some(seen) if is_observed => {
                        prop_assert!(clock.observe(seen, now_ms).is_ok());
                        latest = latest.max(Some(time_of(seen)));
                    }
                    above => {
                        let given = clock.next(now_ms, EPOCH, above);
                        prop_assert!(Some(given) > above && given.epoch >= EPOCH);
                        prop_assert!(Some(time_of(given)) > latest && given.wall_ms >= now_ms);
                        latest = Some(time_of(given));
                    }
                }
            }
        }
    }
}
