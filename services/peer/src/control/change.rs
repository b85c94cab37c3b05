//! `ControlService`: changes the peer's contents.

use std::{collections::BTreeSet, sync::Arc};

use shoal_common::{Address, address::AddressError};
use shoal_core::{
    content::{ContentId, Manifest, PieceLength},
    swarm::Priority,
};
use shoal_proto::control::v1::{
    FetchRequest, FetchResponse, PinRequest, PinResponse, PublishRequest, PublishResponse,
    RemoveRequest, RemoveResponse, UploadRequest, UploadResponse, UploadStart,
    control_service_server::ControlService, upload_request::Part,
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::{
    Desk, absolute,
    observe::unknown,
    parse_id,
    roots::{Caller, Purpose},
    wire,
};
use crate::{
    node::{StatusWatch, Stopped},
    options::Options,
    status::Phase,
    store::{
        Import, ImportPlan, Reservation, Store, StoreError, Stored, check_destination, hash_at,
    },
};

/// Parts of an upload that may wait for the disk, each of at most 1 MiB.
const UPLOAD_QUEUE: usize = 8;

#[tonic::async_trait]
impl ControlService for Desk {
    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<UploadResponse>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|message| message.part);
        let Some(Part::Start(start)) = first else {
            return Err(Status::invalid_argument("the first part of an upload is its start"));
        };
        let pin = start.pin;
        if let Some(stored) = self.known(&start).await? {
            let response = self.uploaded(&stored);
            self.share(stored, pin, Options::default()).await?;
            return Ok(Response::new(response));
        }
        let room = self.make_room(start.total_bytes).await?;
        let (to_disk, queue) = mpsc::channel(UPLOAD_QUEUE);
        let store = self.store.clone();
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
        self.share(stored, pin, Options::default()).await?;
        Ok(Response::new(response))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let place =
            self.roots.place(Purpose::Publish, absolute("path", &request.path)?, &caller)?;
        let piece_length = piece_length(request.piece_length)?;
        let options = Options { super_seeding: request.super_seeding, ..Options::default() };
        let noted = options.clone();
        // It may take hours, and is of no use once the caller has gone.
        let stop = self.store.stop().child_token();
        let _stop_with_the_call = stop.clone().drop_guard();
        let stored = self
            .on_disk(move |store| {
                let hashed = hash_at(&stop, &place, piece_length, |_| {})?;
                let stored = store.add_in_place(hashed)?;
                store.note_options(stored.id(), &noted)?;
                Ok(stored)
            })
            .await?;
        let response = PublishResponse {
            content_id: stored.id().to_string(),
            link: self.link(stored.id()),
            bytes: stored.layout().total_bytes(),
        };
        self.share(stored, false, options).await?;
        Ok(Response::new(response))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let id = parse_id(&request.content_id)?;
        let export_to = match request.export_to.as_str() {
            "" => None,
            path => {
                let path = absolute("export_to", path)?;
                Some(self.roots.place(Purpose::Export, path, &caller)?)
            }
        };
        let options = Options {
            trackers: addresses("trackers", &request.trackers)?,
            ring_nodes: addresses("dht", &request.dht)?,
            sequential: request.sequential,
            super_seeding: false,
            priorities: wire::priorities(request.priorities)?,
        };
        if let Some(destination) = export_to.clone() {
            self.on_disk(move |_| check_destination(&destination)).await?;
        }
        let pin = request.pin;
        let priorities = options.priorities.clone();
        self.on_disk(move |store| note_use(store, id, pin, priorities)).await?;
        self.asked.note(id);
        let watch = self.join(id, options, pin, Room::Made(BTreeSet::new())).await?;
        let complete = watch.borrow().phase == Phase::Seeding;
        match export_to {
            Some(destination) if complete => self.export(id, destination).await?,
            Some(destination) => {
                self.export_later(id, destination);
                // Now, if the store has it already; else once it has.
                let desk = self.clone();
                self.on_disk(move |_| desk.note_exports(id)).await?;
            }
            None => {}
        }
        Ok(Response::new(FetchResponse { complete }))
    }

    async fn pin(&self, request: Request<PinRequest>) -> Result<Response<PinResponse>, Status> {
        let PinRequest { content_id, pinned } = request.into_inner();
        let id = parse_id(&content_id)?;
        self.on_disk(move |store| store.pin(id, pinned)).await?;
        Ok(Response::new(PinResponse {}))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let id = parse_id(&request.get_ref().content_id)?;
        self.asked.forget(id);
        let was_in_swarm = self.node.remove(id).await?;
        match self.on_disk(move |store| store.remove(id)).await {
            // Its manifest was not found yet, so the store does not know it.
            Err(status) if status.code() == tonic::Code::NotFound && was_in_swarm => {}
            Err(status) if status.code() == tonic::Code::NotFound => return Err(unknown(id)),
            result => result?,
        }
        Ok(Response::new(RemoveResponse {}))
    }
}

/// Whether other contents are evicted for one that does not fit the quota.
pub(crate) enum Room {
    /// None.
    Free,
    /// The least recently used ones, except these.
    Made(BTreeSet<ContentId>),
}

impl Desk {
    /// Searches a content, and fetches it into the data directory.
    pub(crate) async fn join(
        &self,
        id: ContentId,
        options: Options,
        pin: bool,
        room: Room,
    ) -> Result<StatusWatch, Stopped> {
        let desk = self.clone();
        let noted = options.clone();
        let place = move |manifest: Manifest, hashes| {
            let room = match room {
                Room::Made(spared) if !desk.store.contains(id) => {
                    Some(desk.evict_for(&spared, manifest.layout().total_bytes())?)
                }
                Room::Made(_) | Room::Free => None,
            };
            let stored = desk.store.add_within(room, manifest, hashes)?;
            desk.store.note_options(id, &noted)?;
            desk.note_exports(id)?;
            if pin {
                desk.store.pin(id, true)?;
            }
            Ok(stored)
        };
        self.node.fetch(id, options, place).await
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
        self.on_disk(find).await
    }

    fn uploaded(&self, stored: &Stored) -> UploadResponse {
        UploadResponse {
            content_id: stored.id().to_string(),
            link: self.link(stored.id()),
            bytes: stored.layout().total_bytes(),
        }
    }

    /// Joins the swarm of a stored content.
    async fn share(&self, stored: Arc<Stored>, pin: bool, options: Options) -> Result<(), Status> {
        let id = stored.id();
        if pin {
            self.on_disk(move |store| store.pin(id, true)).await?;
        }
        self.node.add(stored, options).await?;
        Ok(())
    }

    /// Evicts the least recently used contents until there is room, and leaves their swarms.
    async fn make_room(&self, bytes: u64) -> Result<Reservation, Status> {
        let (evicted, room) = self.on_disk(move |store| store.make_room(bytes)).await?;
        for id in evicted {
            info!(content_id = %id, "evicted");
            self.node.remove(id).await?;
        }
        Ok(room)
    }

    /// The same, from a thread that may block.
    fn evict_for(
        &self,
        spared: &BTreeSet<ContentId>,
        bytes: u64,
    ) -> Result<Reservation, StoreError> {
        let (evicted, room) = self.store.make_room_beside(spared, bytes)?;
        for id in evicted {
            info!(content_id = %id, "evicted");
            let node = self.node.clone();
            tokio::spawn(async move { node.remove(id).await });
        }
        Ok(room)
    }
}

/// Notes that a content is wanted, if it is here: eviction spares it.
fn note_use(
    store: &Store,
    id: ContentId,
    pin: bool,
    priorities: Vec<(String, Priority)>,
) -> Result<(), StoreError> {
    if !store.contains(id) {
        return Ok(());
    }
    store.note_options(id, &Options { priorities, ..store.options(id)? })?;
    if pin {
        store.pin(id, true)?;
    }
    store.touch(id)
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

fn addresses(field: &str, texts: &[String]) -> Result<Vec<Address>, Status> {
    let parsed = texts.iter().map(|text| text.parse()).collect::<Result<_, AddressError>>();
    parsed.map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

/// A piece length of 0 means one that follows the size.
fn piece_length(bytes: u64) -> Result<Option<PieceLength>, Status> {
    if bytes == 0 {
        return Ok(None);
    }
    let length = PieceLength::new(bytes);
    length.map(Some).map_err(|error| Status::invalid_argument(format!("piece_length: {error}")))
}
