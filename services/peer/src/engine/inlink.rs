//! Blocks on the link itself, for a neighbour that cannot be dialled: one behind NAT that dialled
//! us. This is slower than calls on connections of their own, and always works.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use shoal_core::{
    content::{BLOCK_UNIT, BlockRange},
    roster::Origin,
    swarm::{BanReason, FetchEnd, FetchKey, FetchRange, LinkKey},
};
use shoal_proto::peer::v1::{self as pb, LinkMessage, link_message::Kind};
use tokio::{
    net::TcpStream,
    sync::mpsc::{self, error::TrySendError},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::{
    Engine,
    contents::Content,
    links::leads_to,
    transfers::{Fetch, Way},
};
use crate::{
    bulk::{Ask, Downloads, Intake, Order, Outgoing, Uploads, parse_ranges},
    event::Event,
    wire::{self, InLink},
};

/// A neighbour that cannot be dialled within this time counts as behind NAT.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of a block on a link: small, because other messages wait behind it.
const BLOCK_LENGTH: u32 = 64 * 1024;

/// When to retry a request that was refused: as soon as the neighbour may have changed its mind.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Requests of one neighbour in progress on its link, at most.
const MAX_REQUESTS: usize = 16;

/// The requests on one link.
#[derive(Default)]
pub(super) struct OnLink {
    /// The neighbour cannot be dialled: blocks are requested here.
    pub(super) only_way: bool,
    /// The neighbour's requests, by the id it chose. Dropping one ends it; one that has ended
    /// counts as cancelled.
    serves: HashMap<u64, DropGuard>,
}

/// The receiver of the answer to one of our requests, until the neighbour has sent its last block.
/// It has room for everything that was requested, and no more.
pub(super) struct Arrivals {
    queue: mpsc::Sender<Arrival>,
    left_bytes: u64,
}

/// A part of the answer to one of our requests.
enum Arrival {
    Block(pb::Block),
    Refused,
}

impl Arrivals {
    fn of(ranges: &[FetchRange]) -> (Self, mpsc::Receiver<Arrival>) {
        let blocks = ranges.iter().map(|of| of.range.length.div_ceil(BLOCK_UNIT) as usize);
        // And for a refusal.
        let (queue, arrivals) = mpsc::channel(blocks.sum::<usize>() + 1);
        let left_bytes = ranges.iter().map(|of| u64::from(of.range.length)).sum();
        (Self { queue, left_bytes }, arrivals)
    }

    /// Queues a part; false if it is more than was requested.
    fn put(&mut self, arrival: Arrival) -> bool {
        if let Arrival::Block(block) = &arrival {
            let Some(left) = self.left_bytes.checked_sub(block.data.len() as u64) else {
                return false;
            };
            self.left_bytes = left;
        }
        // There is no receiver if the fetch has just failed.
        !matches!(self.queue.try_send(arrival), Err(TrySendError::Full(_)))
    }
}

impl Engine {
    /// Checks whether a neighbour that dialled us from a host can be dialled there. Other hosts,
    /// and those with many failures, are not tried: a peer must not scan ports for others.
    pub(super) fn probe(&mut self, link: LinkKey, host: IpAddr) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let address = entry.address.clone();
        if address.port() == 0
            || !leads_to(&address, host)
            || !self.roster.may_probe(Instant::now(), host)
        {
            entry.requests.only_way = true;
            return;
        }
        let events = self.events.clone();
        self.jobs.spawn("probe", async move {
            let dial = TcpStream::connect((address.host(), address.port()));
            if !matches!(timeout(DIAL_PATIENCE, dial).await, Ok(Ok(_))) {
                debug!(addr = %address, "cannot be dialled back");
                let _ = events.send(Event::Undialable { link }).await;
            }
        });
    }

    pub(super) fn undialable(&mut self, link: LinkKey) {
        let Some(link) = self.links.get_mut(&link) else { return };
        link.requests.only_way = true;
        if let Origin::Seen(host, _) = link.origin {
            self.roster.probe_failed(Instant::now(), host);
        }
    }

    /// Requests blocks on the link.
    pub(super) fn fetch_on_link(&mut self, order: Order) {
        let (fetch, link) = (order.fetch, order.link);
        let ranges = order.ranges.iter().map(|FetchRange { range, .. }| pb::PieceRange {
            piece: range.piece.get(),
            offset: range.offset,
            length: range.length,
        });
        let request = pb::Request { request_id: fetch.0, ranges: ranges.collect() };
        let (arrivals, blocks) = Arrivals::of(&order.ranges);
        self.fetches.insert(fetch, Fetch { link, way: Way::OnLink(arrivals) });
        let intake = Intake::new(order, self.bulk.moved.clone());
        self.bulk.lanes.spawn(take_all(intake, blocks, self.bulk.downloads.clone()));
        self.tell(link, Kind::Request(request));
    }

    /// Tells the neighbour that one of our requests is void.
    pub(super) fn cancel_on_link(&mut self, link: LinkKey, fetch: FetchKey) {
        self.tell(link, Kind::Cancel(pb::Cancel { request_id: fetch.0 }));
    }

    pub(super) fn in_link(&mut self, link: LinkKey, message: InLink) {
        match message {
            InLink::Request(request) => self.serve_on_link(link, &request),
            InLink::Cancel(request_id) => {
                if let Some(entry) = self.links.get_mut(&link) {
                    entry.requests.serves.remove(&request_id);
                }
            }
            InLink::Block(block) => {
                let fetch = FetchKey(block.request_id);
                let is_last = block.last;
                self.arrived(link, fetch, Arrival::Block(block), is_last);
            }
            InLink::Refuse(id) => self.arrived(link, FetchKey(id), Arrival::Refused, true),
        }
    }

    /// Passes on a part of an answer; it is dropped if the request was cancelled.
    fn arrived(&mut self, link: LinkKey, fetch: FetchKey, arrival: Arrival, is_last: bool) {
        let Some(entry) = self.fetches.get_mut(&fetch).filter(|fetch| fetch.link == link) else {
            return;
        };
        let Way::OnLink(arrivals) = &mut entry.way else { return };
        if !arrivals.put(arrival) {
            self.ban(link, BanReason::Protocol);
        } else if is_last {
            // If something is missing, the fetch fails.
            self.fetches.remove(&fetch);
        }
    }

    fn serve_on_link(&mut self, link: LinkKey, request: &pb::Request) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let Some(stored) = self.contents.get(&entry.content).and_then(Content::stored) else {
            return;
        };
        let Ok(ranges) = parse_ranges(stored.layout(), &request.ranges) else {
            self.ban(link, BanReason::Protocol);
            return;
        };
        if entry.requests.serves.len() >= MAX_REQUESTS {
            self.tell(link, refusal(request.request_id, "too many requests at a time".to_owned()));
            return;
        }
        let request_id = request.request_id;
        let events = self.events.clone();
        let cancelled = CancellationToken::new();
        entry.requests.serves.insert(request_id, cancelled.clone().drop_guard());
        let content = entry.content;
        let ask = Ask { content, stored, link: Some(link), ranges, block_length: BLOCK_LENGTH };
        let (uploads, blocks) = (self.bulk.uploads.clone(), entry.voice.blocks.clone());
        self.bulk.lanes.spawn(async move {
            let serving = serve(request_id, ask, uploads, &blocks);
            cancelled.run_until_cancelled(serving).await;
            let _ = events.send(Event::InLink { link, message: InLink::Cancel(request_id) }).await;
        });
    }

    fn tell(&mut self, link: LinkKey, kind: Kind) {
        let Some(entry) = self.links.get(&link) else { return };
        if entry.voice.messages.try_send(wire::message(kind)).is_err() {
            self.close(link);
        }
    }
}

const fn refusal(request_id: u64, reason: String) -> Kind {
    Kind::Refuse(pb::Refuse { request_id, reason })
}

/// Serves one request, as far as the state machine grants.
async fn serve(request_id: u64, ask: Ask, uploads: Uploads, blocks: &mpsc::Sender<LinkMessage>) {
    let mut left: u64 = ask.ranges.iter().map(|range| u64::from(range.length)).sum();
    let refused = async {
        let mut upload = uploads.open(ask).await.map_err(|end| end.to_string())?;
        while let Some(block) = upload.next().await.map_err(|end| end.to_string())? {
            left -= u64::from(block.block.length);
            let block = read(request_id, &block, left == 0)?;
            if blocks.send(wire::message(Kind::Block(block))).await.is_err() {
                // The link has ended.
                break;
            }
        }
        Ok(())
    };
    if let Err(reason) = refused.await {
        let refusal = wire::message(refusal(request_id, reason));
        // A link that has ended needs no answer.
        let _ = blocks.send(refusal).await;
    }
}

fn read(request_id: u64, outgoing: &Outgoing, last: bool) -> Result<pb::Block, String> {
    let BlockRange { piece, offset, length } = outgoing.block;
    let mut data = vec![0; length as usize];
    outgoing.stored.read(outgoing.block, &mut data).map_err(|error| error.to_string())?;
    Ok(pb::Block { request_id, piece: piece.get(), offset, data: data.into(), last })
}

/// Stores the answer to one of our requests, and reports its outcome.
async fn take_all(mut intake: Intake, mut arrivals: mpsc::Receiver<Arrival>, downloads: Downloads) {
    let result = loop {
        match arrivals.recv().await {
            // Cancelled, or the link has ended, or the neighbour sent less than was requested.
            None => break Ok(FetchEnd::Failed),
            Some(Arrival::Refused) => break Ok(FetchEnd::Refused { retry_after: RETRY_AFTER }),
            Some(Arrival::Block(block)) => {
                let pb::Block { piece, offset, data, .. } = block;
                downloads.pass(data.len() as u32).await;
                if let Err(error) = intake.take(piece, offset, data).await {
                    break Err(error);
                }
            }
        }
        if intake.is_complete() {
            break Ok(FetchEnd::Done);
        }
    };
    intake.end(result).await;
}
