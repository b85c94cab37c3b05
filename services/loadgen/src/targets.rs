//! Connections to whoever is called.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::bail;
use futures_util::future::join_all;
use shoal_common::{
    Address,
    channel::{Channel, Options},
    http2::Http2,
    names::Names,
};

/// Addresses called at most, however many are behind the names.
const MAX_ADDRESSES: usize = 1000;

/// Makes connections.
pub(crate) struct Targets {
    names: Names,
    connections: u32,
}

/// An address, with its connections.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) address: Address,
    channels: Arc<[Channel]>,
}

impl Targets {
    /// So many connections to each address.
    pub(crate) fn new(connections: u32) -> Self {
        Self { names: Names::default(), connections }
    }

    /// Connects to every address behind these names. Those that cannot be reached are told on stderr;
    /// an error if that is all of them.
    pub(crate) async fn connect(
        &self,
        what: &str,
        named: &[Address],
        http2: Http2,
    ) -> anyhow::Result<Vec<Connected>> {
        let mut addresses = BTreeSet::new();
        let mut failed = Vec::new();
        for name in named {
            match self.names.addresses(name).await {
                Ok(found) => addresses.extend(found),
                Err(error) => failed.push(error.to_string()),
            }
        }
        let dialled = addresses.into_iter().take(MAX_ADDRESSES);
        let mut connected = Vec::new();
        for dialled in join_all(dialled.map(|address| self.dial(address, http2))).await {
            match dialled {
                Ok(target) => connected.push(target),
                Err(error) => failed.push(error),
            }
        }
        for error in &failed {
            eprintln!("shoal-loadgen: {error}");
        }
        if connected.is_empty() {
            bail!("no {what} can be called");
        }
        Ok(connected)
    }

    async fn dial(&self, address: Address, http2: Http2) -> Result<Connected, String> {
        let options = Options { http2, ..Options::default() };
        let dialled = (0..self.connections).map(|_| Channel::connect(&address, &options));
        let channels: Result<_, _> = join_all(dialled).await.into_iter().collect();
        let channels = channels.map_err(|error| error.to_string())?;
        Ok(Connected { address, channels })
    }
}

impl Connected {
    /// The connections in turn.
    pub(crate) fn channel(&self, number: u64) -> Channel {
        self.channels[(number % self.channels.len() as u64) as usize].clone()
    }
}

/// All of them in turn, and the connections of each.
pub(crate) fn in_turn(targets: &[Connected], number: u64) -> Channel {
    let count = targets.len() as u64;
    targets[(number % count) as usize].channel(number / count)
}
