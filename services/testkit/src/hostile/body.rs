//! Calls with arbitrary bytes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::ServiceExt as _;

/// A request body: some bytes, and then either the end or nothing.
struct Sent {
    bytes: Option<Bytes>,
    ends: bool,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// Connects to HOST:PORT or unix:PATH.
pub async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    let scheme = if address.starts_with("unix:") { "" } else { "http://" };
    Endpoint::from_shared(format!("{scheme}{address}")).expect("a URI").connect().await
}

/// A message in gRPC's framing, with a length prefix that need not be true.
pub fn framed(message: &[u8], claimed: u32) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(claimed.to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// Calls `/SERVICE/METHOD` with these bytes and waits for the status. Returns UNAVAILABLE if the
/// call ends without one.
pub async fn call(channel: Channel, path: &str, bytes: Bytes, ends: bool) -> Code {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Sent { bytes: Some(bytes), ends }))
        .expect("a request");
    let Ok(answer) = channel.oneshot(request).await else { return Code::Unavailable };
    let code = |headers: &http::HeaderMap| {
        headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
    };
    if let Some(code) = code(answer.headers()) {
        return code;
    }
    let mut body = answer.into_body();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { break };
        if let Some(code) = frame.trailers_ref().and_then(code) {
            return code;
        }
    }
    Code::Unavailable
}
