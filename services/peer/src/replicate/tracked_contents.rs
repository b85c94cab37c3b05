//! Contents that trackers list: those of the swarms that they know.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use shoal_common::{
    channel::{Channel, Options as ChannelOptions},
    dns::DnsCache,
    status,
};
use shoal_core::{Address, content::ContentId};
use shoal_proto::tracker::v1::{
    ListSwarmsRequest, SwarmInfo, tracker_service_client::TrackerServiceClient,
};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::listing::{Lister, Listing, Look};
use crate::options::Options;

/// Longest wait for all pages of a tracker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Swarms of a page, as many as a tracker returns, and pages read at a time.
const PAGE_SIZE: u32 = 1000;
const MAX_PAGES: usize = 10;

/// Trackers requested at most, however many addresses the names have.
const MAX_TRACKERS: usize = 16;

pub(super) struct TrackedContents {
    /// As in the settings.
    named: Vec<Address>,
    names: DnsCache,
    trackers: BTreeMap<Address, Tracker>,
}

struct Tracker {
    address: Address,
    client: TrackerServiceClient<Channel>,
    /// Where to continue in its list; at the beginning if empty.
    page_token: String,
    /// It did not answer the last time.
    is_silent: bool,
}

impl TrackedContents {
    pub(super) fn new(named: Vec<Address>) -> Self {
        Self { named, names: DnsCache::default(), trackers: BTreeMap::new() }
    }

    /// The contents that a complete peer serves. A swarm without one may be a mistyped id: a peer
    /// that joins it would keep it alive for others to join. Each time it
    /// returns the next part of a long list.
    pub(super) async fn look(&mut self) -> Look {
        let are_all_known = self.look_up().await;
        let listings = join_all(self.trackers.values_mut().map(Tracker::look)).await;
        let is_partial = !are_all_known || listings.iter().any(Option::is_none);
        Look { listings: listings.into_iter().flatten().collect(), is_partial }
    }

    /// Finds the trackers of the names; false if not all are known.
    async fn look_up(&mut self) -> bool {
        let found = join_all(self.named.iter().map(|name| self.names.addresses(name))).await;
        let are_all_known = found.iter().all(Result::is_ok);
        let addresses: BTreeSet<_> = found
            .into_iter()
            .filter_map(|found| {
                found
                    .inspect_err(|error| debug!(%error, "the name of a tracker has no address"))
                    .ok()
            })
            .flatten()
            .take(MAX_TRACKERS)
            .collect();
        self.trackers.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.trackers.entry(address).or_insert_with_key(Tracker::new);
        }
        are_all_known
    }
}

impl Tracker {
    fn new(address: &Address) -> Self {
        let channel = Channel::lazy(address, &ChannelOptions::default());
        let client = TrackerServiceClient::new(channel);
        let page_token = String::new();
        Self { address: address.clone(), client, page_token, is_silent: false }
    }

    /// The next part of its list; none if it does not answer.
    async fn look(&mut self) -> Option<Listing> {
        let from = std::mem::take(&mut self.page_token);
        let listed = match timeout(PATIENCE, list(&mut self.client, from)).await {
            Ok(Ok(listed)) => Ok(listed),
            Ok(Err(refusal)) => Err(status::words(&refusal)),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let was_silent = std::mem::replace(&mut self.is_silent, listed.is_err());
        let (swarms, page_token) = match listed {
            Ok(listed) => listed,
            Err(error) if was_silent => {
                debug!(addr = %self.address, %error, "the tracker did not list its swarms");
                return None;
            }
            Err(error) => {
                warn!(addr = %self.address, %error, "the tracker did not list its swarms");
                return None;
            }
        };
        self.page_token = page_token;
        let served = swarms.iter().filter(|swarm| swarm.complete_count > 0);
        let ids = served.filter_map(|swarm| swarm.content_id.parse::<ContentId>().ok());
        let contents: BTreeMap<_, _> = ids.map(|id| (id, Options::default())).collect();
        Some(Listing { lister: Lister::Tracker(self.address.clone()), contents })
    }
}

/// Some pages from a token on, and the token of the next; it is empty at the end of the list.
async fn list(
    client: &mut TrackerServiceClient<Channel>,
    mut page_token: String,
) -> Result<(Vec<SwarmInfo>, String), tonic::Status> {
    let mut swarms = Vec::new();
    for _ in 0..MAX_PAGES {
        let request = ListSwarmsRequest { page_size: PAGE_SIZE, page_token };
        let page = client.list_swarms(request).await?.into_inner();
        swarms.extend(page.swarms.into_iter().take(PAGE_SIZE as usize));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok((swarms, page_token))
}
