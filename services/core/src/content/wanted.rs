//! A wanted content: by its id, by a link, or by a name that the ring resolves.

use std::{fmt, str::FromStr};

use super::{Link, LinkError};

/// The name of a content in the ring.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

/// The text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name: a name has 1 to {max} letters, digits and any of -_./:@+, and looks \
     neither like an id nor like a link",
    max = Name::MAX_BYTES
)]
pub struct NameError(String);

/// A wanted content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By its id, maybe with addresses to start from.
    Link(Link),
    /// By a name that the ring resolves.
    Name(Name),
}

/// The text does not identify a content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// It was meant as an id or a link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It was meant as a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Name {
    /// The longest name: with its prefix it is a key of the ring.
    pub const MAX_BYTES: usize = 128;

    /// The key of the name in the ring, separate from all other keys.
    pub fn key(&self) -> String {
        format!("name/{self}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let sound = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@+".contains(&b));
        if sound && !is_meant_as_link(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError(text.chars().take(2 * Self::MAX_BYTES).collect()))
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => link.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        if is_meant_as_link(text) {
            return Ok(Self::Link(text.parse()?));
        }
        Ok(Self::Name(text.parse()?))
    }
}

/// It starts like a link, or is an id, or one with a few digits too many or too few.
fn is_meant_as_link(text: &str) -> bool {
    let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    text.starts_with("shoal:") || (is_hex && text.len() >= 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_neither_id_nor_link_is_a_name() {
        let id = "0".repeat(64);
        for link in [id.clone(), format!("shoal:{id}"), format!("shoal:{id}?dht=ring:7071")] {
            assert_eq!(link.parse(), Ok(Wanted::Link(link.parse().unwrap())), "{link}");
        }
        for name in ["llama-3", "org/model@v1", "7", "beef", &"n".repeat(128)] {
            assert_eq!(name.parse(), Ok(Wanted::Name(Name(name.to_owned()))), "{name}");
        }
        let names = ["", "a b", "caf\u{e9}", "a?b", &"n".repeat(129)];
        // One digit short, one too many, in the wrong case: it must not be looked up as a name.
        let ids = [&id[1..], &format!("{id}0"), &"A".repeat(64), "shoal:xyz"];
        for bad in names.into_iter().chain(ids) {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!(id.parse::<Name>().is_err());
    }

    #[test]
    fn what_is_wanted_reads_as_it_is_written() {
        for text in ["llama-3", &format!("shoal:{}?tr=a:1&dht=b:2", "0".repeat(64))] {
            assert_eq!(text.parse::<Wanted>().unwrap().to_string(), text);
        }
    }
}
