//! Times.

use prost_types::Timestamp;

use super::WireError;

/// Milliseconds since the Unix epoch as a timestamp.
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    Timestamp { seconds: (ms / 1000).cast_signed(), nanos: (ms % 1000 * 1_000_000) as i32 }
}

/// A timestamp as milliseconds since the Unix epoch.
pub(crate) fn parse_timestamp(timestamp: Timestamp) -> Result<u64, WireError> {
    let Timestamp { seconds, nanos } = timestamp;
    let ms = || {
        let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        u64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(nanos / 1_000_000)
    };
    ms().ok_or_else(|| WireError::Field(format!("{seconds}.{nanos:09} s is not a point in time")))
}
