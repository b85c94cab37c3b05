//! Sizes, rates and durations as people write them: `64MiB`, `200mbit`, `30s`.

pub mod duration;

use std::{fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Serialize};

/// The names of multiples of a byte. Those of 1,000 come first within a magnitude.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// The names of multiples of a bit.
const BIT_UNITS: [(&str, u64); 4] =
    [("bit", 1), ("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];

/// A number of bytes: `4096`, `50MB` (50,000,000), `1.5GiB`. Case does not matter.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

/// Bytes a second, never zero: `20MB/s`, `64KiB` (a second), `200mbit` (25,000,000 bytes a second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(NonZeroU64);

/// Why a text is not a size or a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not start with a number.
    #[error("{0:?} does not start with a number such as 64 or 1.5")]
    Number(String),
    /// The unit is not one of a size.
    #[error("{0:?} is not a unit of size; use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")]
    Size(String),
    /// The unit is not one of a rate.
    #[error(
        "{0:?} is not a unit of rate; use kbit, mbit, gbit, or B/s, kB/s, MB/s, MiB/s and the like"
    )]
    Rate(String),
    /// It exceeds 2^64 - 1 bytes.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// A rate below one byte a second.
    #[error("a rate is at least one byte a second")]
    Zero,
}

impl ByteSize {
    /// This many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Rate {
    /// This many bytes a second, unless it is zero.
    pub const fn new(bytes_per_s: u64) -> Option<Self> {
        match NonZeroU64::new(bytes_per_s) {
            Some(rate) => Some(Self(rate)),
            None => None,
        }
    }

    /// This many bytes a second.
    pub const fn bytes_per_s(self) -> NonZeroU64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text)?;
        let unit_bytes =
            multiple(&BYTE_UNITS, unit).ok_or_else(|| UnitError::Size(unit.to_owned()))?;
        number.times(unit_bytes, text).map(Self)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text)?;
        let per_s = unit.strip_suffix("/s").unwrap_or(unit);
        let bytes = if let Some(bits) = multiple(&BIT_UNITS, per_s) {
            number.times(bits, text)? / 8
        } else if let Some(unit_bytes) = multiple(&BYTE_UNITS, per_s) {
            number.times(unit_bytes, text)?
        } else {
            return Err(UnitError::Rate(unit.to_owned()));
        };
        Self::new(bytes).ok_or(UnitError::Zero)
    }
}

/// The largest unit of which it is a whole multiple, so that it parses back to the same.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole =
            |(_, multiple): &&(&str, u64)| self.0.is_multiple_of(*multiple) && self.0 >= *multiple;
        let (name, multiple) = BYTE_UNITS.iter().rev().find(whole).unwrap_or(&BYTE_UNITS[0]);
        write!(f, "{}{name}", self.0 / multiple)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", ByteSize(self.0.get()))
    }
}

/// A decimal number: `digits / 10^decimals`.
struct Decimal {
    digits: u64,
    decimals: u32,
}

impl Decimal {
    /// The integer part of the product.
    fn times(&self, multiple: u64, text: &str) -> Result<u64, UnitError> {
        let product = u128::from(self.digits) * u128::from(multiple);
        // With more decimals than a `u128` has digits, nothing of the product is left.
        let whole = 10_u128.checked_pow(self.decimals).map_or(0, |power| product / power);
        u64::try_from(whole).map_err(|_| UnitError::TooLarge(text.to_owned()))
    }
}

/// The number at the start of `text`, and the unit after it. No unit means bytes.
fn split(text: &str) -> Result<(Decimal, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let refuse = || UnitError::Number(text.to_owned());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() {
        return Err(refuse());
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}").parse().map_err(|_| refuse())?;
    let unit = if unit.is_empty() { "B" } else { unit.trim_start() };
    Ok((Decimal { digits, decimals: fraction.len() as u32 }, unit))
}

fn multiple(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, multiple)| *multiple)
}

crate::as_text!(ByteSize, UnitError);
crate::as_text!(Rate, UnitError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Result<u64, UnitError> {
        text.parse().map(ByteSize::bytes)
    }

    fn rate(text: &str) -> Result<u64, UnitError> {
        text.parse().map(|rate: Rate| rate.bytes_per_s().get())
    }

    #[test]
    fn sizes_mean_what_they_say() {
        for (text, value) in [
            ("4096", 4096),
            ("0", 0),
            ("50MB", 50_000_000),
            ("50 mb", 50_000_000),
            ("1GiB", 1 << 30),
            ("1.5KiB", 1536),
            ("0.25kB", 250),
            ("18446744073709551615B", u64::MAX),
            ("0.000000000000000000000000000000000000000001MB", 0),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn rates_mean_what_they_say() {
        for (text, value) in [
            ("200mbit", 25_000_000),
            ("200Mbit/s", 25_000_000),
            ("20MB/s", 20_000_000),
            ("64KiB", 65_536),
            ("9bit", 1),
            ("100", 100),
        ] {
            assert_eq!(rate(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for text in ["", "MB", "-1", ".5MB", "1.MB", "1.2.3", "99999999999999999999"] {
            assert!(matches!(bytes(text), Err(UnitError::Number(_))), "{text}");
        }
        assert_eq!(bytes("5M"), Err(UnitError::Size("M".into())));
        assert_eq!(bytes("5mbit"), Err(UnitError::Size("mbit".into())));
        assert_eq!(
            bytes("18446744073709551615kB"),
            Err(UnitError::TooLarge("18446744073709551615kB".into()))
        );
        assert_eq!(rate("5M/s"), Err(UnitError::Rate("M/s".into())));
        assert_eq!(rate("0MB/s"), Err(UnitError::Zero));
        assert_eq!(rate("7bit"), Err(UnitError::Zero));
    }

    #[test]
    fn sizes_are_written_in_the_largest_whole_unit() {
        for (value, text) in [(0, "0B"), (64 << 20, "64MiB"), (50_000_000, "50MB"), (1025, "1025B")]
        {
            assert_eq!(ByteSize::new(value).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn sizes_and_rates_read_as_they_are_written(value: u64, shift in 0_u32..64) {
            let size = ByteSize::new(value >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            if let Some(rate) = Rate::new(size.bytes()) {
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}", number in "[0-9.]{0,50}[a-zA-Z/]{0,5}") {
            for text in [text, number] {
                let _ = text.parse::<ByteSize>();
                let _ = text.parse::<Rate>();
            }
        }
    }
}
