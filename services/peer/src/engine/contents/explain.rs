//! Why a content is slow.

use std::time::Instant;

use shoal_common::units::Rate;
use shoal_core::swarm::{ContentKey, IdleReason, LinkStatus};

use super::content::{Content, Search};
use crate::{
    discovery::AnnounceTarget,
    engine::Engine,
    status::{Cause, DiscoverySource, Explanation, Neighbour},
};

/// A download at this share of its limit is held back by the limit.
const AT_CAP: f64 = 0.9;

impl Engine {
    /// Why a content is slow.
    pub(in crate::engine) fn explain(&self, key: ContentKey) -> Explanation {
        let now = Instant::now();
        let content = &self.contents[&key];
        let links = self.links_of(key, now);
        let swarm = self.swarm.content_status(key);
        let sources = Sources::of(content, now);
        let (cause, summary) = match &content.search {
            Search::Failed(reason) => (Cause::Disk, reason.to_string()),
            Search::Manifest { candidates, .. } => why_unresolved(candidates.len(), &sources),
            Search::Found => {
                let (missing, unavailable) = swarm.map_or((0, 0), |s| (s.missing, s.unavailable));
                why_slow(missing, unavailable, &links, &sources, self.data_plane.max_download)
            }
        };
        Explanation {
            cause,
            summary,
            neighbours: self.neighbours(key, now),
            unavailable_pieces: swarm.map_or(0, |swarm| swarm.unavailable),
            rarest_copies: swarm.and_then(|swarm| swarm.rarest).unwrap_or(0),
            trackers: sources.trackers,
            ring_nodes: sources.ring_nodes,
        }
    }

    fn neighbours(&self, key: ContentKey, now: Instant) -> Vec<Neighbour> {
        let describe = |link| {
            let status = self.swarm.link_status(link, now)?;
            Some(Neighbour {
                peer: status.peer,
                address: self.links.get(&link)?.address.clone(),
                held_pieces: status.held,
                interesting: status.interesting,
                interested: status.interested,
                choking_us: status.chokes_us,
                choked_by_us: status.choked,
                snubbed: status.snubbed,
                down_bytes_per_s: status.down_bytes_per_s as u64,
                up_bytes_per_s: status.up_bytes_per_s as u64,
                round_trip: status.round_trip,
                outstanding_bytes: status.outstanding,
                idle_reason: match status.idle {
                    Some(reason) if status.outstanding == 0 => in_words(reason).to_owned(),
                    _ => String::new(),
                },
            })
        };
        self.swarm.links(key).filter_map(describe).collect()
    }
}

/// The services that are asked for peers, and their answers.
struct Sources {
    trackers: Vec<DiscoverySource>,
    ring_nodes: Vec<DiscoverySource>,
}

impl Sources {
    fn of(content: &Content, now: Instant) -> Self {
        let (mut trackers, mut ring_nodes) = (Vec::new(), Vec::new());
        for (target, state) in &content.targets {
            let (list, address) = match target {
                AnnounceTarget::Tracker(address) => (&mut trackers, address),
                AnnounceTarget::RingNode(address) => (&mut ring_nodes, address),
            };
            list.push(DiscoverySource {
                address: address.clone(),
                error: state.error.clone(),
                since_success: state.success.map(|at| now.duration_since(at)),
                peers_given: state.peers_given,
            });
        }
        Self { trackers, ring_nodes }
    }

    /// Why no other peer is known.
    fn why_alone(&self) -> (Cause, String) {
        let (nobody, all) = match (self.trackers.is_empty(), self.ring_nodes.is_empty()) {
            (true, true) => {
                let sentence = "neither a tracker nor a ring node is set, so no peer is known; \
                                name one with --tracker or --dht";
                return (Cause::NoPeers, sentence.to_owned());
            }
            (false, true) => ("no tracker", "the trackers know no"),
            (true, false) => ("no ring node", "the ring knows no"),
            (false, false) => ("no tracker and no ring node", "the trackers and the ring know no"),
        };
        let asked = || self.trackers.iter().chain(&self.ring_nodes);
        if let Some(broken) = asked().find(|source| source.error.is_some())
            && asked().all(|source| source.error.is_some())
        {
            let error = broken.error.as_deref().unwrap_or_default();
            let sentence = format!("{nobody} answers: {} says {error}", broken.address);
            return (Cause::TrackerDown, sentence);
        }
        if asked().all(|source| source.since_success.is_none()) {
            return (Cause::NoPeers, format!("{nobody} has answered yet"));
        }
        let sentence = format!("{all} other peer of this content; is its publisher running?");
        (Cause::NoPeers, sentence)
    }
}

fn why_unresolved(peers: usize, sources: &Sources) -> (Cause, String) {
    if peers > 0 {
        let sentence = format!("no peer of those known ({peers}) has given the manifest yet");
        return (Cause::NoManifest, sentence);
    }
    sources.why_alone()
}

fn why_slow(
    missing: u32,
    unavailable: u32,
    links: &[LinkStatus],
    sources: &Sources,
    cap: Option<Rate>,
) -> (Cause, String) {
    if missing == 0 {
        return (Cause::None, "everything that is wanted is here".to_owned());
    }
    if links.is_empty() {
        return sources.why_alone();
    }
    let rate: f64 = links.iter().map(|link| link.down_bytes_per_s).sum();
    if let Some(cap) = cap
        && rate >= AT_CAP * cap.bytes_per_s().get() as f64
    {
        return (Cause::DownCap, format!("the settings cap downloads at {cap}"));
    }
    let useful: Vec<_> = links.iter().filter(|link| link.wanted > 0).collect();
    let count = useful.len();
    if useful.is_empty() || (unavailable > 0 && unavailable == missing) {
        let sentence =
            format!("no neighbour ({}) holds any of the pieces missing ({missing})", links.len());
        return (Cause::PiecesMissing, sentence);
    }
    if useful.iter().all(|link| link.chokes_us) {
        let sentence =
            format!("every neighbour that holds something wanted ({count}) chokes this peer");
        return (Cause::Choked, sentence);
    }
    let unchoking = useful.iter().filter(|link| !link.chokes_us);
    if unchoking.clone().all(|link| link.snubbed || failed_us(link)) {
        let sentence = format!(
            "every neighbour that unchoked this peer ({}) sends nothing",
            unchoking.count()
        );
        return (Cause::Snubbed, sentence);
    }
    let sentence =
        format!("the neighbours ({count}) send as fast as they can, or as their limits allow");
    (Cause::NeighboursSlow, sentence)
}

/// It aborted the last request, and nothing else is requested from it now.
fn failed_us(link: &LinkStatus) -> bool {
    link.outstanding == 0 && link.idle == Some(IdleReason::RetryLater)
}

const fn in_words(reason: IdleReason) -> &'static str {
    match reason {
        IdleReason::WindowFull => "as much is requested from it as its rate allows",
        IdleReason::Seeding => "nothing is wanted any more",
        IdleReason::ServesNone => "it serves nothing",
        IdleReason::NotInteresting => "it holds nothing wanted",
        IdleReason::Choked => "it chokes this peer",
        IdleReason::RetryLater => "it refused or was silent, and is tried again later",
        IdleReason::NothingOpen => "what it holds is requested from others",
        IdleReason::OutOfMemory => "as much is in flight as memory allows",
    }
}
