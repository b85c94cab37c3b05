//! The status of each content, for those who watch it.

use std::{sync::Arc, time::Instant};

use shoal_core::{
    content::Escaped,
    swarm::{ContentKey, LinkStatus},
};
use tokio::sync::watch;

use super::content::Search;
use crate::{
    engine::Engine,
    status::{Phase, Status},
    store::Stored,
};

impl Engine {
    /// The status of a content, from now on.
    pub(in crate::engine) fn watch(&self, key: ContentKey) -> watch::Receiver<Arc<Status>> {
        // It was not updated while there was no watcher.
        self.report_on(key);
        self.contents[&key].status.subscribe()
    }

    /// Updates metrics, and the status for watchers.
    pub(in crate::engine) fn report(&self) {
        metrics::gauge!("shoal_peer_contents").set(self.contents.len() as f64);
        metrics::gauge!("shoal_peer_links").set(self.links.len() as f64);
        for (key, content) in &self.contents {
            if content.status.receiver_count() > 0 {
                self.report_on(*key);
            }
        }
    }

    pub(super) fn report_on(&self, key: ContentKey) {
        let status = Arc::new(self.status(key));
        self.contents[&key].status.send_if_modified(|old| {
            let changed = **old != *status;
            *old = status;
            changed
        });
    }

    /// The status of a content. It is computed often, and costs the same for any number of pieces.
    pub(in crate::engine) fn status(&self, key: ContentKey) -> Status {
        let now = Instant::now();
        let content = &self.contents[&key];
        let stored = content.stored();
        let mut status = Status::unresolved(content.id);
        if let Some(stored) = &stored {
            describe(&mut status, stored);
        }
        let links: Vec<_> = self.links_of(key, now);
        let has_manifest = stored.as_ref().is_some_and(|stored| stored.manifest().is_some());
        let wants_nothing =
            has_manifest && self.swarm.content_status(key).is_some_and(|swarm| swarm.missing == 0);
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

    pub(super) fn links_of(&self, key: ContentKey, now: Instant) -> Vec<LinkStatus> {
        self.swarm.links(key).filter_map(|link| self.swarm.link_status(link, now)).collect()
    }
}

fn describe(status: &mut Status, stored: &Arc<Stored>) {
    status.name = Escaped(stored.descriptor().name()).to_string();
    status.total_bytes = stored.descriptor().blob_bytes();
    status.held_bytes = stored.held_bytes();
    status.piece_count = stored.layout().piece_count();
    status.held_pieces = stored.held_pieces();
}
