//! Spans reach a collector, in the trace of the caller.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use rustix::process::Signal;
use shoal_common::{
    channel::{Channel, Options},
    health::Health,
    server::{self, Limits},
};
use shoal_proto::tracker::v1::{ListSwarmsRequest, tracker_service_client::TrackerServiceClient};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::process::{Process, command};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

/// Forwards the exports that it receives.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).expect("the test listens");
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Name and trace of each span exported by `shoal-tracker`.
fn spans(export: ExportTraceServiceRequest) -> impl Iterator<Item = (String, u128)> {
    export.resource_spans.into_iter().flat_map(|of_service| {
        let attributes = of_service.resource.expect("it is exported").attributes.into_iter();
        let attributes: HashMap<_, _> = attributes.map(|pair| (pair.key, pair.value)).collect();
        let service = attributes["service.name"].clone().and_then(|name| name.value);
        assert_eq!(service, Some(Value::StringValue("shoal-tracker".to_owned())));
        of_service.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| {
            let trace = span.trace_id.try_into().expect("16 bytes");
            (span.name, u128::from_be_bytes(trace))
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calls_span_is_exported_before_the_process_ends() {
    let (exported, mut exports) = mpsc::unbounded_channel();
    let listener = server::bind(&"127.0.0.1:0".parse().expect("an address")).await;
    let listener = listener.expect("a port is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let shutdown = CancellationToken::new();
    let _stop = shutdown.clone().drop_guard();
    let routes = server::routes(&Health::new(&[]).await)
        .add_service(TraceServiceServer::new(Collector(exported)));
    tokio::spawn(
        async move { server::serve(listener, routes, &Limits::default(), shutdown).await },
    );

    let mut tracker = Process::start(command(&[]).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
    let address = tracker.address.parse().expect("it logs an address");
    let channel = Channel::connect(&address, &Options::default()).await.expect("it listens");
    let mut request = Request::new(ListSwarmsRequest::default());
    let parent = format!("00-{TRACE:032x}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", parent.parse().expect("it is text"));
    TrackerServiceClient::new(channel).list_swarms(request).await.expect("it is valid");
    tracker.signal(Signal::TERM);
    assert_eq!(tracker.ended().code(), Some(0));

    exports.close();
    let mut found = Vec::new();
    while let Some(export) = exports.recv().await {
        found.extend(spans(export));
    }
    let call = ("shoal.tracker.v1.TrackerService/ListSwarms".to_owned(), TRACE);
    assert!(found.contains(&call), "{call:?} is not in {found:?}");
}
