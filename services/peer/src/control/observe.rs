//! `ObserveService`: observes, and changes nothing.

use std::{collections::HashMap, pin::Pin, time::Duration};

use shoal_common::units::duration;
use shoal_core::content::{Bitfield, ContentId, PieceIndex};
use shoal_proto::control::v1::{
    ExplainRequest, ExplainResponse, ListRequest, ListResponse, VerifyRequest, VerifyResponse,
    WatchRequest, WatchResponse, observe_service_server::ObserveService,
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    api::{LocalApi, parse_id, unknown},
    wire::{self, Keeping},
};
use crate::node::StatusWatch;

const DEFAULT_INTERVAL: Duration = Duration::from_millis(250);
/// Damaged files that are named, at most: they fit into a message however long their paths are.
const MAX_FILES: usize = 100;
const MIN_INTERVAL: Duration = Duration::from_millis(50);

#[tonic::async_trait]
impl ObserveService for LocalApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let keeping = self.keeping();
        let statuses = self.daemon.node.list().await?;
        let contents = statuses.iter().map(|status| {
            wire::status(status, keeping.get(&status.id).copied().unwrap_or_default())
        });
        Ok(Response::new(ListResponse { contents: contents.collect() }))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let id = parse_id(&request.content_id)?;
        let interval = match request.interval.map(duration::from_message) {
            None => DEFAULT_INTERVAL,
            Some(Ok(interval)) => interval.max(MIN_INTERVAL),
            Some(Err(error)) => {
                return Err(Status::invalid_argument(format!("interval: {error}")));
            }
        };
        let watch = self.daemon.node.watch(id).await?.ok_or_else(|| unknown(id))?;
        // One status may wait while another is sent; a slow caller gets fewer, with newer numbers.
        let (updates, responses) = mpsc::channel(1);
        tokio::spawn(Watcher { api: self.clone(), id, interval, updates }.run(watch));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let id = parse_id(&request.get_ref().content_id)?;
        let explanation = self.daemon.node.explain(id).await?.ok_or_else(|| unknown(id))?;
        Ok(Response::new(wire::explanation(explanation)))
    }

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyResponse>, Status> {
        let id = parse_id(&request.get_ref().content_id)?;
        // It may take hours, and is of no use once the caller has gone.
        let stop = self.daemon.store.stop().child_token();
        let _stop_with_the_call = stop.clone().drop_guard();
        let verified = self.daemon.on_disk(move |store| store.load(id)?.verify(&stop)).await?;
        Ok(Response::new(VerifyResponse {
            verified_pieces: verified.pieces,
            damaged_pieces: verified.damaged.len() as u32,
            damaged_file_count: verified.files.len() as u32,
            damaged_files: verified.files.into_iter().take(MAX_FILES).collect(),
        }))
    }
}

impl LocalApi {
    /// The store's entry of each content.
    fn keeping(&self) -> HashMap<ContentId, Keeping> {
        let contents = self.daemon.store.contents().into_iter();
        contents
            .map(|(id, entry)| {
                (id, Keeping { pinned: entry.pinned, in_place: entry.in_place.is_some() })
            })
            .collect()
    }
}

/// Follows one content for one caller.
struct Watcher {
    api: LocalApi,
    id: ContentId,
    interval: Duration,
    updates: mpsc::Sender<Result<WatchResponse, Status>>,
}

impl Watcher {
    async fn run(self, mut watch: StatusWatch) {
        let mut told = Bitfield::empty(0);
        for sequence in 1.. {
            let status = watch.borrow_and_update().clone();
            let keeping = self.api.keeping().get(&self.id).copied().unwrap_or_default();
            let mut update = WatchResponse {
                sequence,
                status: Some(wire::status(&status, keeping)),
                new_pieces: Vec::new(),
            };
            if let Some(held) = self.api.daemon.node.held(self.id) {
                update.new_pieces = held.minus(&told).map(PieceIndex::get).collect();
                told = held;
            }
            if self.updates.send(Ok(update)).await.is_err() {
                return;
            }
            sleep(self.interval).await;
            tokio::select! {
                changed = watch.changed() => if changed.is_err() { return },
                () = self.updates.closed() => return,
            }
        }
    }
}
