//! gRPC servers that a test itself runs.

use std::io;

use futures_util::{Stream, stream};
use tokio::net::{TcpListener, TcpStream};

/// What a listener accepts, for a server of tonic's.
pub fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(socket, _)| socket), listener))
    })
}
