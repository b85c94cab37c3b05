//! HTTP/2 parameters, the same on both ends of a connection.

/// How much may be in flight on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Bytes in flight on a stream.
    pub stream_window: u32,
    /// Bytes in flight on all streams of a connection together.
    pub connection_window: u32,
    /// The largest accepted frame, in bytes.
    pub max_frame_size: u32,
}

impl Http2 {
    /// For small messages: a stranger can make us buffer little.
    pub const CONTROL: Self =
        Self { stream_window: 64 << 10, connection_window: 1 << 20, max_frame_size: 16 << 10 };

    /// For what a peer lets others send: links, and on them blocks of peers that cannot be dialled.
    /// Data of a stranger that is not read yet fills no more than one window per connection.
    pub const LINK: Self =
        Self { stream_window: 256 << 10, connection_window: 256 << 10, max_frame_size: 1 << 20 };

    /// For blocks of pieces. Measured best at 2 GB/s on loopback; larger windows were slower, and a
    /// 256 KiB block with its header must fit into one frame.
    pub const BULK: Self =
        Self { stream_window: 2 << 20, connection_window: 5 << 20, max_frame_size: 1 << 20 };
}
