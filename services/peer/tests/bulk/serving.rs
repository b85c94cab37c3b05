//! Calls for our blocks.

use std::{fs::File, time::Duration};

use bytes::Bytes;
use shoal_core::swarm::{Input, RefuseReason, ServeKey};
use shoal_peer::bulk::{Event, MAX_RANGES};
use shoal_proto::peer::v1::{PieceRange, RequestPieceRequest};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{CONTENT, LINK, PATIENCE, PIECE, Seeder};

/// Nothing more happens where nothing happened for so long.
const QUIET: Duration = Duration::from_millis(300);

/// Waits for a call, which the next event is to tell of.
async fn requested(seeder: &mut Seeder) -> ServeKey {
    match seeder.next().await {
        Event::Brain(Input::ServeRequested { serve, .. }) => serve,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_bytes_arrive_as_they_are_stored_in_the_order_asked() {
    let mut seeder = Seeder::start(PIECE as usize * 3 + 1000).await;
    let ranges = vec![
        PieceRange { piece: 3, offset: 0, length: 0 },
        PieceRange { piece: 0, offset: 16_384, length: 20_000 },
        PieceRange { piece: 1, offset: 0, length: PIECE },
    ];
    let request = RequestPieceRequest { ranges, block_length: 16_384, ..seeder.request(&[]) };
    let mut blocks = seeder.call(request).await.unwrap();
    match seeder.next().await {
        Event::Brain(Input::ServeRequested { serve, content, link, ranges }) => {
            assert_eq!((content, link, ranges.len()), (CONTENT, Some(LINK), 3));
            seeder.uploads.grant(serve, 1);
            seeder.uploads.grant(serve, 2);
        }
        other => panic!("{other:?}"),
    }
    let mut places = Vec::new();
    while let Some(block) = blocks.message().await.unwrap() {
        let start = (block.piece * PIECE + block.offset) as usize;
        assert_eq!(block.data, seeder.bytes[start..start + block.data.len()]);
        places.push((block.piece, block.offset, block.data.len()));
    }
    let whole = (0..4).map(|number| (1, number * 16_384, 16_384));
    let expected: Vec<_> =
        [(3, 0, 1000), (0, 16_384, 16_384), (0, 32_768, 3616)].into_iter().chain(whole).collect();
    assert_eq!(places, expected);

    let mut sent = 0;
    while let Ok(event) = timeout(QUIET, seeder.events.recv()).await {
        match event {
            Some(Event::Brain(Input::BlockSent { bytes, .. })) => sent += bytes,
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
                let start = (block.piece * PIECE + block.offset) as usize;
                assert_eq!(block.data, bytes[start..start + block.data.len()]);
            }
            Ok(None) => panic!("the call ended as if all were well"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Internal, "{error}");
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_words() {
    let seeder = Seeder::start(PIECE as usize + 1000).await;
    let good = seeder.request(&[0]);
    let range = |piece, offset, length| RequestPieceRequest {
        ranges: vec![PieceRange { piece, offset, length }],
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
async fn a_refusal_comes_after_what_was_granted_and_tells_why() {
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
            assert_eq!(blocks.message().await.unwrap().unwrap().piece, piece);
            assert!(matches!(seeder.next().await, Event::Brain(Input::BlockSent { .. })));
        }
        let refusal: Status = blocks.message().await.unwrap_err();
        assert_eq!(refusal.code(), code);
        let delay = refusal.get_details_retry_info().and_then(|details| details.retry_delay);
        assert_eq!(delay, (code == Code::ResourceExhausted).then_some(retry_after));
    }
}

#[tokio::test]
async fn a_call_whose_link_is_down_ends_without_a_word_to_the_brain() {
    let mut seeder = Seeder::start(PIECE as usize * 2).await;
    let mut blocks = seeder.call(seeder.request(&[0, 1])).await.unwrap();
    requested(&mut seeder).await;
    seeder.uploads.end_link(LINK);
    assert_eq!(blocks.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(timeout(QUIET, seeder.events.recv()).await.is_err());
}

#[tokio::test]
async fn a_dropped_call_is_sent_no_more_and_told_of() {
    let seeder = Seeder::start(PIECE as usize * 512).await;
    let pieces: Vec<u32> = (0..64).collect();
    let requests = [seeder.request(&pieces), seeder.request(&pieces)];
    let [first, second] = requests;
    // One that waits for its grant is told of as well.
    let mut blocks = seeder.call(first).await.unwrap();
    let serving = seeder.call(second).await;
    let sent = seeder.grant_until_dropped();
    blocks.message().await.unwrap().unwrap();
    drop(blocks);
    drop(serving);
    let sent = timeout(Duration::from_secs(5), sent).await.expect("told of in time").unwrap();
    assert!(sent < u64::from(PIECE) * 128, "{sent} bytes");
}

#[tokio::test]
async fn a_reader_that_stalls_holds_up_its_sender() {
    let mut seeder = Seeder::start(PIECE as usize * 64).await;
    let pieces: Vec<u32> = (0..64).collect();
    let mut blocks = seeder.call(seeder.request(&pieces)).await.unwrap();
    let serve = requested(&mut seeder).await;
    seeder.uploads.grant(serve, pieces.len());
    blocks.message().await.unwrap().unwrap();
    let mut sent = 0;
    while let Ok(Some(Event::Brain(Input::BlockSent { bytes, .. }))) =
        timeout(QUIET, seeder.events.recv()).await
    {
        sent += bytes;
    }
    // The window of 2 MiB, the block that was read, and what waits behind: 2 blocks.
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
async fn a_caller_that_takes_nothing_is_hung_up_on() {
    let mut seeder = Seeder::start(PIECE as usize * 64).await;
    let pieces: Vec<u32> = (0..64).collect();
    let mut blocks = seeder.call(seeder.request(&pieces)).await.unwrap();
    let serve = requested(&mut seeder).await;
    seeder.uploads.grant(serve, pieces.len());
    blocks.message().await.unwrap().unwrap();
    while !matches!(seeder.next().await, Event::Brain(Input::ServeDropped { .. })) {}
    while let Ok(block) = blocks.message().await {
        assert!(block.is_some(), "the call ended as if all were well");
    }
}

#[tokio::test]
async fn a_caller_that_waits_for_its_grant_is_not_hung_up_on() {
    let mut seeder = Seeder::start(PIECE as usize).await;
    let mut blocks = seeder.call(seeder.request(&[0])).await.unwrap();
    let serve = requested(&mut seeder).await;
    assert!(timeout(PATIENCE * 3, blocks.message()).await.is_err());
    seeder.uploads.grant(serve, 1);
    assert!(blocks.message().await.unwrap().is_some());
}
