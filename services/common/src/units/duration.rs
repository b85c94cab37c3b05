//! Durations: `30s`, `1m 30s`, `250ms`. For `#[serde(with = "shoal_common::units::duration")]`.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Why a text is no duration.
pub type DurationError = humantime::DurationError;

/// Reads a duration.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    humantime::parse_duration(text)
}

/// Writes a duration as [`parse`] reads it.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// Reads a duration out of a string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(|error| {
        D::Error::custom(format_args!("{text:?} is no duration such as 30s or 5m: {error}"))
    })
}
