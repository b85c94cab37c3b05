//! The response of `RequestPiece`, read without a copy of the blocks.
//!
//! tonic's decoder copies each DATA frame into a buffer of its own, which costs 8 % of the processor
//! time of a transfer. Here a message that lies in one frame, as nearly all do, stays where the
//! transport received it.

use std::pin::Pin;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use prost::Message as _;
use shoal_proto::peer::v1::RequestPieceResponse;
use tonic::{Code, Status, codegen::StdError};

use crate::transfer::protocol::MAX_BLOCK_LENGTH;

/// Bytes of a message, at most: a block and the fields around it.
pub(in crate::transfer) const MAX_MESSAGE_BYTES: usize = MAX_BLOCK_LENGTH as usize + 64;

/// Bytes before each message: whether it is compressed, and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// The messages of a response.
pub(in crate::transfer) struct Blocks<B> {
    body: Pin<Box<B>>,
    /// Bytes of a frame that were not read yet.
    frame: Bytes,
    /// The start of a message whose end is in a later frame.
    begun: BytesMut,
}

impl<B: HttpBody<Data = Bytes, Error: Into<StdError>>> Blocks<B> {
    /// Of a response; its status if that is all it has.
    pub(in crate::transfer) fn of(response: http::Response<B>) -> Result<Self, Status> {
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => return Err(status),
            _ if response.status() != http::StatusCode::OK => {
                let message = format!("the response has the HTTP status {}", response.status());
                return Err(Status::unavailable(message));
            }
            _ => {}
        }
        let body = Box::pin(response.into_body());
        Ok(Self { body, frame: Bytes::new(), begun: BytesMut::new() })
    }

    /// The next block; none at the end. A message that is cut off by the end is left out.
    ///
    /// Cancel safe: a block is returned whole or later.
    pub(in crate::transfer) async fn next(
        &mut self,
    ) -> Result<Option<RequestPieceResponse>, Status> {
        loop {
            if let Some(message) = self.take_message()? {
                let block = RequestPieceResponse::decode(message);
                return block.map(Some).map_err(|error| Status::internal(error.to_string()));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Status::from_error(error.into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.frame = data,
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        match Status::from_header_map(&trailers) {
                            Some(status) if status.code() != Code::Ok => return Err(status),
                            _ => return Ok(None),
                        }
                    }
                },
            }
        }
    }

    /// The next message, without its prefix, if all of it has arrived. Otherwise what has arrived is
    /// in `begun`.
    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        if self.begun.is_empty()
            && let Some(length) = message_length(&self.frame)?
            && self.frame.len() >= PREFIX_BYTES + length
        {
            self.frame.advance(PREFIX_BYTES);
            return Ok(Some(self.frame.split_to(length)));
        }
        self.begin(PREFIX_BYTES);
        let Some(length) = message_length(&self.begun)? else { return Ok(None) };
        self.begin(PREFIX_BYTES + length);
        if self.begun.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.begun).freeze();
        message.advance(PREFIX_BYTES);
        Ok(Some(message))
    }

    /// Moves bytes of the frame to `begun`, until that has so many.
    fn begin(&mut self, bytes: usize) {
        let missing = bytes.saturating_sub(self.begun.len());
        self.begun.reserve(missing);
        self.begun.extend_from_slice(&self.frame.split_to(missing.min(self.frame.len())));
    }
}

/// The length in a message's prefix; none if that has not arrived.
fn message_length(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some([compressed, length @ ..]) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if *compressed != 0 {
        return Err(Status::internal("a message is compressed, which was not offered"));
    }
    if length > MAX_MESSAGE_BYTES {
        let message = format!("a message of {length} bytes is longer than {MAX_MESSAGE_BYTES}");
        return Err(Status::out_of_range(message));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::BufMut as _;
    use futures_util::{FutureExt as _, stream};
    use http::{HeaderMap, HeaderValue, Response};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn block(piece: u32, length: usize) -> RequestPieceResponse {
        RequestPieceResponse { piece, offset: 3, data: vec![piece as u8; length].into() }
    }

    fn encoded(blocks: &[RequestPieceResponse]) -> Bytes {
        let mut bytes = BytesMut::new();
        for block in blocks {
            bytes.put_u8(0);
            bytes.put_u32(block.encoded_len() as u32);
            block.encode(&mut bytes).unwrap();
        }
        bytes.freeze()
    }

    fn status(code: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static(code),
        )])
    }

    /// All blocks, and the outcome, of a response with these frames and trailers.
    fn read(frames: Vec<Bytes>, trailers: HeaderMap) -> (Vec<RequestPieceResponse>, Code) {
        let frames = frames.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]);
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
        let mut response = Blocks::of(Response::new(body)).unwrap();
        let mut blocks = Vec::new();
        loop {
            match response.next().now_or_never().expect("all frames are there") {
                Ok(Some(block)) => blocks.push(block),
                Ok(None) => return (blocks, Code::Ok),
                Err(status) => return (blocks, status.code()),
            }
        }
    }

    #[test]
    fn blocks_are_the_same_however_they_are_cut_into_frames() {
        let blocks = [block(1, 40), block(2, 0), block(3, 300)];
        let bytes = encoded(&blocks);
        for first in 0..bytes.len() {
            for second in [first, first + 1, first + 7, bytes.len()] {
                let second = second.min(bytes.len());
                let frames =
                    vec![bytes.slice(..first), bytes.slice(first..second), bytes.slice(second..)];
                assert_eq!(
                    read(frames, status("0")),
                    (blocks.to_vec(), Code::Ok),
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn a_block_in_one_frame_is_not_copied() {
        let bytes = encoded(&[block(1, 1000), block(2, 1000)]);
        let frame = bytes.as_ptr_range();
        let (blocks, _) = read(vec![bytes.clone()], status("0"));
        assert_eq!(blocks.len(), 2);
        assert!(blocks.iter().all(|block| frame.contains(&block.data.as_ptr())));
    }

    #[test]
    fn a_message_that_is_cut_off_is_left_out() {
        let bytes = encoded(&[block(1, 40)]);
        let cut = bytes.slice(..bytes.len() - 1);
        assert_eq!(read(vec![cut], status("0")), (Vec::new(), Code::Ok));
    }

    #[test]
    fn a_status_follows_the_blocks_or_takes_their_place() {
        let frames = vec![encoded(&[block(1, 40)])];
        assert_eq!(read(frames, status("10")), (vec![block(1, 40)], Code::Aborted));
        let refuse = |response: Response<http_body_util::Empty<Bytes>>| {
            Blocks::of(response).err().expect("it is refused").code()
        };
        let mut refused = Response::new(http_body_util::Empty::new());
        *refused.headers_mut() = status("8");
        assert_eq!(refuse(refused), Code::ResourceExhausted);
        let mut not_grpc = Response::new(http_body_util::Empty::new());
        *not_grpc.status_mut() = http::StatusCode::NOT_FOUND;
        assert_eq!(refuse(not_grpc), Code::Unavailable);
    }

    #[test]
    fn long_compressed_and_malformed_messages_are_refused() {
        let long = [&[0][..], &(MAX_MESSAGE_BYTES as u32 + 1).to_be_bytes()].concat();
        let compressed = vec![1, 0, 0, 0, 0];
        let malformed = vec![0, 0, 0, 0, 1, 0xff];
        for (bytes, code) in
            [(long, Code::OutOfRange), (compressed, Code::Internal), (malformed, Code::Internal)]
        {
            assert_eq!(read(vec![bytes.into()], status("0")), (Vec::new(), code));
        }
    }
}
