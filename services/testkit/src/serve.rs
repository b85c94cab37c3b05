//! gRPC servers that run inside a test.

use std::{io, iter};

use futures_util::{Stream, stream};
use shoal_proto::types::v1::PeerInfo;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::process::free_port;

/// The connections that a listener accepts, as tonic's server takes them.
pub fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(socket, _)| socket), listener))
    })
}

/// Impossible addresses, invalid peer ids, the caller itself, one honest peer, and 100 absent
/// peers. The list stays below the message limit, since a larger message is refused unread.
pub fn rubbish(asker: Option<PeerInfo>, honest: &str) -> Vec<PeerInfo> {
    let id = || Uuid::new_v4().to_string();
    let impossible = ["", "nonsense", "127.0.0.1:99999", "0.0.0.0:1", "127.0.0.1:0", "[::"];
    let impossible = impossible.map(|address| peer(id(), address));
    let unnamed = [peer(String::new(), honest), peer("x".repeat(200_000), honest)];
    let gone = iter::repeat_with(|| peer(id(), &format!("127.0.0.1:{}", free_port()))).take(100);
    let honest = peer(id(), honest);
    impossible.into_iter().chain(unnamed).chain(asker).chain([honest]).chain(gone).collect()
}

fn peer(peer_id: String, address: &str) -> PeerInfo {
    PeerInfo { peer_id, address: address.to_owned(), ..PeerInfo::default() }
}
