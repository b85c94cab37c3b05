//! The queues of the engine: one for each part of the peer that reports to it.

use tokio::sync::mpsc;

use super::event::Event;
use crate::{discovery, link, transfer};

/// Events that may wait in one queue. An I/O thread that finds it full waits, and so does its
/// neighbour.
const LENGTH: usize = 4096;

/// The sending ends.
#[derive(Clone)]
pub(crate) struct Senders {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) links: mpsc::Sender<link::Event>,
    pub(crate) discovery: mpsc::Sender<discovery::Event>,
    pub(crate) transfers: mpsc::Sender<transfer::Event>,
}

/// The receiving ends.
pub(crate) struct Queues {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) links: mpsc::Receiver<link::Event>,
    pub(super) discovery: mpsc::Receiver<discovery::Event>,
    pub(super) transfers: mpsc::Receiver<transfer::Event>,
}

/// The two ends of empty queues.
pub(crate) fn queues() -> (Senders, Queues) {
    let (to_events, events) = mpsc::channel(LENGTH);
    let (to_links, links) = mpsc::channel(LENGTH);
    let (to_discovery, discovery) = mpsc::channel(LENGTH);
    let (to_transfers, transfers) = mpsc::channel(LENGTH);
    let senders = Senders {
        events: to_events,
        links: to_links,
        discovery: to_discovery,
        transfers: to_transfers,
    };
    (senders, Queues { events, links, discovery, transfers })
}
