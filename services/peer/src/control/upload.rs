//! Uploads: contents that a client streams in.

use std::sync::Arc;

use shoal_proto::control::v1::{UploadRequest, UploadResponse, UploadStart, upload_request::Part};
use tokio::{sync::mpsc, task::spawn_blocking};
use tonic::{Status, Streaming};

use super::{
    api::{LocalApi, parse_id},
    wire::piece_length,
};
use crate::{
    options::Options,
    store::{Import, ImportPlan, Reservation, Store, StoreError, Stored},
};

/// Parts of an upload that may wait for the disk, each of at most 1 MiB.
const UPLOAD_QUEUE: usize = 8;

impl LocalApi {
    /// Stores an upload, and shares it.
    pub(super) async fn receive_upload(
        &self,
        mut parts: Streaming<UploadRequest>,
    ) -> Result<UploadResponse, Status> {
        let first = parts.message().await?.and_then(|message| message.part);
        let Some(Part::Start(start)) = first else {
            return Err(Status::invalid_argument("the first part of an upload is its start"));
        };
        let pin = start.pin;
        if let Some(stored) = self.known(&start).await? {
            let response = self.uploaded(&stored);
            self.daemon.share(stored, pin, Options::default()).await?;
            return Ok(response);
        }
        let room = self.daemon.make_room(start.total_bytes).await?;
        let (to_disk, queue) = mpsc::channel(UPLOAD_QUEUE);
        let store = self.daemon.store.clone();
        let importing = spawn_blocking(move || import(room, &store, start, queue));
        while let Some(message) = parts.message().await? {
            let part = message
                .part
                .ok_or_else(|| Status::invalid_argument("a part of an upload has no kind"))?;
            if to_disk.send(part).await.is_err() {
                // The importer has failed, and reports why.
                break;
            }
        }
        drop(to_disk);
        let imported = importing.await.map_err(|_| Status::internal("the import failed"))?;
        let stored = imported?;
        let response = self.uploaded(&stored);
        self.daemon.share(stored, pin, Options::default()).await?;
        Ok(response)
    }

    /// The content that is about to be uploaded, if it is complete here already.
    async fn known(&self, start: &UploadStart) -> Result<Option<Arc<Stored>>, Status> {
        if start.content_id.is_empty() {
            return Ok(None);
        }
        let id = parse_id(&start.content_id)?;
        let find = move |store: &Store| match store.load(id) {
            Ok(stored) => Ok(stored.is_complete().then_some(stored)),
            Err(StoreError::Unknown(_)) => Ok(None),
            Err(error) => Err(error),
        };
        self.daemon.on_disk(find).await
    }

    fn uploaded(&self, stored: &Stored) -> UploadResponse {
        UploadResponse {
            content_id: stored.id().to_string(),
            link: self.link(stored.id()),
            bytes: stored.layout().total_bytes(),
        }
    }
}

/// Writes an upload as it arrives.
fn import(
    room: Reservation,
    store: &Arc<Store>,
    start: UploadStart,
    mut parts: mpsc::Receiver<Part>,
) -> Result<Arc<Stored>, Status> {
    let UploadStart { name, directory: is_directory, total_bytes, .. } = start;
    let piece_length = piece_length(start.piece_length)?;
    let plan = ImportPlan { name, is_directory, total_bytes, piece_length };
    let mut import = Import::start_within(room, store, plan)?;
    while let Some(part) = parts.blocking_recv() {
        match part {
            Part::Start(_) => return Err(Status::invalid_argument("an upload starts once")),
            Part::File(file) => import.file(file.path, file.size, file.executable)?,
            Part::Chunk(bytes) => import.chunk(&bytes)?,
            Part::EmptyDirectory(path) => import.empty_directory(path)?,
            Part::End(_) => return Ok(import.finish()?),
        }
    }
    // The part that has arrived is deleted with the import.
    Err(Status::aborted("the upload broke off before its end"))
}
