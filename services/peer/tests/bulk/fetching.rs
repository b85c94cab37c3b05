//! Calls of ours.

use std::{fs, time::Duration};

use bytes::Bytes;
use shoal_common::status::exhausted;
use shoal_core::swarm::{FetchEnd, Input};
use shoal_peer::bulk::Event;
use shoal_proto::peer::v1::RequestPieceResponse;
use tokio::{net::TcpListener, time::timeout};
use tonic::Status;

use crate::harness::{ATTEMPT, CONTENT, LINK, Leecher, Listening, PIECE, Parrot, Seeder};

fn block(piece: u32, offset: u32, data: &[u8]) -> RequestPieceResponse {
    RequestPieceResponse { piece, offset, data: Bytes::copy_from_slice(data) }
}

/// What is told of a fetch of pieces 0 and 1 that this neighbour answers, and how it ends.
async fn fetch_from(neighbour: &Listening, leecher: &mut Leecher) -> (Vec<Event>, FetchEnd) {
    let source = leecher.source(&neighbour.address);
    let _call = source.fetch(leecher.order(&[0, 1]));
    leecher.until_end().await
}

#[tokio::test]
async fn what_is_fetched_is_stored_and_told_of() {
    let seeder = Seeder::start(PIECE as usize * 40 + 777).await;
    let mut leecher = Leecher::start(&seeder);
    let source = leecher.source(&seeder.listening.address);
    let bytes = seeder.bytes.clone();
    let _serving = seeder.grant_all();
    let _call = source.fetch(leecher.order(&(0..41).collect::<Vec<_>>()));
    let (told, end) = leecher.until_end().await;
    assert_eq!(end, FetchEnd::Done);
    let arrived: usize = told
        .iter()
        .map(|event| match event {
            Event::Brain(Input::BlockArrived { block, .. }) => block.length as usize,
            Event::Brain(Input::PieceStored { content: CONTENT, .. }) => 0,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(arrived, bytes.len());
    assert_eq!(leecher.answers, 1, "the answer to the call was timed");
    assert!(leecher.copy.stored().is_complete());
    assert_eq!(fs::read(leecher.copy.stored().path()).unwrap(), bytes);
}

#[tokio::test]
async fn a_neighbour_that_sends_what_was_not_asked_for_is_told_of() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let whole = &seeder.bytes[..PIECE as usize];
    for (case, messages) in [
        ("another piece", vec![block(1, 0, whole)]),
        ("a piece that is not there", vec![block(u32::MAX, 0, whole)]),
        ("another offset", vec![block(0, 16_384, &whole[16_384..32_768])]),
        ("more than a piece", vec![block(0, 0, &seeder.bytes[..PIECE as usize * 2])]),
        ("crumbs", vec![block(0, 0, &whole[..100])]),
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
    let (told, end) = fetch_from(&neighbour, &mut Leecher::start(&seeder)).await;
    assert_eq!((told.len(), end), (0, FetchEnd::Failed));
}

#[tokio::test]
async fn a_neighbour_that_ends_early_fails_the_fetch() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let neighbour = Parrot::saying(vec![Ok(block(0, 0, &seeder.bytes[..PIECE as usize]))]).await;
    let (_, end) = fetch_from(&neighbour, &mut Leecher::start(&seeder)).await;
    assert_eq!(end, FetchEnd::Failed);
}

#[tokio::test]
async fn a_neighbour_that_falls_silent_fails_the_fetch() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let first = block(0, 0, &seeder.bytes[..PIECE as usize]);
    let neighbour = Parrot::falling_silent_after(vec![first]).await;
    let (told, end) = fetch_from(&neighbour, &mut Leecher::start(&seeder)).await;
    assert_eq!((told.len(), end), (2, FetchEnd::Failed));
}

#[tokio::test]
async fn a_neighbour_that_is_not_there_fails_the_fetch() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut leecher = Leecher::start(&seeder);
    let _call = leecher.source(&free.into()).fetch(leecher.order(&[0]));
    assert_eq!(leecher.until_end().await.1, FetchEnd::Failed);
}

#[tokio::test]
async fn who_alone_sent_a_corrupt_piece_is_named() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let wrong = vec![0; PIECE as usize];
    let messages = vec![Ok(block(0, 0, &wrong)), Ok(block(1, 0, &wrong))];
    let neighbour = Parrot::saying(messages).await;
    let mut leecher = Leecher::start(&seeder);
    let (told, end) = fetch_from(&neighbour, &mut leecher).await;
    assert_eq!(end, FetchEnd::Done);
    assert_eq!(told.len(), 4);
    for of_piece in told.chunks(2) {
        let [
            Event::Brain(Input::BlockArrived { .. }),
            Event::Brain(Input::PieceCorrupt { content: CONTENT, attempt, contributors, .. }),
        ] = of_piece
        else {
            panic!("{of_piece:?}");
        };
        assert_eq!((*attempt, contributors.as_slice()), (ATTEMPT, [LINK].as_slice()));
    }
    assert_eq!(leecher.copy.stored().held_bytes(), 0);
}

#[tokio::test]
async fn a_refusal_says_when_to_ask_again() {
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
    let call = source.fetch(leecher.order(&(0..64).collect::<Vec<_>>()));
    let serving = seeder.grant_until_dropped();
    assert!(matches!(leecher.next().await, Event::Brain(Input::BlockArrived { .. })));
    drop(call);
    assert_eq!(leecher.until_end().await.1, FetchEnd::Failed);
    timeout(Duration::from_secs(5), serving).await.expect("dropped in time").unwrap();
    assert!(leecher.events.try_recv().is_err(), "nothing is told after the end");
}

#[tokio::test]
async fn a_fetch_whose_lane_ends_has_ended_too() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let neighbour = Parrot::falling_silent_after(Vec::new()).await;
    let mut leecher = Leecher::start(&seeder);
    let source = leecher.source(&neighbour.address);
    let _call = source.fetch(leecher.order(&[0, 1]));
    leecher.stop_lanes();
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
        .map(|(pieces, source)| source.fetch(leecher.order(pieces)))
        .collect();
    for _ in &calls {
        assert_eq!(leecher.until_end().await.1, FetchEnd::Done);
    }
    assert_eq!(fs::read(leecher.copy.stored().path()).unwrap(), bytes);
}

#[tokio::test]
async fn a_block_that_cannot_be_kept_stops_the_download() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let mut leecher = Leecher::start(&seeder);
    fs::remove_dir_all(leecher.copy.stored().path().parent().unwrap()).unwrap();
    let source = leecher.source(&seeder.listening.address);
    let call = leecher.order(&[0]);
    let _serving = seeder.grant_all();
    let _call = source.fetch(call);
    assert_eq!(leecher.until_end().await.1, FetchEnd::Failed);
    assert!(matches!(leecher.next().await, Event::StoreFailed { content: CONTENT, .. }));
}
