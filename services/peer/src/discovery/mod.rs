//! From a content id to the peers of its swarm, and to its manifest.
//!
//! A content is announced to its trackers and to the ring, which name other peers: by one task for
//! each tracker and one for the ring, all with the loop of [`announcer`]. [`announce::Announce`]
//! hides which service is asked. [`resolve()`] asks the peers for the manifest.

mod announce;
mod announcer;
mod event;
mod resolve;
mod ring;
mod tracker;
mod trackers;

use shoal_common::{dns::DnsCache, supervisor::Jobs};
use shoal_core::Address;
use tracing::Instrument as _;

pub(crate) use self::{
    announce::{Subject, UNKNOWN_BYTES},
    announcer::{Announcer, News},
    event::{AnnounceTarget, Event, Report},
    resolve::resolve,
};
use self::{ring::Ring, tracker::Tracker};

impl Announcer {
    /// Starts tasks for the trackers of this content and one for the ring.
    pub(crate) fn start(
        &self,
        trackers: Vec<Address>,
        ring_nodes: Vec<Address>,
        names: &DnsCache,
        jobs: &Jobs,
    ) {
        if !trackers.is_empty() {
            let following =
                self.clone().follow(trackers, names.clone(), Tracker::new, jobs.clone());
            jobs.spawn("trackers", following.in_current_span());
        }
        if !ring_nodes.is_empty() {
            let to = Ring::new(ring_nodes, names.clone());
            jobs.spawn("announcer", self.clone().announce_to(to).in_current_span());
        }
    }
}
