//! Fetches on the link itself, from a neighbour that cannot be dialled: one behind NAT that dialled
//! us. This is slower than calls on connections of their own, and always works.

use std::{sync::Arc, time::Duration};

use shoal_core::{
    content::BLOCK_UNIT,
    swarm::{FetchEnd, FetchKey, FetchRange},
};
use shoal_proto::peer::v1::{self as pb, link_message::Kind};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{downloads::Downloads, fetch_spec::FetchSpec, receiver::BlockReceiver};
use crate::{
    link::{LinkSender, QueueFull},
    transfer::io_threads::IoThreads,
};

/// When to retry a request that was refused: as soon as the neighbour may have changed its mind.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The link of a neighbour, to request blocks on.
pub(crate) struct LinkSource {
    link: LinkSender,
    downloads: Downloads,
    io_threads: Arc<IoThreads>,
}

/// A request on a link, until the neighbour has sent its last block. There is room for everything
/// that was requested, and no more.
pub(crate) struct LinkFetch {
    key: FetchKey,
    parts: mpsc::Sender<AnswerPart>,
    left_bytes: u64,
}

/// A part of the answer to a request on a link.
pub(crate) enum AnswerPart {
    Block(pb::Block),
    Refused,
}

/// A neighbour sent more than was requested.
#[derive(Debug)]
pub(crate) struct Unrequested;

impl AnswerPart {
    pub(super) const fn is_last(&self) -> bool {
        match self {
            Self::Block(block) => block.last,
            Self::Refused => true,
        }
    }
}

impl LinkSource {
    pub(in crate::transfer) const fn new(
        link: LinkSender,
        downloads: Downloads,
        io_threads: Arc<IoThreads>,
    ) -> Self {
        Self { link, downloads, io_threads }
    }

    /// Requests blocks. If the request cannot be sent, the fetch has failed.
    pub(super) fn fetch(&self, spec: FetchSpec) -> Result<LinkFetch, QueueFull> {
        let key = spec.fetch;
        let request = pb::Request { request_id: key.0, ranges: spec.requested() };
        let (fetch, parts) = LinkFetch::of(key, &spec.ranges);
        let receiver = self.downloads.receiver(spec);
        self.link.send(Kind::Request(request))?;
        self.io_threads.spawn(receive_all(receiver, parts, self.downloads.clone()));
        Ok(fetch)
    }

    /// Tells the neighbour that a request is void.
    pub(super) fn cancel(&self, fetch: &LinkFetch) -> Result<(), QueueFull> {
        self.link.send(Kind::Cancel(pb::Cancel { request_id: fetch.key.0 }))
    }
}

impl LinkFetch {
    fn of(key: FetchKey, ranges: &[FetchRange]) -> (Self, mpsc::Receiver<AnswerPart>) {
        let blocks = ranges.iter().map(|of| of.range.length.div_ceil(BLOCK_UNIT) as usize);
        // And for a refusal.
        let (parts, queue) = mpsc::channel(blocks.sum::<usize>() + 1);
        let left_bytes = ranges.iter().map(|of| u64::from(of.range.length)).sum();
        (Self { key, parts, left_bytes }, queue)
    }

    /// Queues a part of the answer.
    pub(super) fn receive(&mut self, part: AnswerPart) -> Result<(), Unrequested> {
        if let AnswerPart::Block(block) = &part {
            let left = self.left_bytes.checked_sub(block.data.len() as u64);
            self.left_bytes = left.ok_or(Unrequested)?;
        }
        match self.parts.try_send(part) {
            Err(TrySendError::Full(_)) => Err(Unrequested),
            // There is no receiver if the fetch has just failed.
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }
}

/// Stores the answer to a request, and reports its outcome.
async fn receive_all(
    mut receiver: BlockReceiver,
    mut parts: mpsc::Receiver<AnswerPart>,
    downloads: Downloads,
) {
    let result = loop {
        match receiver.wait_for(parts.recv()).await {
            // Cancelled, or the link has ended, or the neighbour sent less than was requested.
            None => break Ok(FetchEnd::Failed),
            Some(AnswerPart::Refused) => break Ok(FetchEnd::Refused { retry_after: RETRY_AFTER }),
            Some(AnswerPart::Block(block)) => {
                let pb::Block { piece, offset, data, .. } = block;
                receiver.wait_for(downloads.pass(data.len() as u32)).await;
                if let Err(error) = receiver.take(piece, offset, data).await {
                    break Err(error);
                }
            }
        }
        if receiver.is_complete() {
            break Ok(FetchEnd::Done);
        }
    };
    receiver.end(result).await;
}
