//! Durations: `30s`, `1m 30s`, `250ms`. For `#[serde(with = "shoal_common::units::duration")]`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// No setting is longer: a year added to a clock does not overflow it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a text is no duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not a number with a unit.
    #[error("{0:?} is no duration such as 30s or 5m")]
    Text(String),
    /// It is zero or longer than a year.
    #[error("{0:?} is not between 1ns and 365 days")]
    Range(String),
}

/// Reads a duration, which is longer than nothing and at most a year.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() || duration > LONGEST => {
            Err(DurationError::Range(text.to_owned()))
        }
        Ok(duration) => Ok(duration),
        Err(_) => Err(DurationError::Text(text.to_owned())),
    }
}

/// Writes a duration as [`parse`] reads it.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads a duration out of a string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_mean_what_they_say() {
        for (text, millis) in
            [("30s", 30_000), ("250ms", 250), ("1m 30s", 90_000), ("365d", 31_536_000_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn nothing_forever_and_nonsense_are_refused() {
        for text in ["0s", "366d", "100000000000000y"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["", "30", "soon", "-1s"] {
            assert_eq!(parse(text), Err(DurationError::Text(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn durations_read_as_they_are_written(nanos in 1..LONGEST.as_nanos() as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&humantime::format_duration(duration).to_string()), Ok(duration));
        }
    }
}
