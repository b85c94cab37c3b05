//! Blocks from a neighbour: a fetch reads the same as prost, however the bytes are split into
//! frames, and accepts the requested blocks, each byte once.

#![no_main]

use std::collections::VecDeque;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use shoal_common::fuzzing::Receiver;
use shoal_core::{
    content::{BLOCK_UNIT, BlockRange, Layout, PieceLength},
    swarm::{Attempt, FetchRange},
};
use shoal_fuzz::{HEAD_BYTES, cut, framed, receive};
use shoal_peer::fuzzing::{MAX_MESSAGE_BYTES, asked, read_blocks, take_block, write_block};
use shoal_proto::peer::v1::{PieceRange, RequestPieceRequest, RequestPieceResponse};

/// Two pieces.
const MANIFEST_BYTES: u64 = 300_000;

/// Of three pieces and of one.
const BLOBS: [u64; 2] = [150_000, 5];

const BLOB_PIECES: u32 = 4;

#[derive(Arbitrary, Debug)]
struct Fetch<'a> {
    /// The manifest is known, not only its length.
    known: bool,
    ranges: Vec<Requested>,
    sent: Vec<Sent<'a>>,
    /// Any bytes after the whole messages.
    rest: &'a [u8],
    cuts: &'a [u8],
}

#[derive(Arbitrary, Debug)]
struct Requested {
    piece: u8,
    unit: u8,
    /// None: to the piece's end.
    units: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum Sent<'a> {
    /// The next requested block, or its first units, as our server sends it.
    Next(u8),
    Block {
        piece: u8,
        offset: u32,
        data: &'a [u8],
    },
    Bytes(&'a [u8]),
}

fuzz_target!(|fetch: Fetch| {
    let piece_length = PieceLength::MIN;
    let layout = if fetch.known {
        Layout::new(MANIFEST_BYTES, piece_length, BLOBS)
    } else {
        Layout::of_manifest(MANIFEST_BYTES, piece_length, BLOB_PIECES)
    };
    let layout = layout.expect("a valid layout");
    let ranges = fetch.ranges.iter().map(|range| PieceRange {
        piece: u32::from(range.piece) % (layout.piece_count() + 1),
        offset: u32::from(range.unit % 17) * BLOCK_UNIT,
        length: range.units.map_or(0, |units| u32::from(units % 17) * BLOCK_UNIT),
    });
    let request = RequestPieceRequest { ranges: ranges.collect(), ..Default::default() };
    let path = "/shoal.peer.v1.PeerService/RequestPiece";
    let parse = |message| asked(message, &layout);
    let asked = receive(path, Receiver::Server, &request.encode_to_vec(), parse);
    let ranges = asked.unwrap_or_default().into_iter();
    let ranges = ranges.inspect(|range| {
        assert!(range.piece.get() < layout.known_pieces(), "its place is not known");
        assert!(range.length > 0 && range.end() <= layout.length_of(range.piece));
    });
    let ranges: VecDeque<_> =
        ranges.map(|range| FetchRange { attempt: Attempt(1), range }).collect();

    let mut body = Vec::new();
    let mut to_come = ranges.clone();
    for sent in &fetch.sent {
        body.extend(framed(&message(sent, &mut to_come)));
    }
    body.extend(fetch.rest);
    let (blocks, ended) = read_blocks(cut(&body, fetch.cuts));
    let (read_by_prost, is_sound) = read_by_prost(&body);
    assert_eq!(blocks, read_by_prost);
    assert_eq!(ended.is_ok(), is_sound, "{ended:?}");
    assert_taken_once(ranges, &blocks);
});

/// The message of a block. A requested block is removed from `to_come`.
fn message(sent: &Sent, to_come: &mut VecDeque<FetchRange>) -> Vec<u8> {
    match sent {
        Sent::Next(units) => {
            let Some(FetchRange { range, .. }) = to_come.front() else { return Vec::new() };
            let length = (u32::from(units % 4) + 1) * BLOCK_UNIT;
            let block = BlockRange { length: length.min(range.length), ..*range };
            let data = vec![*units; block.length as usize];
            let message = write_block(block, &data);
            let read = RequestPieceResponse::decode(&*message).expect("prost reads it");
            assert_eq!(read.data, data);
            assert_eq!(take_block(to_come, &read), Some(block), "a requested block is accepted");
            message
        }
        Sent::Block { piece, offset, data } => {
            let (piece, offset) = (u32::from(*piece), *offset);
            RequestPieceResponse { piece, offset, data: data.to_vec().into() }.encode_to_vec()
        }
        Sent::Bytes(bytes) => bytes.to_vec(),
    }
}

/// The blocks before the first invalid one, and whether all are valid. A body that ends too soon
/// counts as valid: the fetch notices the missing blocks.
fn read_by_prost(mut body: &[u8]) -> (Vec<RequestPieceResponse>, bool) {
    let mut blocks = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<HEAD_BYTES>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || length > MAX_MESSAGE_BYTES {
            return (blocks, false);
        }
        let Some((message, after)) = rest.split_at_checked(length) else { break };
        let Ok(block) = RequestPieceResponse::decode(message) else { return (blocks, false) };
        blocks.push(block);
        body = after;
    }
    (blocks, true)
}

/// Blocks are accepted up to the first unrequested one: in order, and none twice.
fn assert_taken_once(mut ranges: VecDeque<FetchRange>, blocks: &[RequestPieceResponse]) {
    let bytes = |ranges: &VecDeque<FetchRange>| -> u64 {
        ranges.iter().map(|of| u64::from(of.range.length)).sum()
    };
    let mut left = bytes(&ranges);
    for block in blocks {
        let Some(taken) = take_block(&mut ranges, block) else { break };
        assert_eq!((taken.piece.get(), taken.offset), (block.piece, block.offset));
        assert_eq!(taken.length as usize, block.data.len());
        left -= u64::from(taken.length);
    }
    assert_eq!(left, bytes(&ranges));
}
