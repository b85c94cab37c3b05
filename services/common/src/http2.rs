//! HTTP/2 numbers, the same on both ends of a connection.

/// How much may be under way on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Bytes that a stream may have in flight.
    pub stream_window: u32,
    /// Bytes that all streams of a connection may have in flight together.
    pub connection_window: u32,
    /// Largest frame accepted, in bytes.
    pub max_frame_size: u32,
}

impl Http2 {
    /// For small messages: what a stranger can make us buffer stays small.
    pub const CONTROL: Self =
        Self { stream_window: 64 << 10, connection_window: 1 << 20, max_frame_size: 16 << 10 };

    /// For what a peer lets others send: links, and on them blocks of those that cannot be dialled. A
    /// stranger that sends what is not read yet fills no more than a window for each connection.
    pub const LINK: Self =
        Self { stream_window: 256 << 10, connection_window: 256 << 10, max_frame_size: 1 << 20 };

    /// For blocks of pieces. Measured best at 2 GB/s on loopback; larger windows were slower, and a
    /// 256 KiB block with its header must fit into one frame.
    pub const BULK: Self =
        Self { stream_window: 2 << 20, connection_window: 5 << 20, max_frame_size: 1 << 20 };
}
