//! Calls to neighbours for their blocks.

use std::{fs, time::Duration};

use bytes::Bytes;
use shoal_common::status::exhausted;
use shoal_core::swarm::{FetchEnd, Input};
use shoal_peer::transfer::Event;
use shoal_proto::peer::v1::RequestPieceResponse;
use tokio::{net::TcpListener, time::timeout};
use tonic::Status;

use crate::harness::{ATTEMPT, CONTENT, FIRST, LINK, Leecher, Listening, PIECE, Parrot, Seeder};

fn block(piece: u32, offset: u32, data: &[u8]) -> RequestPieceResponse {
    RequestPieceResponse {
        piece: FIRST.wrapping_add(piece),
        offset,
        data: Bytes::copy_from_slice(data),
    }
}

/// Fetches pieces 0 and 1 from a neighbour. Returns the events, and how the fetch ends.
async fn fetch_from(neighbour: &Listening, leecher: &mut Leecher) -> (Vec<Event>, FetchEnd) {
    let source = leecher.source(&neighbour.address);
    let _call = source.fetch(leecher.fetch_spec(&[0, 1]));
    leecher.until_end().await
}

#[tokio::test]
async fn fetched_blocks_are_stored_and_reported() {
    let seeder = Seeder::start(PIECE as usize * 40 + 777).await;
    let mut leecher = Leecher::start(&seeder);
    let source = leecher.source(&seeder.listening.address);
    let bytes = seeder.bytes.clone();
    let _serving = seeder.grant_all();
    let _call = source.fetch(leecher.fetch_spec(&(0..41).collect::<Vec<_>>()));
    let (events, end) = leecher.until_end().await;
    assert_eq!(end, FetchEnd::Done);
    let arrived: usize = events
        .iter()
        .map(|event| match event {
            Event::Swarm(Input::BlockArrived { block, .. }) => block.length as usize,
            Event::Swarm(Input::PieceStored { content: CONTENT, .. }) => 0,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(arrived, bytes.len());
    assert_eq!(leecher.answers, 1, "the answer to the call was timed");
    assert!(leecher.copy.stored().is_complete());
    assert_eq!(fs::read(leecher.copy.stored().path().join("blobs/1")).unwrap(), bytes);
}

#[tokio::test]
async fn a_neighbour_that_sends_an_unrequested_block_is_reported() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let whole = &seeder.bytes[..PIECE as usize];
    for (case, messages) in [
        ("another piece", vec![block(1, 0, whole)]),
        ("a nonexistent piece", vec![block(u32::MAX - FIRST, 0, whole)]),
        ("another offset", vec![block(0, 16_384, &whole[16_384..32_768])]),
        ("more than a piece", vec![block(0, 0, &seeder.bytes[..PIECE as usize * 2])]),
        ("part of a block", vec![block(0, 0, &whole[..100])]),
        ("nothing", vec![block(0, 0, &[])]),
        ("a block twice", vec![block(0, 0, &whole[..16_384]), block(0, 0, &whole[..16_384])]),
    ] {
        let neighbour = Parrot::saying(messages.into_iter().map(Ok).collect()).await;
        let mut leecher = Leecher::start(&seeder);
        let (_, end) = fetch_from(&neighbour, &mut leecher).await;
        assert_eq!(end, FetchEnd::Failed, "{case}");
        let next = leecher.next().await;
        assert!(matches!(next, Event::ProtocolBroken { link: LINK }), "{case}: {next:?}");
    }
}

#[tokio::test]
async fn a_message_longer_than_a_block_fails_the_fetch() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let neighbour = Parrot::saying(vec![Ok(block(0, 0, &vec![0; 300 << 10]))]).await;
    let (events, end) = fetch_from(&neighbour, &mut Leecher::start(&seeder)).await;
    assert_eq!((events.len(), end), (0, FetchEnd::Failed));
}

#[tokio::test]
async fn a_neighbour_that_ends_early_fails_the_fetch() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let neighbour = Parrot::saying(vec![Ok(block(0, 0, &seeder.bytes[..PIECE as usize]))]).await;
    let (_, end) = fetch_from(&neighbour, &mut Leecher::start(&seeder)).await;
    assert_eq!(end, FetchEnd::Failed);
}

#[tokio::test]
async fn a_neighbour_that_stops_sending_fails_the_fetch() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let first = block(0, 0, &seeder.bytes[..PIECE as usize]);
    let neighbour = Parrot::falling_silent_after(vec![first]).await;
    let (events, end) = fetch_from(&neighbour, &mut Leecher::start(&seeder)).await;
    assert_eq!((events.len(), end), (2, FetchEnd::Failed));
}

#[tokio::test]
async fn an_unreachable_neighbour_fails_the_fetch() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut leecher = Leecher::start(&seeder);
    let _call = leecher.source(&free.into()).fetch(leecher.fetch_spec(&[0]));
    assert_eq!(leecher.until_end().await.1, FetchEnd::Failed);
}

#[tokio::test]
async fn the_only_sender_of_a_corrupt_piece_is_named() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let wrong = vec![0; PIECE as usize];
    let messages = vec![Ok(block(0, 0, &wrong)), Ok(block(1, 0, &wrong))];
    let neighbour = Parrot::saying(messages).await;
    let mut leecher = Leecher::start(&seeder);
    let (events, end) = fetch_from(&neighbour, &mut leecher).await;
    assert_eq!(end, FetchEnd::Done);
    assert_eq!(events.len(), 4);
    for of_piece in events.chunks(2) {
        let [
            Event::Swarm(Input::BlockArrived { .. }),
            Event::Swarm(Input::PieceCorrupt { content: CONTENT, attempt, contributors, .. }),
        ] = of_piece
        else {
            panic!("{of_piece:?}");
        };
        assert_eq!((*attempt, contributors.as_slice()), (ATTEMPT, [LINK].as_slice()));
    }
    assert_eq!(leecher.copy.stored().held_bytes(), 0);
}

#[tokio::test]
async fn a_refusal_says_when_to_retry() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let refused = |millis| FetchEnd::Refused { retry_after: Duration::from_millis(millis) };
    for (status, expected) in [
        (Status::aborted("choked"), refused(500)),
        (exhausted("busy", Duration::from_secs(3)), refused(3000)),
        (exhausted("for ever", Duration::from_secs(1 << 30)), refused(60_000)),
        (Status::not_found("not held"), FetchEnd::Failed),
        (Status::unavailable("stopping"), FetchEnd::Failed),
    ] {
        let neighbour = Parrot::saying(vec![Err(status)]).await;
        let (_, end) = fetch_from(&neighbour, &mut Leecher::start(&seeder)).await;
        assert_eq!(end, expected);
    }
}

#[tokio::test]
async fn a_cancelled_fetch_is_dropped_and_ends_once() {
    let seeder = Seeder::start(PIECE as usize * 64).await;
    let mut leecher = Leecher::start(&seeder);
    let source = leecher.source(&seeder.listening.address);
    let call = source.fetch(leecher.fetch_spec(&(0..64).collect::<Vec<_>>()));
    let serving = seeder.grant_until_dropped();
    assert!(matches!(leecher.next().await, Event::Swarm(Input::BlockArrived { .. })));
    drop(call);
    assert_eq!(leecher.until_end().await.1, FetchEnd::Failed);
    timeout(Duration::from_secs(5), serving).await.expect("the call is dropped in time").unwrap();
    assert!(leecher.events.try_recv().is_err(), "an event came after the end");
}

#[tokio::test]
async fn a_fetch_ends_with_its_io_thread() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let neighbour = Parrot::falling_silent_after(Vec::new()).await;
    let mut leecher = Leecher::start(&seeder);
    let source = leecher.source(&neighbour.address);
    let _call = source.fetch(leecher.fetch_spec(&[0, 1]));
    leecher.stop_io_threads();
    assert_eq!(leecher.until_end().await.1, FetchEnd::Failed);
}

#[tokio::test]
async fn several_neighbours_and_calls_share_a_download() {
    let seeder = Seeder::start(PIECE as usize * 64).await;
    let bytes = seeder.bytes.clone();
    let mut leecher = Leecher::start(&seeder);
    let address = seeder.listening.address.clone();
    let _serving = seeder.grant_all();
    let sources = [leecher.source(&address), leecher.source(&address)];
    let pieces: Vec<u32> = (0..64).collect();
    let calls: Vec<_> = pieces
        .chunks(8)
        .zip(sources.iter().cycle())
        .map(|(pieces, source)| source.fetch(leecher.fetch_spec(pieces)))
        .collect();
    for _ in &calls {
        assert_eq!(leecher.until_end().await.1, FetchEnd::Done);
    }
    assert_eq!(fs::read(leecher.copy.stored().path().join("blobs/1")).unwrap(), bytes);
}

#[tokio::test]
async fn a_block_that_cannot_be_stored_stops_the_download() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let mut leecher = Leecher::start(&seeder);
    fs::remove_dir_all(leecher.copy.stored().path().parent().unwrap()).unwrap();
    let source = leecher.source(&seeder.listening.address);
    let call = leecher.fetch_spec(&[0]);
    let _serving = seeder.grant_all();
    let _call = source.fetch(call);
    assert_eq!(leecher.until_end().await.1, FetchEnd::Failed);
    assert!(matches!(leecher.next().await, Event::StoreFailed { content: CONTENT, .. }));
}
