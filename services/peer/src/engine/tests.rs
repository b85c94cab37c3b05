//! The engine, its state machines and I/O threads; the test replaces tasks and neighbours.

use std::{fs, num::NonZeroUsize};

use shoal_common::{health::Health, supervisor::Supervisor};
use shoal_core::{
    PeerId,
    content::{Bitfield, Manifest, ManifestHashes, Metadata, PieceLength},
    peer_list::Origin,
    swarm::{FetchEnd, PeerMessage},
};
use shoal_proto::{
    peer::v1::{self as pb, LinkMessage, link_message::Kind},
    types::v1::Location,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tracing::Span;
use uuid::Uuid;

use super::*;
use crate::{
    link::{self, AdmittedLink, Handshake, LinkSender, LinkToken, wire::InLink},
    options::Options,
    status::Phase,
    store::{HashOptions, OneShot, hash},
    transfer::{self, Downloads, IoThreads, RateCap, Uploads},
};

const PIECE: u32 = PieceLength::MIN.get();
const BLOCK: u32 = 16 << 10;
const DEADLINE: Duration = Duration::from_secs(20);

/// An engine that fetches a content of two pieces, one of them of the manifest, and what reaches
/// it.
struct Bench {
    engine: Engine,
    content: ContentKey,
    manifest: Vec<u8>,
    bytes: Vec<u8>,
    queues: Queues,
    copy: OneShot,
    _directory: TempDir,
}

impl Bench {
    /// With the manifest.
    async fn new() -> Self {
        Self::with(PIECE, |manifest| Metadata::Manifest(manifest.clone())).await
    }

    /// With a file of this length, and what is made of its manifest.
    async fn with(length: u32, metadata: impl FnOnce(&Manifest) -> Metadata) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source");
        let mut bytes = vec![0; length as usize];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let hashed = hash(&path, &HashOptions::default(), |_| {}).unwrap();
        let manifest = hashed.manifest.encoded().to_vec();
        let destination = directory.path().join("copy");
        let copy = OneShot::begin(&destination, metadata(&hashed.manifest)).unwrap();

        let (senders, queues) = queues();
        let events = senders.transfers.clone();
        let data_plane = DataPlane {
            io_threads: Arc::new(IoThreads::start(NonZeroUsize::MIN).unwrap()),
            downloads: Downloads::new(events.clone(), RateCap::new(None), DEADLINE),
            uploads: Uploads::new(events, RateCap::new(None)),
            max_download: None,
        };
        let mut engine = Engine::new(Parts {
            settings: swarm::Settings::default(),
            peer_list: PeerListSettings::default(),
            identity: Arc::new(Identity {
                peer: PeerId::new(Uuid::from_u128(1)),
                address: "127.0.0.1:1".parse().unwrap(),
                location: Location::default(),
            }),
            directory: Arc::default(),
            data_plane,
            trackers: Vec::new(),
            ring_nodes: Vec::new(),
            senders,
            supervisor: Supervisor::new(Health::new(&[]).await),
            closing: CancellationToken::new(),
        });
        engine.add(copy.stored(), Options::default(), &Span::none());
        let content = *engine.contents.keys().next().unwrap();
        Self { engine, content, manifest, bytes, queues, copy, _directory: directory }
    }

    /// A link whose hellos were exchanged, and the messages to its neighbour.
    fn handshake(&self) -> (Handshake, mpsc::Receiver<LinkMessage>) {
        let (messages, sent) = mpsc::channel(64);
        let handshake = Handshake {
            content: self.content,
            peer: PeerId::new(Uuid::from_u128(2)),
            address: Some("127.0.0.1:2".parse().unwrap()),
            complete: true,
            serves_nothing: false,
            origin: Origin::Dialled("127.0.0.1:2".parse().unwrap()),
            round_trip: Duration::from_millis(1),
            our_token: LinkToken::random(),
            their_token: LinkToken::random(),
            sender: LinkSender::to(messages),
        };
        (handshake, sent)
    }

    /// The piece is requested from a neighbour on its link, because it cannot be dialled.
    fn ask_on_link(&mut self) -> (LinkKey, AdmittedLink, mpsc::Receiver<LinkMessage>, pb::Request) {
        let (handshake, mut sent) = self.handshake();
        let admitted = self.engine.admit(handshake).unwrap();
        let link = *self.engine.links.keys().next().unwrap();
        self.engine.undialable(link);
        let pieces = self.copy.stored().layout().piece_count();
        for message in [PeerMessage::Bitfield(Bitfield::full(pieces)), PeerMessage::Unchoke] {
            self.engine.handle_link(link::Event::Message { link, message });
        }
        let request = next_request(&mut sent);
        (link, admitted, sent, request)
    }

    fn block(&self, request: &pb::Request, number: u32, last: bool) -> InLink {
        let (offset, range) = (number * BLOCK, &request.ranges[0]);
        let bytes = if range.piece == 0 { &self.manifest } else { &self.bytes };
        let bytes = &bytes[offset as usize..];
        let data = bytes[..bytes.len().min(BLOCK as usize)].to_vec().into();
        let request_id = request.request_id;
        InLink::Block(pb::Block { request_id, piece: range.piece, offset, data, last })
    }

    /// How the fetch ended. Nothing more is reported about it.
    async fn end_of(&mut self, request: &pb::Request) -> FetchEnd {
        let end = loop {
            let event = timeout(DEADLINE, self.queues.transfers.recv()).await.unwrap().unwrap();
            if let transfer::Event::Swarm(Input::FetchEnded { fetch, end }) = event {
                assert_eq!(fetch.0, request.request_id);
                break end;
            }
        };
        while let Ok(event) = self.queues.transfers.try_recv() {
            let ended = matches!(event, transfer::Event::Swarm(Input::FetchEnded { .. }));
            assert!(!ended, "it ended twice");
        }
        end
    }
}

/// The next request among the messages to a neighbour.
fn next_request(sent: &mut mpsc::Receiver<LinkMessage>) -> pb::Request {
    loop {
        if let Some(Kind::Request(request)) = sent.try_recv().unwrap().kind {
            return request;
        }
    }
}

#[tokio::test]
async fn a_fetch_on_a_link_ends_once_whatever_the_neighbour_does() {
    type Act = fn(&mut Bench, LinkKey, &pb::Request);
    let acts: [(&str, Act, FetchEnd); 6] = [
        (
            "it sends all",
            |bench, link, request| {
                for number in 0..PIECE / BLOCK {
                    let block = bench.block(request, number, number == PIECE / BLOCK - 1);
                    bench.engine.in_link(link, block);
                }
            },
            FetchEnd::Done,
        ),
        (
            "it marks a block as the last too soon",
            |bench, link, request| {
                let block = bench.block(request, 0, true);
                bench.engine.in_link(link, block);
            },
            FetchEnd::Failed,
        ),
        (
            "it sends more than fits into the queue",
            |bench, link, request| {
                let request_id = request.request_id;
                let piece = request.ranges[0].piece;
                for _ in 0..1000 {
                    let empty = pb::Block { request_id, piece, ..pb::Block::default() };
                    bench.engine.in_link(link, InLink::Block(empty));
                }
            },
            FetchEnd::Failed,
        ),
        (
            "it sends more bytes than were requested",
            |bench, link, request| {
                let (request_id, piece) = (request.request_id, request.ranges[0].piece);
                let data = vec![0; PIECE as usize + 1].into();
                let block = pb::Block { request_id, piece, offset: 0, data, last: false };
                bench.engine.in_link(link, InLink::Block(block));
                assert!(bench.engine.links.is_empty(), "it breaks the protocol");
            },
            FetchEnd::Failed,
        ),
        (
            "it leaves",
            |bench, link, _| {
                bench.engine.handle_link(link::Event::Ended { link, offence: None });
            },
            FetchEnd::Failed,
        ),
        (
            "the fetch is cancelled",
            |bench, _, request| bench.engine.cancel_fetch(FetchKey(request.request_id)),
            FetchEnd::Failed,
        ),
    ];
    for (case, act, expected) in acts {
        let mut bench = Bench::new().await;
        let (link, _admitted, _sent, request) = bench.ask_on_link();
        act(&mut bench, link, &request);
        assert_eq!(bench.end_of(&request).await, expected, "{case}");
    }
}

#[tokio::test]
async fn a_failed_fetch_on_a_link_is_cancelled_there_and_forgotten() {
    let mut bench = Bench::new().await;
    let (link, _admitted, mut sent, request) = bench.ask_on_link();
    let ended = Input::FetchEnded { fetch: FetchKey(request.request_id), end: FetchEnd::Failed };
    bench.engine.transferred(transfer::Event::Swarm(ended));
    let is_cancelled = std::iter::from_fn(|| sent.try_recv().ok()).any(|message| {
        matches!(message.kind, Some(Kind::Cancel(cancel)) if cancel.request_id == request.request_id)
    });
    assert!(is_cancelled);
    assert!(bench.engine.fetches.is_empty() && bench.engine.links.contains_key(&link));
}

#[tokio::test]
async fn a_fetch_that_cannot_begin_ends_at_once() {
    let mut bench = Bench::new().await;
    let (link, ..) = bench.ask_on_link();
    // As if it had gone while the outputs of the state machine are carried out.
    let entry = bench.engine.links.remove(&link).unwrap();
    let outstanding =
        |bench: &Bench| bench.engine.swarm.link_status(link, Instant::now()).unwrap().outstanding;
    assert!(outstanding(&bench) > 0);
    let (fetch, _) = bench.engine.fetches.drain().next().unwrap();
    bench.engine.start_fetch(fetch, link, Vec::new(), BLOCK);
    assert_eq!(outstanding(&bench), 0);
    drop(entry);
}

/// What is known of a content whose manifest is fetched in pieces.
fn descriptor_only(manifest: &Manifest) -> Metadata {
    let hashes = ManifestHashes::of(manifest);
    Metadata::Descriptor(manifest.descriptor().clone(), hashes)
}

fn pieces(request: &pb::Request) -> Vec<u32> {
    request.ranges.iter().map(|range| range.piece).collect()
}

impl Bench {
    /// Handles events until the manifest was read.
    async fn read_manifest(&mut self) {
        loop {
            tokio::select! {
                event = self.queues.transfers.recv() => self.engine.transferred(event.unwrap()),
                event = self.queues.events.recv() => {
                    let event = event.unwrap();
                    let is_read = matches!(event, Event::ManifestRead { .. });
                    self.engine.handle(event);
                    if is_read {
                        return;
                    }
                }
                () = tokio::time::sleep(DEADLINE) => panic!("the manifest was not read"),
            }
            assert_eq!(self.phase(), Phase::Downloading, "the manifest is still missing");
        }
    }

    fn phase(&self) -> Phase {
        self.engine.status(self.content).phase
    }
}

#[tokio::test]
async fn the_pieces_of_a_manifest_are_fetched_first_and_read() {
    let mut bench = Bench::with(PIECE, descriptor_only).await;
    let (link, _admitted, mut sent, request) = bench.ask_on_link();
    assert_eq!(pieces(&request), [0], "where the others are is not known");
    let manifest = bench.block(&request, 0, true);
    bench.engine.in_link(link, manifest);
    bench.read_manifest().await;
    assert_eq!(bench.engine.status(bench.content).held_pieces, 1);
    let request = next_request(&mut sent);
    assert_eq!(pieces(&request), [1]);
    for number in 0..PIECE / BLOCK {
        let block = bench.block(&request, number, number == PIECE / BLOCK - 1);
        bench.engine.in_link(link, block);
    }
    while bench.phase() != Phase::Seeding {
        let event = timeout(DEADLINE, bench.queues.transfers.recv()).await.unwrap().unwrap();
        bench.engine.transferred(event);
    }
    let stored = bench.copy.stored();
    assert!(stored.is_complete() && stored.manifest().is_some());
}

#[tokio::test]
async fn a_content_without_bytes_is_complete_once_its_manifest_was_read() {
    let mut bench = Bench::with(0, descriptor_only).await;
    let (link, _admitted, _sent, request) = bench.ask_on_link();
    let manifest = bench.block(&request, 0, true);
    bench.engine.in_link(link, manifest);
    bench.read_manifest().await;
    assert_eq!(bench.phase(), Phase::Seeding);
    assert!(bench.copy.stored().is_complete());
}

#[tokio::test]
async fn a_link_ends_if_its_caller_goes_before_its_reader_starts() {
    // Before the engine accepts the link, and after.
    for is_early in [true, false] {
        let mut bench = Bench::new().await;
        let (handshake, _sent) = bench.handshake();
        let (admitted, answer) = oneshot::channel();
        let mut answer = Some(answer);
        if is_early {
            drop(answer.take());
        }
        bench.engine.handle_link(link::Event::Handshake(Box::new(handshake), admitted));
        drop(answer.take());
        assert_eq!(bench.engine.links.len(), 1);
        let event = timeout(DEADLINE, bench.queues.links.recv()).await.unwrap().unwrap();
        assert!(matches!(event, link::Event::Ended { offence: None, .. }));
        bench.engine.handle_link(event);
        assert!(bench.engine.links.is_empty(), "a ghost, early: {is_early}");
        assert!(bench.queues.links.try_recv().is_err(), "it ended twice");
        let (handshake, _sent) = bench.handshake();
        assert!(bench.engine.admit(handshake).is_ok(), "the same peer may come back");
    }
}
