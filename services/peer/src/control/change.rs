//! `ControlService`: changes the peer's contents.

use std::collections::BTreeSet;

use shoal_core::{Address, address::AddressError, content::ContentId, swarm::Priority};
use shoal_proto::control::v1::{
    FetchRequest, FetchResponse, LinkHandling, PinRequest, PinResponse, PublishRequest,
    PublishResponse, RemoveRequest, RemoveResponse, UploadRequest, UploadResponse,
    control_service_server::ControlService,
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    api::{LocalApi, absolute, either, parse_id, unknown},
    roots::{Caller, Purpose},
    wire::{self, piece_length},
};
use crate::{
    daemon::Room,
    options::Options,
    status::Phase,
    store::{HashOptions, Links, Store, StoreError, check_destination, hash_at},
};

#[tonic::async_trait]
impl ControlService for LocalApi {
    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<UploadResponse>, Status> {
        Ok(Response::new(self.receive_upload(request.into_inner()).await?))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let path = absolute("path", either(&request.path, &request.path_bytes))?;
        let rooted = self.roots.allow(Purpose::Publish, path, &caller)?;
        let name = either(&request.name, &request.name_bytes);
        let hash_options = HashOptions {
            piece_length: piece_length(request.piece_length)?,
            links: match request.links() {
                LinkHandling::Unspecified => Links::Follow,
                LinkHandling::Skip => Links::Skip,
                LinkHandling::Refuse => Links::Refuse,
            },
            preserve: request.preserve,
            name: (!name.is_empty()).then(|| name.to_vec()),
        };
        let options = Options { super_seeding: request.super_seeding, ..Options::default() };
        let noted = options.clone();
        // It may take hours, and is of no use once the caller has gone.
        let stop = self.daemon.store.stop().child_token();
        let _stop_with_the_call = stop.clone().drop_guard();
        let stored = self
            .daemon
            .on_disk(move |store| {
                let hashed = hash_at(&stop, &rooted, &hash_options, |_| {})?;
                let stored = store.add_in_place(hashed)?;
                store.note_options(stored.id(), &noted)?;
                Ok(stored)
            })
            .await?;
        let response = PublishResponse {
            content_id: stored.id().to_string(),
            link: self.link(stored.id()),
            bytes: stored.descriptor().blob_bytes(),
        };
        self.daemon.share(stored, false, options).await?;
        Ok(Response::new(response))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let id = parse_id(&request.content_id)?;
        let export_to = match either(&request.export_to, &request.export_to_bytes) {
            b"" => None,
            path => {
                let path = absolute("export_to", path)?;
                Some(self.roots.allow(Purpose::Export, path, &caller)?)
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
            self.daemon.on_disk(move |_| check_destination(&destination)).await?;
        }
        let pin = request.pin;
        let priorities = options.priorities.clone();
        self.daemon.on_disk(move |store| note_use(store, id, pin, priorities)).await?;
        self.daemon.requested.note(id);
        let watch = self.daemon.join(id, options, pin, Room::Made(BTreeSet::new())).await?;
        let complete = watch.borrow().phase == Phase::Seeding;
        match export_to {
            Some(destination) if complete => self.daemon.export(id, destination).await?,
            Some(destination) => {
                self.daemon.export_later(id, destination);
                // Now, if the store has it already; else once it has.
                let daemon = self.daemon.clone();
                self.daemon.on_disk(move |_| daemon.note_exports(id)).await?;
            }
            None => {}
        }
        Ok(Response::new(FetchResponse { complete }))
    }

    async fn pin(&self, request: Request<PinRequest>) -> Result<Response<PinResponse>, Status> {
        let PinRequest { content_id, pinned } = request.into_inner();
        let id = parse_id(&content_id)?;
        self.daemon.on_disk(move |store| store.pin(id, pinned)).await?;
        Ok(Response::new(PinResponse {}))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let id = parse_id(&request.get_ref().content_id)?;
        self.daemon.requested.forget(id);
        let was_in_swarm = self.daemon.node.remove(id).await?;
        match self.daemon.on_disk(move |store| store.remove(id)).await {
            // Its manifest was not found yet, so the store does not know it.
            Err(status) if status.code() == tonic::Code::NotFound && was_in_swarm => {}
            Err(status) if status.code() == tonic::Code::NotFound => return Err(unknown(id)),
            result => result?,
        }
        Ok(Response::new(RemoveResponse {}))
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

fn addresses(field: &str, texts: &[String]) -> Result<Vec<Address>, Status> {
    let parsed = texts.iter().map(|text| text.parse()).collect::<Result<_, AddressError>>();
    parsed.map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}
