//! The messages of all methods, however they are split into frames: the check before decoding
//! agrees with prost on what is a message, and bounds what decoding allocates.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use shoal_common::fuzzing::{Receiver, cost, pass};
use shoal_fuzz::{HEAD_BYTES, cut, framed, measured};
use shoal_proto::{
    control::v1 as control, dht::v1 as dht, peer::v1 as peer, tracker::v1 as tracker,
};

/// Further bytes that decoding may allocate: the message's buffer becomes a shared one, and an
/// error names its place.
const BESIDES: usize = 512;

#[derive(Arbitrary, Debug)]
struct Body<'a> {
    method: u8,
    response: bool,
    messages: Vec<&'a [u8]>,
    /// Any bytes after the messages.
    rest: &'a [u8],
    cuts: &'a [u8],
}

type Decode = fn(Bytes, usize) -> Option<Vec<u8>>;

macro_rules! methods {
    ($($service:literal { $($name:literal ($request:ty) -> $response:ty,)* })*) => {
        /// The path of each method, and the decoders of its messages.
        const METHODS: &[(&str, Decode, Decode)] = &[$($(
            (concat!("/shoal.", $service, "/", $name), decode::<$request>, decode::<$response>),
        )*)*];
    };
}

methods! {
    "tracker.v1.TrackerService" {
        "Announce" (tracker::AnnounceRequest) -> tracker::AnnounceResponse,
        "ListSwarms" (tracker::ListSwarmsRequest) -> tracker::ListSwarmsResponse,
        "GetSwarm" (tracker::GetSwarmRequest) -> tracker::GetSwarmResponse,
    }
    "peer.v1.PeerService" {
        "Exchange" (peer::ExchangeRequest) -> peer::ExchangeResponse,
        "GetBitfield" (peer::GetBitfieldRequest) -> peer::GetBitfieldResponse,
        "GetManifest" (peer::GetManifestRequest) -> peer::GetManifestResponse,
        "RequestPiece" (peer::RequestPieceRequest) -> peer::RequestPieceResponse,
    }
    "control.v1.ControlService" {
        "Upload" (control::UploadRequest) -> control::UploadResponse,
        "Fetch" (control::FetchRequest) -> control::FetchResponse,
    }
    "control.v1.ObserveService" {
        "List" (control::ListRequest) -> control::ListResponse,
        "Explain" (control::ExplainRequest) -> control::ExplainResponse,
    }
    "dht.v1.DhtService" {
        "FindSuccessor" (dht::FindSuccessorRequest) -> dht::FindSuccessorResponse,
        "GetState" (dht::GetStateRequest) -> dht::GetStateResponse,
        "Put" (dht::PutRequest) -> dht::PutResponse,
        "GetPeers" (dht::GetPeersRequest) -> dht::GetPeersResponse,
        "Probe" (dht::ProbeRequest) -> dht::ProbeResponse,
        "Gossip" (dht::GossipRequest) -> dht::GossipResponse,
    }
    "dht.v1.ReplicaService" {
        "Prepare" (dht::PrepareRequest) -> dht::PrepareResponse,
        "Accept" (dht::AcceptRequest) -> dht::AcceptResponse,
        "Renew" (dht::RenewRequest) -> dht::RenewResponse,
        "Replicate" (dht::ReplicateRequest) -> dht::ReplicateResponse,
        "Summarize" (dht::SummarizeRequest) -> dht::SummarizeResponse,
        "ListVersions" (dht::ListVersionsRequest) -> dht::ListVersionsResponse,
        "ReadRecords" (dht::ReadRecordsRequest) -> dht::ReadRecordsResponse,
    }
}

/// Decodes a message, fails if that allocates more than `cost`, and encodes it again without
/// unknown fields.
fn decode<M: Message + Default>(message: Bytes, cost: usize) -> Option<Vec<u8>> {
    let (decoded, allocated) = measured(|| M::decode(message));
    assert!(allocated <= cost.saturating_add(BESIDES), "{allocated} bytes, not {cost}");
    decoded.ok().map(|message| message.encode_to_vec())
}

fuzz_target!(|body: Body| {
    let (path, request, response) = METHODS[usize::from(body.method) % METHODS.len()];
    let (by, decode) =
        if body.response { (Receiver::Client, response) } else { (Receiver::Server, request) };
    for message in &body.messages {
        let cost_of = cost(path, by, message);
        let decoded = decode(Bytes::copy_from_slice(message), cost_of.unwrap_or(usize::MAX));
        // A message that is refused although prost reads it has groups among its unknown fields.
        if let (None, Some(known)) = (cost_of, decoded) {
            assert!(cost(path, by, &known).is_some(), "{message:?} is refused, but prost reads it");
        }
    }

    let mut sent: Vec<u8> = body.messages.iter().flat_map(|message| framed(message)).collect();
    sent.extend(body.rest);
    let (at_once, ended) = pass(path, by, vec![Bytes::copy_from_slice(&sent)]);
    let (in_parts, ended_in_parts) = pass(path, by, cut(&sent, body.cuts));
    let in_parts = in_parts.concat();
    assert_eq!(ended.is_ok(), ended_in_parts.is_ok(), "the result depends on the frames");
    assert!(sent.starts_with(&in_parts), "other bytes than the received ones are passed on");
    assert!(
        in_parts.starts_with(&at_once.concat()),
        "fewer bytes are passed on because of the frames"
    );
    assert!(ended.is_err() || in_parts == sent, "a part of the body is lost");
    assert_whole(&in_parts);
});

/// Only whole messages are passed on.
fn assert_whole(mut passed: &[u8]) {
    while let Some((head, rest)) = passed.split_first_chunk::<HEAD_BYTES>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        passed = rest.get(length..).expect("a whole message");
    }
    assert!(passed.is_empty(), "a message is cut in its head");
}
