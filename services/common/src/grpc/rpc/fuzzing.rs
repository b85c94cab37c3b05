//! Entry points for fuzz targets: limits of received messages.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::Body as _;
use tonic::Status;

use super::{Budget, Charge, Flow, ReceivedBody, called_by, frames::Frames};

/// The receiver of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The server, of a request.
    Server,
    /// The client, of a response.
    Client,
}

/// Passes frames through the limits, as their receiver does before it decodes them. Returns what
/// passes, and whether the rest is refused.
pub fn pass(path: &str, by: Receiver, frames: Vec<Bytes>) -> (Vec<Bytes>, Result<(), Status>) {
    let method = called_by(path).expect("the method exists");
    let charge = Charge::new(Flow::new(Budget::of_process()));
    let body = Frames { left: frames.into(), ends: true };
    let mut intake = match by {
        Receiver::Server => ReceivedBody::of_request(body, Some(method), Arc::new(charge)),
        Receiver::Client => ReceivedBody::of_response(body, method, charge),
    };
    let mut passed = Vec::new();
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut intake).poll_frame(cx)).now_or_never();
        match frame.expect("all frames are there") {
            Some(Ok(frame)) => passed.extend(frame.into_data()),
            Some(Err(status)) => return (passed, Err(status)),
            None => return (passed, Ok(())),
        }
    }
}

/// Bytes that decoding a message allocates, at most; none if it is malformed.
pub fn cost(path: &str, by: Receiver, message: &[u8]) -> Option<usize> {
    let method = called_by(path).expect("the method exists");
    let received = match by {
        Receiver::Server => method.request(),
        Receiver::Client => method.response(),
    };
    received.cost(message).ok()
}
