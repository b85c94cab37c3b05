//! What all fetches of the process share.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{fetch_spec::FetchSpec, receiver::BlockReceiver};
use crate::transfer::{event::Event, rate_cap::RateCap};

/// State shared by all fetches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Downloads(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    events: mpsc::Sender<Event>,
    cap: RateCap,
    /// A call that brings nothing for this long has failed.
    pub(super) patience: Duration,
    /// The number of [`super::BlockSource`]s.
    pub(super) sources: AtomicUsize,
}

impl Downloads {
    /// No fetches yet. Together they stay below `cap`, and report by `events`; a call that brings
    /// nothing for as long as `patience` has failed.
    pub fn new(events: mpsc::Sender<Event>, cap: RateCap, patience: Duration) -> Self {
        Self(Arc::new(Shared { events, cap, patience, sources: AtomicUsize::new(0) }))
    }

    /// The receiving end of a fetch.
    pub(super) fn receiver(&self, spec: FetchSpec) -> BlockReceiver {
        BlockReceiver::new(spec, self.0.events.clone())
    }

    /// Waits until this many bytes may pass.
    pub(super) async fn pass(&self, bytes: u32) {
        self.0.cap.pass(bytes).await;
    }
}
