//! The gRPC service.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::{advertised::AdvertisedAddresses, announced, status};
use shoal_core::{
    content::ContentId,
    registry::{Counts, Handout, Refusal},
};
use shoal_proto::tracker::v1::{
    AnnounceEvent, AnnounceRequest, AnnounceResponse, GetSwarmRequest, GetSwarmResponse,
    ListSwarmsRequest, ListSwarmsResponse, SwarmInfo, tracker_service_server::TrackerService,
};
use tonic::{Request, Response, Status};

use crate::{
    request::{Page, ValidAnnounce, ValidGetSwarm},
    shards::Shards,
};

/// Answers requests from the shards.
#[derive(Debug)]
pub(crate) struct Tracker {
    shards: Arc<Shards>,
    rule: AdvertisedAddresses,
}

impl Tracker {
    pub(crate) fn new(shards: Arc<Shards>, rule: AdvertisedAddresses) -> Self {
        Self { shards, rule }
    }
}

#[tonic::async_trait]
impl TrackerService for Tracker {
    async fn announce(
        &self,
        request: Request<AnnounceRequest>,
    ) -> Result<Response<AnnounceResponse>, Status> {
        let ValidAnnounce { announce, event } = ValidAnnounce::check(request, self.rule)?;
        metrics::counter!("shoal_tracker_announces_total", "event" => label(event)).increment(1);
        let now = Instant::now();
        let observed_address = String::from(&announce.peer.address);
        let mut registry = self.shards.of(announce.content);
        let handout = if event == AnnounceEvent::Stopped {
            let counts = registry.stop(now, announce.content, announce.peer.id, announce.source);
            Handout { peers: Vec::new(), counts, interval: self.shards.interval }
        } else {
            registry
                .announce(now, announce, &mut rand::rng())
                .map_err(|refusal| refused(refusal, self.shards.interval))?
        };
        let warming = registry.is_warming(now);
        drop(registry);
        Ok(Response::new(AnnounceResponse {
            peers: handout.peers.into_iter().map(announced::info).collect(),
            interval: handout.interval.try_into().ok(),
            complete_count: handout.counts.complete as u32,
            incomplete_count: handout.counts.incomplete as u32,
            warming,
            observed_address,
        }))
    }

    async fn list_swarms(
        &self,
        request: Request<ListSwarmsRequest>,
    ) -> Result<Response<ListSwarmsResponse>, Status> {
        let Page { after, size } = request.into_inner().try_into()?;
        // One more than requested, to know whether there is another page.
        let mut swarms = self.shards.swarms_after(Instant::now(), after, size + 1);
        let more = swarms.len() > size;
        swarms.truncate(size);
        let last = swarms.last().filter(|_| more);
        let next_page_token = last.map(|(content, _)| content.to_string()).unwrap_or_default();
        let swarms = swarms.into_iter().map(|(content, counts)| swarm_info(content, counts));
        Ok(Response::new(ListSwarmsResponse { swarms: swarms.collect(), next_page_token }))
    }

    async fn get_swarm(
        &self,
        request: Request<GetSwarmRequest>,
    ) -> Result<Response<GetSwarmResponse>, Status> {
        let ValidGetSwarm { content, max_peers } = request.into_inner().try_into()?;
        let swarm =
            self.shards.of(content).swarm(Instant::now(), content, max_peers, &mut rand::rng());
        let (counts, peers) = swarm.ok_or_else(|| {
            Status::not_found(format!("no peer announces {content} here; check the id"))
        })?;
        Ok(Response::new(GetSwarmResponse {
            swarm: Some(swarm_info(content, counts)),
            peers: peers.into_iter().map(announced::info).collect(),
        }))
    }
}

/// The refusal at a limit. It asks for a retry after an interval: peers may have left by then.
fn refused(refusal: Refusal, interval: Duration) -> Status {
    let limit = match refusal {
        Refusal::Swarms(_) => "swarms",
        Refusal::Peers(_) => "peers",
        Refusal::PeersOfSwarm(_) => "peers_per_swarm",
        Refusal::PeersOfAddress(_) => "peers_per_address",
    };
    metrics::counter!("shoal_tracker_refused_total", "limit" => limit).increment(1);
    status::exhausted(refusal.to_string(), interval)
}

fn label(event: AnnounceEvent) -> &'static str {
    match event {
        AnnounceEvent::Unspecified => "periodic",
        AnnounceEvent::Started => "started",
        AnnounceEvent::Completed => "completed",
        AnnounceEvent::Stopped => "stopped",
    }
}

fn swarm_info(content: ContentId, counts: Counts) -> SwarmInfo {
    SwarmInfo {
        content_id: content.to_string(),
        complete_count: counts.complete as u32,
        incomplete_count: counts.incomplete as u32,
    }
}
