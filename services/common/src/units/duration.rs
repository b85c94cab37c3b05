//! Durations: `30s`, `1m 30s`, `250ms`. For `#[serde(with = "shoal_common::units::duration")]`.

use std::{fmt::Display, time::Duration};

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// The longest setting: a year added to a clock does not overflow it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a text is not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not a number with a unit.
    #[error("{0:?} is not a duration such as 30s or 5m")]
    Text(String),
    /// It is zero or longer than a year.
    #[error("{0:?} is not between 1ns and 365 days")]
    Range(String),
    /// A message's duration is negative, or not normalised as protobuf requires.
    #[error(
        "{seconds} s and {nanos} ns are not a duration; give seconds from 0 on and less than 1 s of ns"
    )]
    Message {
        /// Its seconds.
        seconds: i64,
        /// Its nanoseconds.
        nanos: i32,
    },
}

/// The duration of a message. Unlike the conversion of `prost-types`, which negates and normalises,
/// it does not overflow, whatever a stranger sends.
pub fn from_message(message: prost_types::Duration) -> Result<Duration, DurationError> {
    let prost_types::Duration { seconds, nanos } = message;
    let nanos_in_second = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let parts = u64::try_from(seconds).ok().zip(nanos_in_second);
    let (whole, part) = parts.ok_or(DurationError::Message { seconds, nanos })?;
    Ok(Duration::new(whole, part))
}

/// Parses a duration, which is positive and at most a year.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() || duration > LONGEST => {
            Err(DurationError::Range(text.to_owned()))
        }
        Ok(duration) => Ok(duration),
        Err(_) => Err(DurationError::Text(text.to_owned())),
    }
}

/// A duration as [`parse`] reads it.
pub fn shown(duration: Duration) -> impl Display {
    humantime::format_duration(duration)
}

/// Formats a duration as [`parse`] reads it.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&shown(*duration))
}

/// Parses a duration from a string.
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

    #[test]
    fn a_message_s_duration_is_taken_or_refused_and_overflows_nothing() {
        let of = |seconds, nanos| from_message(prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 500_000_000), Ok(Duration::from_millis(1_500)));
        assert_eq!(of(i64::MAX, 999_999_999).map(|long| long.as_secs()), Ok(i64::MAX as u64));
        for (seconds, nanos) in
            [(-1, 0), (0, -1), (1, -1), (0, 1_000_000_000), (i64::MIN, i32::MIN), (i64::MIN, 1)]
        {
            assert_eq!(of(seconds, nanos), Err(DurationError::Message { seconds, nanos }));
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
