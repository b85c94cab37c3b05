//! The swarms that trackers know.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use shoal_common::{
    Address,
    channel::{Channel, Options as ChannelOptions},
    status,
};
use shoal_core::content::ContentId;
use shoal_proto::tracker::v1::{
    ListSwarmsRequest, SwarmInfo, tracker_service_client::TrackerServiceClient,
};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Look;
use crate::options::Options;

/// Longest wait for all pages of a tracker.
const PATIENCE: Duration = Duration::from_secs(5);

/// Swarms of a page, as many as a tracker gives, and pages read at most.
const PAGE_SIZE: u32 = 1000;
const MAX_PAGES: usize = 10;

pub(super) struct Swarms(Vec<Tracker>);

struct Tracker {
    address: Address,
    client: TrackerServiceClient<Channel>,
    /// It did not answer the last time.
    is_silent: bool,
}

impl Swarms {
    pub(super) fn new(trackers: &[Address]) -> Self {
        let tracker = |address: &Address| Tracker {
            client: TrackerServiceClient::new(Channel::lazy(address, &ChannelOptions::default())),
            address: address.clone(),
            is_silent: false,
        };
        Self(trackers.iter().map(tracker).collect())
    }

    /// The contents that a complete peer serves. A swarm without one may be a mistyped id: who joined
    /// it would keep it alive for others to join.
    pub(super) async fn look(&mut self) -> Look {
        let pages = join_all(self.0.iter_mut().map(Tracker::look)).await;
        let is_partial = pages.iter().any(Option::is_none);
        let swarms = pages.into_iter().flatten().flatten();
        let served = swarms.filter(|swarm| swarm.complete_count > 0);
        let ids = served.filter_map(|swarm| swarm.content_id.parse::<ContentId>().ok());
        let contents: BTreeMap<_, _> = ids.map(|id| (id, Options::default())).collect();
        Look { contents, is_partial }
    }
}

impl Tracker {
    /// All that it knows; none if it does not say.
    async fn look(&mut self) -> Option<Vec<SwarmInfo>> {
        let listed = match timeout(PATIENCE, list(&mut self.client)).await {
            Ok(Ok(swarms)) => Ok(swarms),
            Ok(Err(refusal)) => Err(status::words(&refusal)),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let was_silent = std::mem::replace(&mut self.is_silent, listed.is_err());
        match &listed {
            Ok(_) => {}
            Err(error) if was_silent => {
                debug!(addr = %self.address, %error, "the tracker's swarms are not known");
            }
            Err(error) => {
                warn!(addr = %self.address, %error, "the tracker's swarms are not known");
            }
        }
        listed.ok()
    }
}

async fn list(client: &mut TrackerServiceClient<Channel>) -> Result<Vec<SwarmInfo>, tonic::Status> {
    let mut swarms = Vec::new();
    let mut page_token = String::new();
    for _ in 0..MAX_PAGES {
        let request = ListSwarmsRequest { page_size: PAGE_SIZE, page_token };
        let page = client.list_swarms(request).await?.into_inner();
        swarms.extend(page.swarms.into_iter().take(PAGE_SIZE as usize));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(swarms)
}
