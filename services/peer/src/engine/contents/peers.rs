//! The other peers of a content, as trackers, the ring and the peers themselves name them.

use std::{collections::BTreeSet, time::Instant};

use shoal_core::{Address, content::ContentId, peer_list::Candidate, swarm::ContentKey};
use tracing::debug;

use super::content::{MANIFEST_PEERS, Search};
use crate::{
    discovery::{AnnounceTarget, Event, Report},
    engine::Engine,
};

impl Engine {
    pub(in crate::engine) fn discovered(&mut self, event: Event) {
        match event {
            Event::Announced(report) => self.announced(report),
            Event::TrackersChanged { content, current, former } => {
                if let Some(content) = self.contents.get_mut(&content) {
                    content.trackers_changed(current, &former);
                }
            }
        }
    }

    /// A peer dialled us for a content whose manifest is still being fetched.
    pub(in crate::engine) fn called(&mut self, content: ContentId, candidate: Candidate) {
        if let Some(key) = self.ids.get(&content) {
            self.learn(*key, vec![candidate]);
        }
    }

    /// Starts to announce a content.
    pub(super) fn announce(&mut self, key: ContentKey) {
        let content = self.contents.get_mut(&key).expect("announced contents are here");
        let all = |ours: &[Address], of_content: &[Address]| -> Vec<Address> {
            let all: BTreeSet<_> = ours.iter().chain(of_content).cloned().collect();
            all.into_iter().collect()
        };
        let trackers = all(&self.trackers, &content.options.trackers);
        let ring_nodes = all(&self.ring_nodes, &content.options.ring_nodes);
        let named = trackers.iter().cloned().map(AnnounceTarget::Tracker);
        let named = named.chain(ring_nodes.iter().cloned().map(AnnounceTarget::RingNode));
        let events = self.senders.discovery.clone();
        let announcer = content.announcer(key, self.identity.info(), events, named);
        let names = &self.names;
        content.span.in_scope(|| announcer.start(trackers, ring_nodes, names, &self.jobs));
    }

    /// The answer of a tracker or a ring node about a content.
    fn announced(&mut self, report: Report) {
        let Report { content: key, target, outcome } = report;
        let Some(content) = self.contents.get_mut(&key) else { return };
        match outcome {
            Ok(candidates) => {
                content.note_answer(&target, Ok(candidates.len()));
                self.learn(key, candidates);
            }
            Err(error) => {
                debug!(addr = %target, %error, "announce failed");
                content.note_answer(&target, Err(error));
            }
        }
    }

    /// Learns named peers of a swarm.
    fn learn(&mut self, key: ContentKey, found: Vec<Candidate>) {
        let Some(content) = self.contents.get_mut(&key) else { return };
        match &mut content.search {
            Search::Manifest { ask, candidates } => {
                for candidate in found {
                    if candidate.peer == self.identity.peer {
                        continue;
                    }
                    // Full: enough are being asked.
                    let _ = ask.try_send(candidate.address.clone());
                    // Ids are public: the first information holds until a dial proves it wrong.
                    let is_known = candidates.iter().any(|known| known.peer == candidate.peer);
                    if !is_known && candidates.len() < MANIFEST_PEERS {
                        candidates.push(candidate);
                    }
                }
            }
            Search::Found => {
                let now = Instant::now();
                for candidate in found {
                    self.peer_list.learn(now, key, candidate);
                }
            }
            Search::Failed(_) => {}
        }
    }

    pub(in crate::engine) fn starving(&mut self, key: ContentKey) {
        if let Some(content) = self.contents.get(&key) {
            content.seek_peers();
        }
    }
}
