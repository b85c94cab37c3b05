//! Sent messages: the transport gets no more of a response than the caller reads.
//!
//! The transport keeps what it was given in memory as long as the connection lasts, and a body ends
//! once its last frame is with the transport. So a response is passed on in small parts, and each
//! time it is noted whose turn is next.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

use super::budget::Charge;

/// Bytes passed to the transport at a time: one frame.
const PART_BYTES: usize = 16 << 10;

/// Whose turn it is in a call: incremented at each change. Even means the caller's.
#[derive(Debug)]
pub(crate) struct Turns(AtomicU64);

impl Turns {
    /// A call that we have to answer.
    pub(crate) const fn ours() -> Self {
        Self(AtomicU64::new(1))
    }

    /// The number of this turn, if it is the caller's.
    pub(crate) fn callers(&self) -> Option<u64> {
        let turn = self.0.load(Ordering::Relaxed);
        turn.is_multiple_of(2).then_some(turn)
    }

    pub(crate) fn give(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) {
        if self.callers().is_some() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The body of a response.
#[derive(Debug)]
pub(crate) struct SentBody<B, C> {
    inner: B,
    turns: Arc<Turns>,
    /// The rest of the last frame.
    rest: Bytes,
    parts: Parts,
    ended: bool,
    /// The call is open until this is dropped.
    _call: C,
}

/// How much is passed on at a time.
#[derive(Debug)]
pub(crate) enum Parts {
    /// Frames as they are: the data plane makes them small enough, one at a time.
    Frames,
    /// Small parts, and the rest is charged.
    Small(Charge),
}

impl<B, C> SentBody<B, C> {
    /// A new response.
    pub(crate) fn new(inner: B, turns: Arc<Turns>, parts: Parts, call: C) -> Self {
        turns.give();
        Self { inner, turns, rest: Bytes::new(), parts, ended: false, _call: call }
    }

    /// The next part of the last frame.
    fn part(&mut self) -> Frame<Bytes> {
        Frame::data(self.rest.split_to(self.rest.len().min(PART_BYTES)))
    }
}

impl<B, C> HttpBody for SentBody<B, C>
where
    B: HttpBody<Data = Bytes, Error = Status> + Unpin,
    C: Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        this.turns.take();
        if this.ended {
            return Poll::Ready(None);
        }
        if let Parts::Small(charge) = &this.parts {
            // The previous part has been taken.
            charge.keep(this.rest.len());
        }
        if !this.rest.is_empty() {
            this.turns.give();
            return Poll::Ready(Some(Ok(this.part())));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            ended => return Poll::Ready(ended),
        };
        this.turns.give();
        let Parts::Small(charge) = &this.parts else { return Poll::Ready(Some(Ok(frame))) };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        if let Err(exhausted) = charge.add(data.len()) {
            this.ended = true;
            return Poll::Ready(Some(Ok(trailers(&exhausted.into()))));
        }
        this.rest = data;
        Poll::Ready(Some(Ok(this.part())))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.rest.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    // Cannot fail for a status made here.
    let _ = status.add_header(&mut trailers);
    Frame::trailers(trailers)
}
