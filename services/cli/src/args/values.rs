//! Types of arguments that only this command line has.

use std::{num::NonZeroU64, str::FromStr, time::Duration};

use shoal_common::units::duration::{self, DurationError};
use shoal_proto::control::v1::Priority;

/// How long a content is seeded once it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeedFor {
    UntilInterrupted,
    Duration(Duration),
}

impl SeedFor {
    pub(super) const UNTIL_INTERRUPTED: &str = "forever";
}

impl FromStr for SeedFor {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        match text {
            Self::UNTIL_INTERRUPTED => Ok(Self::UntilInterrupted),
            _ => duration::parse(text).map(Self::Duration),
        }
    }
}

/// The priority of a file or directory of a content: `PATH=high|low|skip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePriority {
    pub(crate) path: String,
    pub(crate) priority: Priority,
}

impl FromStr for FilePriority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, level) =
            text.rsplit_once('=').filter(|(path, _)| !path.is_empty()).ok_or_else(|| {
                format!("{text:?} is not of the form PATH=high, PATH=low or PATH=skip")
            })?;
        let priority = match level {
            "high" => Priority::High,
            "normal" => Priority::Unspecified,
            "low" => Priority::Low,
            "skip" => Priority::Skip,
            _ => return Err(format!("{level:?} is not a priority; use high, normal, low or skip")),
        };
        Ok(Self { path: path.trim_end_matches('/').to_owned(), priority })
    }
}

/// A range of numbers of peers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerCounts {
    pub(crate) first: NonZeroU64,
    pub(crate) last: NonZeroU64,
}

impl PeerCounts {
    /// More points make no readable figure or table.
    const MAX_SPAN: u64 = 10_000;

    pub(crate) fn is_one(self) -> bool {
        self.first == self.last
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = NonZeroU64> {
        (self.first.get()..=self.last.get()).filter_map(NonZeroU64::new)
    }
}

impl FromStr for PeerCounts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |number: &str| {
            number.trim_start_matches('=').parse::<NonZeroU64>().map_err(|_| {
                format!("{text:?} is neither a positive number nor a range such as 1..50")
            })
        };
        let (first, last) = match text.split_once("..") {
            None => (count(text)?, count(text)?),
            Some((first, last)) => (count(first)?, count(last)?),
        };
        if last < first {
            return Err(format!("the range {text} ends before it begins"));
        }
        if last.get() - first.get() >= Self::MAX_SPAN {
            return Err(format!("the range {text} has more than {} numbers", Self::MAX_SPAN));
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_names_a_path_and_a_level() {
        let parsed: FilePriority = "a=b/c/=skip".parse().unwrap();
        assert_eq!(parsed, FilePriority { path: "a=b/c".to_owned(), priority: Priority::Skip });
        for bad in ["a", "=high", "a=urgent", "a="] {
            assert!(bad.parse::<FilePriority>().is_err(), "{bad}");
        }
    }

    #[test]
    fn peer_counts_are_a_number_or_a_range() {
        let all = |text: &str| {
            text.parse()
                .map(|counts: PeerCounts| counts.iter().map(NonZeroU64::get).collect::<Vec<_>>())
        };
        assert_eq!(all("3"), Ok(vec![3]));
        assert_eq!(all("2..4"), Ok(vec![2, 3, 4]));
        assert_eq!(all("2..=4"), Ok(vec![2, 3, 4]));
        for bad in ["0", "", "4..2", "0..3", "1..", "..", "1..1000000", "1-5"] {
            assert!(all(bad).is_err(), "{bad}");
        }
    }
}
