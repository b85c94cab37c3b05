//! A span, a count and a duration for every served call.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{
    method::{self, Method},
    trace_context::extract_context,
};

/// Observes the calls of the service that it wraps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RpcLayer;

impl<S> Layer<S> for RpcLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed(inner)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Observed<S>(S);

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<ObservedBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = method::called_by(request.uri().path())
            .map(|method| Call::begin(method, request.headers()));
        let span = call.as_ref().map_or_else(Span::none, |call| call.span.clone());
        let response = span.in_scope(|| self.0.call(request));
        let observed = async move {
            let response = response.await?;
            if let Some(call) = &mut call {
                call.note_status(response.headers());
            }
            Ok(response.map(|inner| ObservedBody { inner, call }))
        };
        Box::pin(observed.instrument(span))
    }
}

/// A call in progress. It ends when this is dropped, with the response's body at the latest.
#[derive(Debug)]
struct Call {
    method: &'static Method,
    started: Instant,
    span: Span,
    /// Unknown until the end: a call that is dropped before was cancelled.
    code: Option<Code>,
}

impl Call {
    fn begin(method: &'static Method, headers: &HeaderMap) -> Self {
        let span = info_span!(
            "rpc",
            otel.name = %format_args!("{}/{}", method.service, method.name),
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.service = %method.service,
            rpc.method = %method.name,
            rpc.grpc.status_code = Empty,
        );
        // Fails where no traces are collected, which is fine.
        let _ = span.set_parent(extract_context(headers));
        Self { method, started: Instant::now(), span, code: None }
    }

    /// The status is in the trailers, or in the headers of a response without a body.
    fn note_status(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS) {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled);
        self.span.record("rpc.grpc.status_code", code as i32);
        let (service, name) = (self.method.service.as_str(), self.method.name.as_str());
        metrics::counter!(
            "shoal_rpc_served_total",
            "service" => service, "method" => name, "code" => format!("{code:?}"),
        )
        .increment(1);
        metrics::histogram!("shoal_rpc_served_seconds", "service" => service, "method" => name)
            .record(self.started.elapsed());
    }
}

/// The body of a response, with the call that it ends.
#[derive(Debug)]
pub(crate) struct ObservedBody {
    inner: Body,
    call: Option<Call>,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = {
            let _within = this.call.as_ref().map(|call| call.span.enter());
            ready!(Pin::new(&mut this.inner).poll_frame(cx))
        };
        if let (Some(call), Some(Ok(frame))) = (&mut this.call, &frame)
            && let Some(trailers) = frame.trailers_ref()
        {
            call.note_status(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use opentelemetry::{global, trace::TracerProvider as _};
    use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
    use tower::{ServiceExt as _, service_fn};
    use tracing::instrument::WithSubscriber as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::grpc::rpc::inject_context;

    /// The `traceparent` of a request sent from within the current span.
    fn traceparent() -> String {
        let mut headers = HeaderMap::new();
        inject_context(&mut headers);
        headers["traceparent"].to_str().expect("it is text").to_owned()
    }

    /// Version, trace, span and flags: the second part.
    fn trace_of(traceparent: &str) -> &str {
        traceparent.split('-').nth(1).expect("it has four parts")
    }

    #[tokio::test]
    async fn a_call_served_belongs_to_the_trace_of_its_caller() {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        async {
            let caller = info_span!("caller").in_scope(traceparent);
            let server = RpcLayer.layer(service_fn(async |_: Request<Body>| {
                Ok::<_, Infallible>(Response::new(Body::new(traceparent())))
            }));
            let request = Request::post("/shoal.tracker.v1.TrackerService/Announce")
                .header("traceparent", &caller)
                .body(Body::empty())
                .expect("it is a request");
            let mut body = server.oneshot(request).await.expect("it answers").into_body();
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let served = frame.expect("a frame").expect("no error").into_data().expect("data");
            let served = String::from_utf8_lossy(&served).into_owned();
            assert_eq!(trace_of(&served), trace_of(&caller));
            assert_ne!(served, caller, "the call has a span of its own");
        }
        .with_subscriber(subscriber)
        .await;
    }
}
