//! Uploads: contents that a client streams in.

use std::sync::Arc;

use shoal_core::content::{ContentId, Descriptor, Manifest};
use shoal_proto::control::v1::{UploadRequest, UploadResponse, UploadStart, upload_request::Part};
use tokio::{sync::mpsc, task::spawn_blocking};
use tonic::{Status, Streaming};

use super::api::LocalApi;
use crate::{
    options::Options,
    store::{Import, Reservation, Store, StoreError, Stored},
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
        let UploadStart { descriptor, pin } = start;
        let descriptor = Descriptor::decode(&descriptor).map_err(StoreError::from)?;
        if let Some(stored) = self.known(descriptor.id()).await? {
            let response = self.uploaded(&stored);
            self.daemon.share(stored, pin, Options::default()).await?;
            return Ok(response);
        }
        let room = self.daemon.make_room(descriptor.disk_bytes()).await?;
        let (to_disk, queue) = mpsc::channel(UPLOAD_QUEUE);
        let store = self.daemon.store.clone();
        let importing = spawn_blocking(move || import(room, &store, descriptor, queue));
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
    async fn known(&self, id: ContentId) -> Result<Option<Arc<Stored>>, Status> {
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
            bytes: stored.descriptor().blob_bytes(),
        }
    }
}

/// Writes an upload as it arrives.
fn import(
    room: Reservation,
    store: &Arc<Store>,
    descriptor: Descriptor,
    mut parts: mpsc::Receiver<Part>,
) -> Result<Arc<Stored>, Status> {
    let mut encoded = Vec::new();
    while (encoded.len() as u64) < descriptor.manifest_bytes() {
        match parts.blocking_recv() {
            Some(Part::Manifest(bytes)) => encoded.extend_from_slice(&bytes),
            Some(_) => {
                return Err(Status::invalid_argument("the manifest of an upload comes first"));
            }
            None => return Err(ended_early()),
        }
    }
    let manifest = Manifest::decode(descriptor, encoded).map_err(StoreError::from)?;
    let mut import = Import::start_within(room, store, manifest)?;
    loop {
        match parts.blocking_recv() {
            Some(Part::Chunk(bytes)) => import.chunk(&bytes)?,
            Some(Part::End(_)) => return Ok(import.finish()?),
            Some(Part::Start(_) | Part::Manifest(_)) => {
                return Err(Status::invalid_argument("an upload has one start and one manifest"));
            }
            // The part that has arrived is deleted with the import.
            None => return Err(ended_early()),
        }
    }
}

fn ended_early() -> Status {
    Status::aborted("the upload broke off before its end")
}
