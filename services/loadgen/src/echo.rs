//! The cost of gRPC itself: a bare tonic service that answers with the number of bytes requested,
//! and calls to it.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt as _},
};
use shoal_common::server;
use shoal_core::Address;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client::Grpc,
    codegen::{Service, http, http::uri::PathAndQuery},
    server::{NamedService, ServerStreamingService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::{
    pace::Target,
    record::Operation,
    targets::{Connected, in_turn},
};

const WHOLE: &str = "/shoal.loadgen.Echo/Whole";
const PARTS: &str = "/shoal.loadgen.Echo/Parts";

/// The most bytes of a message, as between peers. Longer answers are several messages.
const PART_BYTES: u64 = 256 << 10;
/// The most bytes of an answer.
const MAX_REPLY_BYTES: u64 = 1 << 30;

static ZEROS: [u8; PART_BYTES as usize] = [0; PART_BYTES as usize];

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct EchoRequest {
    #[prost(uint64, tag = "1")]
    reply_bytes: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct EchoReply {
    #[prost(bytes = "bytes", tag = "1")]
    payload: Bytes,
}

/// Serves until `end`.
pub(crate) async fn serve(listen: &Address, end: CancellationToken) -> anyhow::Result<()> {
    let listener = server::bind(listen).await?;
    eprintln!("shoal-loadgen: echo on {}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(Echo);
    server.serve_with_incoming_shutdown(incoming, end.cancelled_owned()).await?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "shoal.loadgen.Echo";
}

impl UnaryService<EchoRequest> for Echo {
    type Response = EchoReply;
    type Future = Ready<Result<Response<EchoReply>, Status>>;

    fn call(&mut self, request: Request<EchoRequest>) -> Self::Future {
        let bytes = request.get_ref().reply_bytes.min(PART_BYTES);
        ready(Ok(Response::new(reply(bytes))))
    }
}

impl ServerStreamingService<EchoRequest> for Echo {
    type Response = EchoReply;
    type ResponseStream = BoxStream<'static, Result<EchoReply, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<EchoRequest>) -> Self::Future {
        let total = request.get_ref().reply_bytes;
        if total > MAX_REPLY_BYTES {
            return ready(Err(Status::invalid_argument("reply_bytes: at most 1 GiB")));
        }
        let parts = stream::iter((0..total).step_by(PART_BYTES as usize))
            .map(move |from| Ok(reply((total - from).min(PART_BYTES))));
        ready(Ok(Response::new(parts.boxed())))
    }
}

fn reply(bytes: u64) -> EchoReply {
    EchoReply { payload: Bytes::from_static(&ZEROS[..bytes as usize]) }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc =
                tonic::server::Grpc::new(ProstCodec::<EchoReply, EchoRequest>::default());
            Ok(match request.uri().path() {
                WHOLE => grpc.unary(Self, request).await,
                PARTS => grpc.server_streaming(Self, request).await,
                _ => Status::new(Code::Unimplemented, "call Whole or Parts").into_http(),
            })
        })
    }
}

/// Calls to echo servers.
pub(crate) struct Load {
    echoes: Vec<Connected>,
    reply_bytes: u64,
}

impl Load {
    /// Calls that request this many bytes.
    pub(crate) fn new(echoes: Vec<Connected>, reply_bytes: u64) -> Self {
        Self { echoes, reply_bytes: reply_bytes.min(MAX_REPLY_BYTES) }
    }
}

impl Target for Load {
    fn operation(&self, _: u64) -> Operation {
        Operation::Echo
    }

    async fn call(&self, number: u64) -> Result<u64, Status> {
        let mut grpc = Grpc::new(in_turn(&self.echoes, number));
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<EchoRequest, EchoReply>::default();
        let request = Request::new(EchoRequest { reply_bytes: self.reply_bytes });
        if self.reply_bytes <= PART_BYTES {
            let answer = grpc.unary(request, PathAndQuery::from_static(WHOLE), codec).await?;
            return Ok(answer.into_inner().payload.len() as u64);
        }
        let answer =
            grpc.server_streaming(request, PathAndQuery::from_static(PARTS), codec).await?;
        let mut parts = answer.into_inner();
        let mut bytes = 0;
        while let Some(part) = parts.message().await? {
            bytes += part.payload.len() as u64;
        }
        Ok(bytes)
    }
}
