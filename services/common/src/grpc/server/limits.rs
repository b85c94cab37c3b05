//! The limits of a server for its clients.

use std::{sync::Arc, time::Duration};

use super::slots::WhenFull;
use crate::{
    grpc::{http2::Http2, rpc::Budget},
    open_files,
};

/// The limits of a server for its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections, fewer if the limit of open files demands it. If there is one more, an idle one is closed, or else the new one.
    pub max_connections: usize,
    /// Of these, from one source: an IPv4 address or an IPv6 /64. None means half of all.
    pub max_connections_of_source: Option<usize>,
    /// Which connection is closed then.
    pub when_full: WhenFull,
    /// How long a connection may have no call, if limited.
    pub idle_patience: Option<Duration>,
    /// A caller that reads nothing of a response for this long, up to twice as long, is
    /// disconnected.
    pub stall_patience: Duration,
    /// Open calls on one connection; further ones wait at the client.
    pub max_streams: u32,
    /// Longest time from a request's head to its response's head, if limited. A call that streams
    /// its request has no limit before the last message.
    pub request_timeout: Option<Duration>,
    /// How often a quiet connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a ping may take before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// How long calls may continue after a shutdown.
    pub drain: Duration,
    /// Windows and frames.
    pub http2: Http2,
    /// HTTP/1 is accepted too.
    pub http1: bool,
    /// The memory budget of messages; the process's, unless callers are more trusted than
    /// strangers.
    pub budget: Arc<Budget>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_of_source: None,
            when_full: WhenFull::CloseIdle,
            idle_patience: None,
            stall_patience: Duration::from_secs(30),
            max_streams: 256,
            request_timeout: Some(Duration::from_secs(30)),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(2),
            http2: Http2::CONTROL,
            http1: false,
            budget: Budget::of_process(),
        }
    }
}

impl Limits {
    /// Open connections: at most half of the files that the process may have open.
    pub(super) fn total(&self) -> usize {
        self.max_connections.min(open_files::limit() / 2)
    }

    pub(super) fn of_source(&self) -> usize {
        let half = self.total().div_ceil(2);
        self.max_connections_of_source.map_or(half, |most| most.min(self.total()))
    }
}
