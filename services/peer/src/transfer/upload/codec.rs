//! The server's codec of `RequestPiece`: a block is read from its file into tonic's buffer.
//!
//! On the wire it is the plain protobuf of `RequestPieceResponse`.

use std::mem::MaybeUninit;

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, uint32};
use shoal_core::content::BlockRange;
use shoal_proto::peer::v1::RequestPieceRequest;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstDecoder;
use tracing::warn;

use super::uploads::Outgoing;
use crate::store::StoreError;

/// The longest encoding of the fields around a block's data: three keys and three varints.
const HEADER_BYTES: usize = 3 + 3 * 5;

/// Decodes requests and encodes blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlockCodec;

impl Codec for BlockCodec {
    type Encode = Outgoing;
    type Decode = RequestPieceRequest;
    type Encoder = BlockEncoder;
    type Decoder = ProstDecoder<RequestPieceRequest>;

    fn encoder(&mut self) -> BlockEncoder {
        BlockEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

#[derive(Debug)]
pub(super) struct BlockEncoder;

impl Encoder for BlockEncoder {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, outgoing: Outgoing, message: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let Outgoing { stored, block } = outgoing;
        let length = block.length as usize;
        message.reserve(HEADER_BYTES + length);
        encode_head(block, message);
        append(message, length, |bytes| stored.read_uninit(block, bytes)).map_err(|error| {
            let piece = block.piece.get();
            // A stranger must not learn paths.
            warn!(content_id = %stored.id(), piece, %error, "cannot read a requested piece");
            Status::internal(format!("piece {piece} cannot be read; ask another peer"))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        // A message is passed to the transport as soon as it has a byte: one block at a time.
        BufferSettings::new(64, 1)
    }
}

/// Appends the fields of a block up to its data, including the data's length.
pub(in crate::transfer) fn encode_head(block: BlockRange, message: &mut impl BufMut) {
    uint32::encode(1, &block.piece.get(), message);
    uint32::encode(2, &block.offset, message);
    encode_key(3, WireType::LengthDelimited, message);
    encode_varint(u64::from(block.length), message);
}

/// Appends `length` bytes, for which there is room, all of them written by `fill`.
#[expect(unsafe_code, reason = "the buffer lends its tail only as uninitialised memory")]
fn append(
    message: &mut EncodeBuf<'_>,
    length: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    // SAFETY: initialised bytes stay initialised: `fill` can only write bytes through the slice,
    // and has written all of it before it counts as part of the message.
    unsafe {
        fill(&mut message.chunk_mut().as_uninit_slice_mut()[..length])?;
        message.advance_mut(length);
    }
    Ok(())
}
