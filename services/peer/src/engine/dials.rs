//! Dials: of peers that are known, and of neighbours that dialled us, to see whether that works.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use shoal_core::{
    Address, PeerId,
    peer_list::Origin,
    swarm::{ContentKey, LinkKey},
};
use tokio::{net::TcpStream, time::timeout};
use tracing::{Instrument as _, debug};

use super::{Engine, event::Event};
use crate::link::{Dial, LinkError};

/// A neighbour that cannot be dialled within this time counts as behind NAT.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);

impl Engine {
    /// Dials the peers that the peer list names.
    pub(super) fn dial(&mut self) {
        for (content, candidate) in self.peer_list.dials(Instant::now(), &mut self.rng) {
            let Some(entry) = self.contents.get(&content) else { continue };
            let Some(stored) = entry.stored() else { continue };
            let dial = Dial {
                content,
                piece_count: stored.layout().piece_count(),
                peer: candidate.peer,
                address: candidate.address,
                hello: self.identity.hello(&stored),
                events: self.senders.links.clone(),
            };
            let events = self.senders.events.clone();
            let stop = self.stop.clone();
            let dialling = async move {
                if let Some(Err(error)) = stop.run_until_cancelled(dial.run()).await {
                    let peer = candidate.peer;
                    // The engine has ended.
                    let _ = events.send(Event::DialFailed { content, peer, error }).await;
                }
            };
            self.jobs.spawn("dial", dialling.instrument(entry.span.clone()));
        }
    }

    pub(super) fn dial_failed(&mut self, content: ContentKey, peer: PeerId, error: &LinkError) {
        debug!(peer_id = %peer, %error, "no link");
        let answers = match error {
            LinkError::OtherPeer(peer) => Some(*peer),
            _ => None,
        };
        self.peer_list.dial_failed(Instant::now(), content, peer, answers, &mut self.rng);
    }

    /// Checks whether a neighbour that dialled us from a host can be dialled there. Other hosts,
    /// and those with many failures, are not tried: a peer must not scan ports for others.
    pub(super) fn probe(&mut self, link: LinkKey, host: IpAddr) {
        let Some(entry) = self.links.get(&link) else { return };
        let address = entry.address.clone();
        if address.port() == 0
            || !leads_to(&address, host)
            || !self.peer_list.may_probe(Instant::now(), host)
        {
            self.use_link(link);
            return;
        }
        let events = self.senders.events.clone();
        self.jobs.spawn("probe", async move {
            let dial = TcpStream::connect((address.host(), address.port()));
            if !matches!(timeout(DIAL_PATIENCE, dial).await, Ok(Ok(_))) {
                debug!(addr = %address, "cannot be dialled back");
                let _ = events.send(Event::Undialable { link }).await;
            }
        });
    }

    pub(super) fn undialable(&mut self, link: LinkKey) {
        let Some(entry) = self.links.get(&link) else { return };
        if let Origin::Seen(host, _) = entry.origin {
            self.peer_list.probe_failed(Instant::now(), host);
        }
        self.use_link(link);
    }

    /// Requests the blocks of a neighbour on its link from now on.
    fn use_link(&mut self, link: LinkKey) {
        if let Some(entry) = self.links.get_mut(&link) {
            entry.source.use_link(self.data_plane.link_source(entry.sender.clone()));
        }
    }
}

/// Whether an address leads to a host by its IP address.
fn leads_to(address: &Address, host: IpAddr) -> bool {
    let ip = address.ip().map(|ip| ip.to_canonical());
    ip.is_some_and(|ip| ip == host || ip.is_loopback() && host.is_loopback())
}
