//! A content id with addresses to start from, in one line that people pass on:
//! `shoal:ID?tr=HOST:PORT&dht=HOST:PORT`.

use std::{fmt, str::FromStr};

use super::{ContentId, ContentIdError};

const SCHEME: &str = "shoal:";

/// Addresses of one kind in a link: more are of no use, and a link is pasted by hand.
const MAX_ADDRESSES: usize = 16;

/// Bytes of an address: a DNS name, a colon and a port.
const MAX_ADDRESS_BYTES: usize = 259;

/// Where a content can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The content.
    pub id: ContentId,
    trackers: Vec<String>,
    ring_nodes: Vec<String>,
}

/// The text is not a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It starts with neither `shoal:` nor an id.
    #[error("a link looks like shoal:ID?tr=HOST:PORT: {0}")]
    Id(#[from] ContentIdError),
    /// A part after the question mark is not `key=value`.
    #[error("{0:?} in the link is not of the form tr=HOST:PORT or dht=HOST:PORT")]
    Parameter(String),
    /// A value cannot be HOST:PORT.
    #[error("{0:?} in the link is not of the form HOST:PORT")]
    Address(String),
    /// Too many addresses of a kind.
    #[error("a link names at most {MAX_ADDRESSES} trackers and as many ring nodes")]
    TooMany,
}

impl Link {
    /// A link to `id`, with addresses (HOST:PORT) of trackers and of ring nodes.
    pub fn new(
        id: ContentId,
        trackers: Vec<String>,
        ring_nodes: Vec<String>,
    ) -> Result<Self, LinkError> {
        for addresses in [&trackers, &ring_nodes] {
            if addresses.len() > MAX_ADDRESSES {
                return Err(LinkError::TooMany);
            }
            addresses.iter().try_for_each(|address| check_address(address))?;
        }
        Ok(Self { id, trackers, ring_nodes })
    }

    /// HOST:PORT of trackers that may know the swarm.
    pub fn trackers(&self) -> &[String] {
        &self.trackers
    }

    /// HOST:PORT of ring nodes that may know the swarm.
    pub fn ring_nodes(&self) -> &[String] {
        &self.ring_nodes
    }
}

/// Letters, digits and punctuation that a host and port need; a link escapes none of them. The
/// dialler parses the address more strictly.
fn check_address(address: &str) -> Result<(), LinkError> {
    let sound = address.len() <= MAX_ADDRESS_BYTES
        && address.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b))
        && address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if sound { Ok(()) } else { Err(LinkError::Address(start_of(address))) }
}

/// The part of a stranger's text that is repeated.
fn start_of(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.id)?;
        let trackers = self.trackers.iter().map(|address| ("tr", address));
        let ring_nodes = self.ring_nodes.iter().map(|address| ("dht", address));
        for (number, (key, address)) in trackers.chain(ring_nodes).enumerate() {
            let separator = if number == 0 { '?' } else { '&' };
            write!(f, "{separator}{key}={address}")?;
        }
        Ok(())
    }
}

/// Parses a link, or an id alone. Keys of later versions are skipped.
impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (id, parameters) = match text.strip_prefix(SCHEME) {
            None => (text, ""),
            Some(rest) => rest.split_once('?').unwrap_or((rest, "")),
        };
        let (mut trackers, mut ring_nodes) = (Vec::new(), Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("tr", address)) => trackers.push(address.to_owned()),
                Some(("dht", address)) => ring_nodes.push(address.to_owned()),
                Some(_) => {}
                None => return Err(LinkError::Parameter(start_of(parameter))),
            }
        }
        Self::new(id.parse()?, trackers, ring_nodes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> ContentId {
        ContentId::of_descriptor(b"descriptor")
    }

    fn parse(parameters: &str) -> Result<Link, LinkError> {
        format!("shoal:{}{parameters}", id()).parse()
    }

    #[test]
    fn a_link_names_trackers_and_ring_nodes() {
        let link = parse("?tr=t1:7070&dht=[::1]:7071&tr=10.0.0.1:7070").unwrap();
        assert_eq!(link.id, id());
        assert_eq!(link.trackers(), ["t1:7070", "10.0.0.1:7070"]);
        assert_eq!(link.ring_nodes(), ["[::1]:7071"]);
    }

    #[test]
    fn an_id_alone_is_a_link_without_addresses() {
        let bare: Link = id().to_string().parse().unwrap();
        assert_eq!(Ok(&bare), parse("").as_ref());
        assert_eq!(Ok(bare), parse("?"));
    }

    #[test]
    fn a_key_of_the_future_is_skipped() {
        assert_eq!(parse("?name=llama&tr=t:1"), parse("?tr=t:1"));
    }

    #[test]
    fn a_text_that_is_not_a_link_is_refused() {
        assert!(matches!("magnet:?xt=urn".parse::<Link>(), Err(LinkError::Id(_))));
        assert!(matches!("shoal:".parse::<Link>(), Err(LinkError::Id(_))));
        assert_eq!(parse("?tr"), Err(LinkError::Parameter("tr".to_owned())));
        for address in ["", "t", "t:", "t:65536", "a b:1", "t:1/x", "t\u{e9}:1", &"t:1".repeat(99)]
        {
            assert!(
                matches!(parse(&format!("?tr={address}")), Err(LinkError::Address(_))),
                "{address}"
            );
        }
        let many = "&tr=t:1".repeat(MAX_ADDRESSES + 1);
        assert_eq!(parse(&format!("?{many}")), Err(LinkError::TooMany));
    }

    proptest! {
        #[test]
        fn a_link_reads_as_it_is_written(
            digest: [u8; 32],
            trackers in prop::collection::vec("[a-z0-9.-]{0,20}:[1-9][0-9]{0,3}", 0..5),
            ring_nodes in prop::collection::vec("\\[[0-9a-f:]{2,20}\\]:[1-9][0-9]{0,3}", 0..5),
        ) {
            let link = Link::new(ContentId::from_bytes(digest), trackers, ring_nodes).unwrap();
            prop_assert_eq!(link.to_string().parse(), Ok(link));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}", tail in "[?&=a-z0-9:\\[\\].]{0,60}") {
            let _ = text.parse::<Link>();
            if let Ok(link) = parse(&tail) {
                prop_assert_eq!(link.to_string().parse(), Ok(link));
            }
        }
    }
}
