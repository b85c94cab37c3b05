//! Requests that a neighbour makes on its link, because it cannot dial us.

use std::{collections::HashMap, sync::Arc};

use shoal_core::{
    content::BlockRange,
    swarm::{ContentKey, LinkKey},
};
use shoal_proto::peer::v1::{self as pb, link_message::Kind};
use tokio_util::task::AbortOnDropHandle;

use super::uploads::{BlockRequest, Outgoing, Uploads};
use crate::{
    link::{BlockQueue, LinkSender, QueueFull},
    store::Stored,
    transfer::{io_threads::IoThreads, protocol::parse_ranges},
};

/// Bytes of a block on a link: small, because other messages wait behind it.
const BLOCK_LENGTH: u32 = 64 * 1024;

/// Requests of one neighbour in progress on its link, at most.
const MAX_REQUESTS: usize = 16;

/// The requests of one neighbour that are being served, by the ids it chose. Dropping one ends it.
#[derive(Default)]
pub(crate) struct LinkUploads(HashMap<u64, AbortOnDropHandle<()>>);

impl BlockRequest {
    /// The request of a neighbour on its link; none if it violates the protocol.
    pub(crate) fn on_link(
        link: LinkKey,
        content: ContentKey,
        stored: Arc<Stored>,
        request: &pb::Request,
    ) -> Option<Self> {
        let ranges = parse_ranges(stored.layout(), &request.ranges).ok()?;
        Some(Self { content, stored, link: Some(link), ranges, block_length: BLOCK_LENGTH })
    }
}

impl LinkUploads {
    /// Serves a request; an error if the neighbour does not read its link.
    pub(crate) fn serve(
        &mut self,
        request_id: u64,
        request: BlockRequest,
        uploads: &Uploads,
        io_threads: &IoThreads,
        link: &LinkSender,
    ) -> Result<(), QueueFull> {
        self.0.retain(|_, upload| !upload.is_finished());
        if self.0.len() >= MAX_REQUESTS {
            return link.send(refusal(request_id, "too many requests at a time".to_owned()));
        }
        let serving = serve(request_id, request, uploads.clone(), link.blocks().clone());
        self.0.insert(request_id, AbortOnDropHandle::new(io_threads.spawn(serving)));
        Ok(())
    }

    /// The neighbour cancels a request.
    pub(crate) fn cancel(&mut self, request_id: u64) {
        self.0.remove(&request_id);
    }
}

const fn refusal(request_id: u64, reason: String) -> Kind {
    Kind::Refuse(pb::Refuse { request_id, reason })
}

/// Serves one request, as far as the state machine grants.
async fn serve(request_id: u64, request: BlockRequest, uploads: Uploads, blocks: BlockQueue) {
    let mut left: u64 = request.ranges.iter().map(|range| u64::from(range.length)).sum();
    let refused = async {
        let mut upload = uploads.open(request).await.map_err(|end| end.to_string())?;
        while let Some(block) = upload.next().await.map_err(|end| end.to_string())? {
            left -= u64::from(block.block.length);
            let block = read(request_id, &block, left == 0)?;
            if blocks.send(Kind::Block(block)).await.is_err() {
                // The link has ended.
                break;
            }
        }
        Ok(())
    };
    if let Err(reason) = refused.await {
        // A link that has ended needs no answer.
        let _ = blocks.send(refusal(request_id, reason)).await;
    }
}

fn read(request_id: u64, outgoing: &Outgoing, last: bool) -> Result<pb::Block, String> {
    let BlockRange { piece, offset, length } = outgoing.block;
    let mut data = vec![0; length as usize];
    outgoing.stored.read(outgoing.block, &mut data).map_err(|error| error.to_string())?;
    Ok(pb::Block { request_id, piece: piece.get(), offset, data: data.into(), last })
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize, time::Duration};

    use shoal_core::swarm::{Input, RefuseReason, ServeKey};
    use tokio::{
        sync::mpsc,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::{
        store::{HashOptions, hash},
        transfer::{event::Event, rate_cap::RateCap},
    };

    const DEADLINE: Duration = Duration::from_secs(20);

    /// A link whose neighbour requests the only piece of a file: piece 1, after that of the manifest.
    struct Bench {
        stored: Arc<Stored>,
        uploads: Uploads,
        io_threads: IoThreads,
        events: mpsc::Receiver<Event>,
        link: LinkSender,
        messages: mpsc::Receiver<pb::LinkMessage>,
        on_link: LinkUploads,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            fs::write(&path, [7; 100]).unwrap();
            let stored = Stored::in_place(hash(&path, &HashOptions::default(), |_| {}).unwrap());
            let (to_engine, events) = mpsc::channel(64);
            let (to_neighbour, messages) = mpsc::channel(64);
            Self {
                stored,
                uploads: Uploads::new(to_engine, RateCap::new(None)),
                io_threads: IoThreads::start(NonZeroUsize::MIN).unwrap(),
                events,
                link: LinkSender::to(to_neighbour),
                messages,
                on_link: LinkUploads::default(),
            }
        }

        fn request(&mut self, request_id: u64) {
            let ranges = vec![pb::PieceRange { piece: 1, offset: 0, length: 0 }];
            let request = pb::Request { request_id, ranges };
            let stored = self.stored.clone();
            let request =
                BlockRequest::on_link(LinkKey(1), ContentKey(1), stored, &request).unwrap();
            let (uploads, io_threads) = (&self.uploads, &self.io_threads);
            let served = self.on_link.serve(request_id, request, uploads, io_threads, &self.link);
            served.unwrap();
        }

        async fn requested(&mut self) -> ServeKey {
            match timeout(DEADLINE, self.events.recv()).await.unwrap().unwrap() {
                Event::Swarm(Input::ServeRequested { serve, .. }) => serve,
                other => panic!("{other:?}"),
            }
        }

        async fn dropped(&mut self) {
            let event = timeout(DEADLINE, self.events.recv()).await.unwrap().unwrap();
            assert!(matches!(event, Event::Swarm(Input::ServeDropped { .. })), "{event:?}");
        }

        fn is_refused(&mut self) -> bool {
            let refused = |message: pb::LinkMessage| matches!(message.kind, Some(Kind::Refuse(_)));
            self.messages.try_recv().is_ok_and(refused)
        }
    }

    #[tokio::test]
    async fn the_requests_in_progress_are_bounded_and_end_with_the_link() {
        let mut bench = Bench::new();
        for id in 0..MAX_REQUESTS as u64 {
            bench.request(id);
            bench.requested().await;
        }
        assert!(!bench.is_refused());
        bench.request(99);
        assert!(bench.is_refused());
        bench.on_link.cancel(0);
        bench.dropped().await;
        bench.request(99);
        bench.requested().await;
        assert!(!bench.is_refused());
        bench.on_link = LinkUploads::default();
        for _ in 0..MAX_REQUESTS {
            bench.dropped().await;
        }
    }

    #[tokio::test]
    async fn a_request_that_has_ended_does_not_count() {
        let mut bench = Bench::new();
        for id in 0..2 * MAX_REQUESTS as u64 {
            bench.request(id);
            let serve = bench.requested().await;
            bench.uploads.refuse(serve, RefuseReason::Choked);
            let ended = async {
                while !bench.on_link.0[&id].is_finished() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(DEADLINE, ended).await.unwrap();
        }
        assert!(!bench.is_refused());
    }
}
