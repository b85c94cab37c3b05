//! Values that only this command line has.

use std::{fmt, num::NonZeroU64, str::FromStr, time::Duration};

use shoal_common::units::duration::{self, DurationError};
use shoal_core::content::{Link, LinkError};
use shoal_proto::control::v1::Priority;

/// How long a content is shared once it is complete.
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

/// How much a file or directory of a content is wanted: `PATH=high|low|skip`.
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
            _ => return Err(format!("{level:?} is no priority; use high, normal, low or skip")),
        };
        Ok(Self { path: path.trim_end_matches('/').to_owned(), priority })
    }
}

/// What a content is called in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    const MAX_BYTES: usize = 128;

    /// The key under which the ring keeps it, beside whatever else it keeps.
    pub(crate) fn key(&self) -> String {
        format!("name/{self}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sound = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@+".contains(&b));
        if sound && !is_meant_as_link(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is no name: a name has 1 to {} letters, digits and any of -_./:@+, and looks \
             neither like an id nor like a link",
            Self::MAX_BYTES
        ))
    }
}

/// The content that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// By its id, maybe with places to start from.
    Link(Link),
    /// By a name that the ring knows.
    Name(Name),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_meant_as_link(text) {
            return text.parse().map(Self::Link).map_err(|error: LinkError| error.to_string());
        }
        text.parse().map(Self::Name)
    }
}

/// It starts as a link does, or is an id, or one with a few digits too many or too few.
fn is_meant_as_link(text: &str) -> bool {
    let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    text.starts_with("shoal:") || (is_hex && text.len() >= 32)
}

/// How many peers, from the first number to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerCounts {
    pub(crate) first: NonZeroU64,
    pub(crate) last: NonZeroU64,
}

impl PeerCounts {
    /// More points than this are no figure any more, and no table that anybody reads.
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
                format!("{text:?} is neither a number from 1 on nor a range such as 1..50")
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
    fn what_is_neither_id_nor_link_is_a_name() {
        let id = "0".repeat(64);
        for link in [id.clone(), format!("shoal:{id}"), format!("shoal:{id}?dht=ring:7071")] {
            assert_eq!(link.parse(), Ok(Wanted::Link(link.parse().unwrap())), "{link}");
        }
        for name in ["llama-3", "org/model@v1", "7", "beef", &"n".repeat(128)] {
            assert_eq!(name.parse(), Ok(Wanted::Name(Name(name.to_owned()))), "{name}");
        }
        let names = ["", "a b", "caf\u{e9}", "a?b", &"n".repeat(129)];
        // One digit short, one too many, in the wrong case: nobody is to look for a name.
        let ids = [&id[1..], &format!("{id}0"), &"A".repeat(64), "shoal:xyz"];
        for bad in names.into_iter().chain(ids) {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!(id.parse::<Name>().is_err());
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
