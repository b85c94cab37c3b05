//! Entry points for fuzz targets: blocks as they are encoded and decoded.

use std::{collections::VecDeque, convert::Infallible};

use bytes::{BufMut as _, Bytes};
use futures_util::{FutureExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use shoal_core::{content::BlockRange, swarm::FetchRange};
use shoal_proto::peer::v1::RequestPieceResponse;
use tonic::Status;

use super::{
    download::{self, Blocks, take_next},
    upload::encode_head,
};

/// A response's longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = download::MAX_MESSAGE_BYTES;

/// Reads the body of a response as a fetch does: the blocks, and the outcome.
pub fn read_blocks(frames: Vec<Bytes>) -> (Vec<RequestPieceResponse>, Result<(), Status>) {
    let trailers = HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let frames = frames.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]);
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    let mut response = Blocks::of(http::Response::new(body)).expect("its status comes last");
    let mut blocks = Vec::new();
    loop {
        match response.next().now_or_never().expect("all frames are there") {
            Ok(Some(block)) => blocks.push(block),
            Ok(None) => return (blocks, Ok(())),
            Err(status) => return (blocks, Err(status)),
        }
    }
}

/// Encodes a block as the server does.
pub fn write_block(block: BlockRange, data: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    encode_head(block, &mut message);
    message.put_slice(data);
    message
}

/// Takes a block off the remaining ranges; none if it is not what was requested.
pub fn take_block(
    ranges: &mut VecDeque<FetchRange>,
    block: &RequestPieceResponse,
) -> Option<BlockRange> {
    take_next(ranges, block.piece, block.offset, block.data.len()).map(|(_, block)| block)
}
