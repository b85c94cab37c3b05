//! Calls of neighbours for our blocks.

use std::{fs::File, time::Duration};

use bytes::Bytes;
use shoal_core::swarm::{Input, RefuseReason, ServeKey};
use shoal_peer::transfer::{Event, MAX_RANGES};
use shoal_proto::peer::v1::{PieceRange, RequestPieceRequest};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{CONTENT, FIRST, LINK, PATIENCE, PIECE, Seeder};

/// When there was no event for so long, there are no more.
const QUIET: Duration = Duration::from_millis(300);

/// Waits for a call; the next event must report it.
async fn requested(seeder: &mut Seeder) -> ServeKey {
    match seeder.next().await {
        Event::Swarm(Input::ServeRequested { serve, .. }) => serve,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_stored_bytes_arrive_in_the_requested_order() {
    let mut seeder = Seeder::start(PIECE as usize * 3 + 1000).await;
    let ranges = vec![
        PieceRange { piece: FIRST + 3, offset: 0, length: 0 },
        PieceRange { piece: FIRST, offset: 16_384, length: 20_000 },
        PieceRange { piece: FIRST + 1, offset: 0, length: PIECE },
    ];
    let request = RequestPieceRequest { ranges, block_length: 16_384, ..seeder.request(&[]) };
    let mut blocks = seeder.call(request).await.unwrap();
    match seeder.next().await {
        Event::Swarm(Input::ServeRequested { serve, content, link, ranges }) => {
            assert_eq!((content, link, ranges.len()), (CONTENT, Some(LINK), 3));
            seeder.uploads.grant(serve, 1);
            seeder.uploads.grant(serve, 2);
        }
        other => panic!("{other:?}"),
    }
    let mut blocks_read = Vec::new();
    while let Some(block) = blocks.message().await.unwrap() {
        let start = ((block.piece - FIRST) * PIECE + block.offset) as usize;
        assert_eq!(block.data, seeder.bytes[start..start + block.data.len()]);
        blocks_read.push((block.piece - FIRST, block.offset, block.data.len()));
    }
    let whole = (0..4).map(|number| (1, number * 16_384, 16_384));
    let expected: Vec<_> =
        [(3, 0, 1000), (0, 16_384, 16_384), (0, 32_768, 3616)].into_iter().chain(whole).collect();
    assert_eq!(blocks_read, expected);

    let mut sent = 0;
    while let Ok(event) = timeout(QUIET, seeder.events.recv()).await {
        match event {
            Some(Event::Swarm(Input::BlockSent { bytes, .. })) => sent += bytes,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, 1000 + 20_000 + PIECE);
}

#[tokio::test]
async fn a_truncated_source_ends_in_an_error_and_never_in_wrong_bytes() {
    let seeder = Seeder::start(PIECE as usize * 4).await;
    let file = File::options().write(true).open(seeder.directory.path().join("source")).unwrap();
    file.set_len(u64::from(PIECE) * 2 + 100).unwrap();
    let mut blocks = seeder.call(seeder.request(&[0, 1, 2, 3])).await.unwrap();
    let bytes = seeder.bytes.clone();
    let _granting = seeder.grant_all();
    let error = loop {
        match blocks.message().await {
            Ok(Some(block)) => {
                let start = ((block.piece - FIRST) * PIECE + block.offset) as usize;
                assert_eq!(block.data, bytes[start..start + block.data.len()]);
            }
            Ok(None) => panic!("the call ended without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Internal, "{error}");
}

#[tokio::test]
async fn requests_that_cannot_be_served_are_refused_with_the_reason() {
    let seeder = Seeder::start(PIECE as usize + 1000).await;
    let good = seeder.request(&[0]);
    let range = |piece, offset, length| RequestPieceRequest {
        ranges: vec![PieceRange { piece: FIRST + piece, offset, length }],
        ..good.clone()
    };
    let cases = [
        (RequestPieceRequest { content_id: "x".into(), ..good.clone() }, Code::InvalidArgument),
        (RequestPieceRequest { content_id: "0".repeat(64), ..good.clone() }, Code::NotFound),
        (seeder.request(&[]), Code::InvalidArgument),
        (seeder.request(&[0; MAX_RANGES + 1]), Code::InvalidArgument),
        (range(2, 0, 0), Code::OutOfRange),
        (range(1, 1000, 0), Code::OutOfRange),
        (range(0, 1, PIECE), Code::OutOfRange),
        (range(0, u32::MAX, u32::MAX), Code::OutOfRange),
        (RequestPieceRequest { block_length: 1000, ..good.clone() }, Code::InvalidArgument),
        (RequestPieceRequest { block_length: 512 << 10, ..good.clone() }, Code::InvalidArgument),
        (
            RequestPieceRequest { link_token: Bytes::from_static(b"no"), ..good.clone() },
            Code::Unauthenticated,
        ),
    ];
    for (request, code) in cases {
        let refusal = seeder.call(request.clone()).await.expect_err("a refusal");
        assert_eq!(refusal.code(), code, "{refusal}: {request:?}");
        assert!(!refusal.message().is_empty());
    }
}

#[tokio::test]
async fn a_refusal_comes_after_the_granted_blocks_and_gives_the_reason() {
    let mut seeder = Seeder::start(PIECE as usize * 3).await;
    let retry_after = Duration::from_secs(3);
    for (reason, code) in [
        (RefuseReason::Choked, Code::Aborted),
        (RefuseReason::Busy { retry_after }, Code::ResourceExhausted),
        (RefuseReason::NotHeld, Code::NotFound),
    ] {
        let mut blocks = seeder.call(seeder.request(&[0, 1, 2])).await.unwrap();
        let serve = requested(&mut seeder).await;
        seeder.uploads.grant(serve, 2);
        seeder.uploads.refuse(serve, reason);
        for piece in 0..2 {
            assert_eq!(blocks.message().await.unwrap().unwrap().piece, FIRST + piece);
            assert!(matches!(seeder.next().await, Event::Swarm(Input::BlockSent { .. })));
        }
        let refusal: Status = blocks.message().await.unwrap_err();
        assert_eq!(refusal.code(), code);
        let delay = refusal.get_details_retry_info().and_then(|details| details.retry_delay);
        assert_eq!(delay, (code == Code::ResourceExhausted).then_some(retry_after));
    }
}

#[tokio::test]
async fn a_call_whose_link_is_down_ends_without_an_event_to_the_state_machine() {
    let mut seeder = Seeder::start(PIECE as usize * 2).await;
    let mut blocks = seeder.call(seeder.request(&[0, 1])).await.unwrap();
    requested(&mut seeder).await;
    seeder.uploads.end_link(LINK);
    assert_eq!(blocks.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(timeout(QUIET, seeder.events.recv()).await.is_err());
}

#[tokio::test]
async fn a_dropped_call_is_sent_no_more_and_reported() {
    let seeder = Seeder::start(PIECE as usize * 512).await;
    let pieces: Vec<u32> = (0..64).collect();
    let requests = [seeder.request(&pieces), seeder.request(&pieces)];
    let [first, second] = requests;
    // A call that waits for its grant is reported too.
    let mut blocks = seeder.call(first).await.unwrap();
    let serving = seeder.call(second).await;
    let sent = seeder.grant_until_dropped();
    blocks.message().await.unwrap().unwrap();
    drop(blocks);
    drop(serving);
    let sent =
        timeout(Duration::from_secs(5), sent).await.expect("the drop is reported in time").unwrap();
    assert!(sent < u64::from(PIECE) * 128, "{sent} bytes");
}

#[tokio::test]
async fn a_stalled_reader_stops_its_sender() {
    let mut seeder = Seeder::start(PIECE as usize * 64).await;
    let pieces: Vec<u32> = (0..64).collect();
    let mut blocks = seeder.call(seeder.request(&pieces)).await.unwrap();
    let serve = requested(&mut seeder).await;
    seeder.uploads.grant(serve, pieces.len());
    blocks.message().await.unwrap().unwrap();
    let mut sent = 0;
    while let Ok(Some(Event::Swarm(Input::BlockSent { bytes, .. }))) =
        timeout(QUIET, seeder.events.recv()).await
    {
        sent += bytes;
    }
    // The window of 2 MiB, the block that was read, and 2 queued blocks.
    assert!(sent <= (2 << 20) + 3 * PIECE, "{sent} bytes");

    let mut received = PIECE;
    let reading = async {
        while let Some(block) = blocks.message().await.unwrap() {
            received += block.data.len() as u32;
        }
    };
    let events = async { while seeder.events.recv().await.is_some() {} };
    tokio::select! {
        () = reading => {}
        () = events => {}
    }
    assert_eq!(received, 64 * PIECE);
}

#[tokio::test]
async fn a_caller_that_takes_nothing_is_disconnected() {
    let mut seeder = Seeder::start(PIECE as usize * 64).await;
    let pieces: Vec<u32> = (0..64).collect();
    let mut blocks = seeder.call(seeder.request(&pieces)).await.unwrap();
    let serve = requested(&mut seeder).await;
    seeder.uploads.grant(serve, pieces.len());
    blocks.message().await.unwrap().unwrap();
    while !matches!(seeder.next().await, Event::Swarm(Input::ServeDropped { .. })) {}
    while let Ok(block) = blocks.message().await {
        assert!(block.is_some(), "the call ended without an error");
    }
}

#[tokio::test]
async fn a_caller_that_waits_for_its_grant_is_not_disconnected() {
    let mut seeder = Seeder::start(PIECE as usize).await;
    let mut blocks = seeder.call(seeder.request(&[0])).await.unwrap();
    let serve = requested(&mut seeder).await;
    assert!(timeout(PATIENCE * 3, blocks.message()).await.is_err());
    seeder.uploads.grant(serve, 1);
    assert!(blocks.message().await.unwrap().is_some());
}
