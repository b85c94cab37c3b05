//! The status of a content, and why it is slow.

use std::{sync::Arc, time::Instant};

use shoal_common::units::Rate;
use shoal_core::swarm::{ContentKey, IdleReason, LinkStatus};

use super::{
    Engine,
    contents::{Content, Search},
};
use crate::{
    announce,
    status::{Cause, Explanation, Neighbour, Phase, Source, Status},
    store::Stored,
};

/// A download at this share of its limit is held back by the limit.
const AT_CAP: f64 = 0.9;

impl Engine {
    /// The status of a content. It is computed often, and costs the same for any number of pieces.
    pub(super) fn status(&self, key: ContentKey) -> Status {
        let now = Instant::now();
        let content = &self.contents[&key];
        let stored = content.stored();
        let mut status = Status::unresolved(content.id());
        if let Some(stored) = &stored {
            describe(&mut status, stored);
        }
        let links: Vec<_> = self.links_of(key, now);
        let wants_nothing = self.swarm.content_status(key).is_some_and(|swarm| swarm.missing == 0);
        status.phase = match &content.search {
            Search::Manifest { .. } => Phase::Resolving,
            Search::Failed(reason) => Phase::Failed(reason.clone()),
            Search::Found if wants_nothing => Phase::Seeding,
            Search::Found => Phase::Downloading,
        };
        status.neighbours = links.len() as u32;
        status.down_bytes_per_s =
            links.iter().map(|link| link.down_bytes_per_s).sum::<f64>() as u64;
        status.up_bytes_per_s = links.iter().map(|link| link.up_bytes_per_s).sum::<f64>() as u64;
        status.last_asked = content.last_asked;
        let totals = self.swarm.totals(key);
        status.downloaded_bytes = totals.from_seeders + totals.from_leechers;
        status.from_seeders_bytes = totals.from_seeders;
        status.wasted_bytes = totals.duplicate + totals.wasted;
        status.uploaded_bytes = totals.sent;
        status
    }

    /// Why a content is slow.
    pub(super) fn explain(&self, key: ContentKey) -> Explanation {
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
                why_slow(missing, unavailable, &links, &sources, self.bulk.max_download)
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

    fn links_of(&self, key: ContentKey, now: Instant) -> Vec<LinkStatus> {
        self.swarm.links(key).filter_map(|link| self.swarm.link_status(link, now)).collect()
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
    trackers: Vec<Source>,
    ring_nodes: Vec<Source>,
}

impl Sources {
    fn of(content: &Content, now: Instant) -> Self {
        let (mut trackers, mut ring_nodes) = (Vec::new(), Vec::new());
        for (source, view) in &content.sources {
            let (list, address) = match source {
                announce::Source::Tracker(address) => (&mut trackers, address),
                announce::Source::RingNode(address) => (&mut ring_nodes, address),
            };
            list.push(Source {
                address: address.clone(),
                error: view.error.clone(),
                since_success: view.success.map(|at| now.duration_since(at)),
                peers_given: view.peers_given,
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

fn describe(status: &mut Status, stored: &Arc<Stored>) {
    stored.manifest().name().clone_into(&mut status.name);
    status.total_bytes = stored.layout().total_bytes();
    status.held_bytes = stored.held_bytes();
    status.piece_count = stored.layout().piece_count();
    status.held_pieces = stored.held_pieces();
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
    let sentence = format!("the neighbours ({count}) send as fast as they can or are let");
    (Cause::NeighboursSlow, sentence)
}

/// It aborted the last request, and nothing else is requested from it now.
fn failed_us(link: &LinkStatus) -> bool {
    link.outstanding == 0 && link.idle == Some(IdleReason::RetryLater)
}

const fn in_words(reason: IdleReason) -> &'static str {
    match reason {
        IdleReason::WindowFull => "it is asked for as much as its rate allows",
        IdleReason::Seeding => "nothing is wanted any more",
        IdleReason::ServesNone => "it serves nothing",
        IdleReason::NotInteresting => "it holds nothing wanted",
        IdleReason::Choked => "it chokes this peer",
        IdleReason::RetryLater => "it refused or was silent, and is asked again later",
        IdleReason::NothingOpen => "what it holds is asked of others",
        IdleReason::OutOfMemory => "as much is in flight as memory allows",
    }
}
