//! Connections that are opened and then left idle.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// What is sent on a new connection, so that it resembles one of an honest client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Nothing is sent.
    Silent,
    /// The preface of an HTTP/2 client, with an empty SETTINGS frame (RFC 9113, 3.4).
    Http2,
    /// A complete HTTP/1.1 request, after which the connection stays open.
    Http1,
}

/// Opens `count` connections to HOST:PORT.
pub fn open(address: &str, opening: Opening, count: usize) -> Vec<TcpStream> {
    let words: &[u8] = match opening {
        Opening::Silent => b"",
        Opening::Http2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        Opening::Http1 => b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n",
    };
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("the server listens");
            // The write fails if the server has closed the connection already, as it may.
            let _ = stream.write_all(words);
            stream
        })
        .collect()
}

/// How many of the connections the server has not closed.
pub fn still_open(connections: &mut [TcpStream]) -> usize {
    connections.iter_mut().map(is_open).filter(|open| *open).count()
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a time above zero");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => {
                return matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            }
        }
    }
}
