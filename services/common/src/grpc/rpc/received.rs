//! Received messages: their length, time and memory are limited before tonic decodes them.
//!
//! A message is passed on once it is whole. Until then its bytes are charged to the [`Budget`] as
//! they arrive; once it is whole, its shape tells the size of its decoded form, which is charged as
//! well.
//!
//! [`Budget`]: super::Budget

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};
use tower::BoxError;

use super::{
    budget::Charge,
    method::{Method, Received},
};

/// The flag and the length before a message.
const HEAD_BYTES: usize = 5;
/// Bytes that decoding may allocate for each byte of a message. Honest messages need up to 8.
const EXPANSION: usize = 16;
/// Bytes in addition, whatever the length: the range of the whole piece 0 is encoded in no bytes.
const EXPANSION_BASE: usize = 16 << 10;
/// How long a request may take to arrive, plus one second for each [`BYTES_PER_S`] received: the
/// rule of Apache's mod_reqtimeout.
const PATIENCE: Duration = Duration::from_secs(10);
/// The slowest acceptable sender.
const BYTES_PER_S: u64 = 64 << 10;
/// How long a stream of requests may pause, unless it may pause forever.
const PAUSE: Duration = Duration::from_secs(60);
/// Bytes of a request of an unknown method.
const STRANGE_BYTES: usize = 16 << 10;

/// A received body.
#[derive(Debug)]
pub(crate) struct ReceivedBody<B> {
    inner: B,
    rules: Rules,
    charge: Arc<Charge>,
    /// The beginning of an incomplete message, or nothing.
    held: Vec<u8>,
    /// None on the client, whose caller has its own timeout.
    clock: Option<Clock>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    /// None of an unknown method, whose messages prost does not decode.
    message: Option<Received>,
    longest: usize,
    streams: bool,
}

/// When the sender is too late.
#[derive(Debug)]
struct Clock {
    may_pause: bool,
    since: Instant,
    received: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<B> ReceivedBody<B> {
    /// A request, charged to a call.
    pub(crate) fn of_request(
        inner: B,
        method: Option<&'static Method>,
        charge: Arc<Charge>,
    ) -> Self {
        let rules = Rules {
            message: method.map(Method::request),
            longest: method.map_or(STRANGE_BYTES, |method| method.request().longest),
            streams: method.is_none_or(|method| method.streams_requests),
        };
        let clock = Clock {
            may_pause: method.is_some_and(Method::may_pause),
            since: Instant::now(),
            received: 0,
            sleep: None,
        };
        Self { inner, rules, charge, held: Vec::new(), clock: Some(clock) }
    }

    /// A response.
    pub(crate) fn of_response(inner: B, method: &'static Method, charge: Charge) -> Self {
        let rules = Rules {
            message: Some(method.response()),
            longest: method.response().longest,
            streams: method.streams_responses,
        };
        Self { inner, rules, charge: Arc::new(charge), held: Vec::new(), clock: None }
    }

    /// Adds received bytes; returns the whole messages, if there are any.
    fn take(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        self.charge.add(data.len())?;
        if let Some(clock) = &mut self.clock {
            clock.received += data.len() as u64;
        }
        let (all, whole) = if self.held.is_empty() {
            let whole = self.whole(&data)?;
            (data, whole)
        } else {
            self.hold(&data);
            let whole = self.whole(&self.held)?;
            if whole == 0 {
                return Ok(None);
            }
            (std::mem::take(&mut self.held).into(), whole)
        };
        if whole < all.len() {
            self.held = all[whole..].to_vec();
        }
        if whole == 0 {
            return Ok(None);
        }
        if let Some(clock) = &mut self.clock {
            clock.restart(self.rules.streams);
        }
        Ok(Some(all.slice(..whole)))
    }

    /// Appends to the beginning of a message. There is never room for more than the message, nor
    /// for more than twice what was received of it.
    fn hold(&mut self, data: &[u8]) {
        let needed = self.held.len() + data.len();
        if needed > self.held.capacity() {
            let message = length(&self.held).map_or(needed, |length| HEAD_BYTES + length);
            let room = (2 * needed).min(message).max(needed);
            self.held.reserve_exact(room - self.held.len());
        }
        self.held.extend_from_slice(data);
    }

    /// Bytes of the whole messages at the start, each of them within limits and charged.
    fn whole(&self, bytes: &[u8]) -> Result<usize, Status> {
        let mut whole = 0;
        while let Some(length) = length(&bytes[whole..]) {
            let longest = self.rules.longest;
            if length > longest {
                refused("length");
                let message =
                    format!("a message of {length} bytes is longer than the {longest} allowed");
                return Err(Status::out_of_range(message));
            }
            let start = whole + HEAD_BYTES;
            let Some(message) = bytes.get(start..start + length) else { break };
            // tonic refuses a compressed one without reading it.
            if let Some(received) = self.rules.message
                && bytes[whole] == 0
            {
                self.charge.add(self.cost(received, message)?)?;
            }
            whole = start + length;
        }
        Ok(whole)
    }

    /// Which side is at fault for a wrong message: the caller, or for a response the service.
    const fn fault(&self) -> Code {
        if self.clock.is_some() { Code::InvalidArgument } else { Code::Internal }
    }

    /// Bytes that decoding the message allocates, if they are within limits.
    fn cost(&self, received: Received, message: &[u8]) -> Result<usize, Status> {
        let cost = received.cost(message).map_err(|_| {
            refused("malformed");
            Status::new(self.fault(), "the message is no protobuf of its type")
        })?;
        let length = message.len();
        if cost > length * EXPANSION + EXPANSION_BASE {
            refused("expansion");
            let words = format!(
                "a message of {length} bytes would take {cost} bytes of memory; leave out empty elements"
            );
            return Err(Status::new(self.fault(), words));
        }
        Ok(cost)
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = self.rules.streams && self.held.is_empty();
        match &mut self.clock {
            None => false,
            Some(clock) if waits && clock.may_pause => false,
            Some(clock) => clock.is_over(if waits { PAUSE } else { PATIENCE }, cx),
        }
    }
}

impl Clock {
    fn restart(&mut self, streams: bool) {
        if streams {
            self.since = Instant::now();
            self.received = 0;
        }
    }

    /// Whether this much time has passed since the start; if not, the task is woken when it has.
    fn is_over(&mut self, patience: Duration, cx: &mut Context<'_>) -> bool {
        let deadline = self.since + patience + Duration::from_secs(self.received / BYTES_PER_S);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// Bytes of the message that begins here, if enough of it is known.
fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    Some(u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize)
}

fn refused(reason: &'static str) {
    metrics::counter!("shoal_messages_refused_total", "reason" => reason).increment(1);
}

impl<B> HttpBody for ReceivedBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.rules.streams {
            // The messages passed on before have been taken.
            this.charge.keep(this.held.len());
        }
        loop {
            let polled = Pin::new(&mut this.inner).poll_frame(cx);
            if polled.is_pending() && this.is_late(cx) {
                refused("late");
                let status = Status::deadline_exceeded("the request took too long to arrive");
                return Poll::Ready(Some(Err(status)));
            }
            let frame = match ready!(polled) {
                Some(Ok(frame)) => frame,
                None if !this.held.is_empty() => {
                    this.held = Vec::new();
                    let status = Status::new(this.fault(), "the body ends within a message");
                    return Poll::Ready(Some(Err(status)));
                }
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(Status::from_error(error.into()))));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Some(whole) = this.take(data).transpose() {
                        return Poll::Ready(Some(whole.map(Frame::data)));
                    }
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use prost::Message as _;
    use shoal_proto::dht::v1::{GossipRequest, Rumour};
    use tokio::time::timeout;

    use super::{
        super::{
            budget::{Budget, Flow},
            frames::Frames,
            method,
        },
        *,
    };

    const GOSSIP: &str = "/shoal.dht.v1.DhtService/Gossip";
    const UPLOAD: &str = "/shoal.control.v1.ControlService/Upload";
    const EXCHANGE: &str = "/shoal.peer.v1.PeerService/Exchange";

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn receive(
        path: &str,
        frames: Vec<Vec<u8>>,
        ends: bool,
        budget: &Arc<Budget>,
    ) -> ReceivedBody<Frames> {
        let frames = frames.into_iter().map(Bytes::from).collect();
        let charge = Charge::new(Flow::new(Arc::clone(budget)));
        let method = method::called_by(path).expect("it exists");
        ReceivedBody::of_request(Frames { left: frames, ends }, Some(method), Arc::new(charge))
    }

    async fn next(intake: &mut ReceivedBody<Frames>) -> Option<Result<Bytes, Status>> {
        let frame = poll_fn(|cx| Pin::new(&mut *intake).poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().expect("data")))
    }

    #[tokio::test]
    async fn a_message_that_expands_too_much_is_refused_before_it_is_decoded() {
        let empty = GossipRequest { rumours: vec![Rumour::default(); 100_000], digest: vec![] };
        let frames = vec![framed(&empty.encode_to_vec())];
        let mut intake = receive(GOSSIP, frames, true, &Budget::of_process());
        let status = next(&mut intake).await.expect("an answer").expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }

    #[tokio::test]
    async fn a_message_that_says_it_is_too_long_is_refused_at_once() {
        let mut head = framed(&[]);
        head[1..5].copy_from_slice(&(1_u32 << 20).to_be_bytes());
        let mut intake = receive(GOSSIP, vec![head], false, &Budget::of_process());
        let status = next(&mut intake).await.expect("an answer").expect_err("a refusal");
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
    }

    #[tokio::test]
    async fn half_sent_messages_of_many_connections_stay_within_the_budget() {
        let budget = Budget::new(1 << 20);
        let half = framed(&vec![0; 200_000])[..199_000].to_vec();
        let mut open = Vec::new();
        for _ in 0..60 {
            let mut intake = receive(GOSSIP, vec![half.clone()], false, &budget);
            let polled = timeout(Duration::ZERO, next(&mut intake)).await;
            let refused = matches!(&polled, Ok(Some(Err(status))) if status.code() == Code::ResourceExhausted);
            assert!(polled.is_err() || refused, "{polled:?}");
            open.push((intake, refused));
        }
        let kept = open.iter().filter(|(_, refused)| !refused).count();
        assert!((1..=5).contains(&kept), "{kept} are held");
        drop(open);
        let mut small = receive(GOSSIP, vec![framed(&[])], true, &budget);
        assert!(next(&mut small).await.expect("a message").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_becomes_whole_ends() {
        for path in [GOSSIP, UPLOAD, EXCHANGE] {
            let mut intake =
                receive(path, vec![framed(&[0; 100])[..50].to_vec()], false, &Budget::of_process());
            let ended = timeout(PATIENCE * 2, next(&mut intake)).await.expect("in time");
            let status = ended.expect("an answer").expect_err("a refusal");
            assert_eq!(status.code(), Code::DeadlineExceeded, "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_whole_but_never_ended_ends() {
        let mut intake = receive(GOSSIP, vec![framed(&[])], false, &Budget::of_process());
        assert!(next(&mut intake).await.expect("a message").is_ok());
        let ended = timeout(PATIENCE * 2, next(&mut intake)).await.expect("in time");
        assert_eq!(
            ended.expect("an answer").expect_err("a refusal").code(),
            Code::DeadlineExceeded
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_may_be_quiet_and_an_upload_not_for_long() {
        let mut link = receive(EXCHANGE, vec![], false, &Budget::of_process());
        assert!(timeout(PAUSE * 100, next(&mut link)).await.is_err());
        let mut upload = receive(UPLOAD, vec![], false, &Budget::of_process());
        let ended = timeout(PAUSE * 2, next(&mut upload)).await.expect("in time");
        assert_eq!(
            ended.expect("an answer").expect_err("a refusal").code(),
            Code::DeadlineExceeded
        );
    }

    #[tokio::test]
    async fn a_body_that_ends_within_a_message_is_an_error() {
        let mut intake = receive(GOSSIP, vec![vec![0, 0, 0]], true, &Budget::of_process());
        let status = next(&mut intake).await.expect("an answer").expect_err("a refusal");
        assert_eq!(status.code(), Code::InvalidArgument);
    }

    proptest! {
        #[test]
        fn messages_pass_whole_however_they_are_cut(
            lengths in prop::collection::vec(0_usize..300, 1..8),
            cuts in prop::collection::vec(1_usize..100, 1..40),
        ) {
            // Unknown fields are skipped.
            let message = |length: &usize| framed(&[[0xf8, 0x07, 1].repeat(*length)].concat());
            let sent: Vec<u8> = lengths.iter().flat_map(message).collect();
            let (mut frames, mut rest) = (Vec::new(), &sent[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (frame, after) = rest.split_at(rest.len().min(*cut));
                frames.push(frame.to_vec());
                rest = after;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let passed = runtime.block_on(async {
                let mut intake = receive(EXCHANGE, frames, true, &Budget::of_process());
                let mut passed = Vec::new();
                while let Some(frame) = next(&mut intake).await {
                    let frame = frame.expect("it is sound");
                    // Whole messages only.
                    let mut at = 0;
                    while at < frame.len() { at += HEAD_BYTES + length(&frame[at..]).expect("a head") }
                    assert_eq!(at, frame.len());
                    passed.extend(frame);
                }
                passed
            });
            prop_assert_eq!(passed, sent);
        }
    }
}
