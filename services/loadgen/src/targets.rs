//! Connections to the targets.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::bail;
use futures_util::future::join_all;
use shoal_common::{
    channel::{Channel, Options},
    dns::DnsCache,
    http2::Http2,
};
use shoal_core::Address;

/// The most addresses that are called, of all that the names have.
const MAX_ADDRESSES: usize = 1000;

/// Makes connections.
pub(crate) struct Targets {
    names: DnsCache,
    connections: u32,
}

/// An address, with its connections.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) address: Address,
    channels: Arc<[Channel]>,
}

impl Targets {
    /// This many connections to each address.
    pub(crate) fn new(connections: u32) -> Self {
        Self { names: DnsCache::default(), connections }
    }

    /// Connects to every address of these names. Prints on stderr which cannot be reached, and
    /// fails if none can.
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
    /// One of the connections, in turn.
    pub(crate) fn channel(&self, number: u64) -> Channel {
        self.channels[(number % self.channels.len() as u64) as usize].clone()
    }
}

/// A connection to one of the targets: the targets in turn, and the connections of each in turn.
pub(crate) fn in_turn(targets: &[Connected], number: u64) -> Channel {
    let count = targets.len() as u64;
    targets[(number % count) as usize].channel(number / count)
}
