//! Messages that are small on the wire and large in memory: lists of empty elements.

use futures_util::future::join_all;
use tonic::Code;

use super::body::{call, connect, framed};

/// The methods of a ring node that accept lists, with the location of each list.
pub const RING_METHODS: [(&str, Wrapped); 5] = [
    ("/shoal.dht.v1.DhtService/Gossip", Wrapped::Bare),
    ("/shoal.dht.v1.ReplicaService/HandIn", Wrapped::Bare),
    ("/shoal.dht.v1.ReplicaService/Summarize", Wrapped::Bare),
    ("/shoal.dht.v1.ReplicaService/ReadRecords", Wrapped::Bare),
    ("/shoal.dht.v1.DhtService/Notify", Wrapped::InState),
];

/// The location of the list in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapped {
    /// The request's first field.
    Bare,
    /// The list of successors in the `NodeState` that is the request's first field.
    InState,
}

/// A message of about `bytes` bytes.
pub fn message(wrapped: Wrapped, bytes: usize) -> Vec<u8> {
    match wrapped {
        Wrapped::Bare => [0x0a, 0].repeat(bytes / 2),
        Wrapped::InState => {
            let inner = [0x22, 0].repeat(bytes / 2);
            let mut message = vec![0x0a];
            let mut length = inner.len();
            while length >= 0x80 {
                message.push(length as u8 | 0x80);
                length >>= 7;
            }
            message.push(length as u8);
            message.extend(inner);
            message
        }
    }
}

/// Sends the message in `calls` concurrent calls, each over its own connection. Returns the
/// statuses.
pub async fn send(address: &str, method: &str, message: &[u8], calls: usize) -> Vec<Code> {
    let bytes = framed(message, message.len() as u32);
    let calls = (0..calls).map(|_| async {
        let channel = connect(address).await.expect("the server listens");
        call(channel, method, bytes.clone(), true).await
    });
    join_all(calls).await
}
