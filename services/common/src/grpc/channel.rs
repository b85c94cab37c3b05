//! Client channels: the single place that creates them, so that mutual TLS can become a setting.

use std::{
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Request;
use shoal_core::Address;
use tonic::{
    body::Body,
    transport::{self, Endpoint, channel::ResponseFuture},
};
use tower::Service;

use super::{
    http2::Http2,
    rpc::{self, Budget, Charge, Flow, Method, ReceivedBody},
    status::innermost,
};

/// A gRPC channel to one process, for use with a generated client. Cheap to clone.
///
/// It adds the current span's trace context to every call, and bounds the memory of a response.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: transport::Channel,
    flow: Arc<Flow>,
}

/// Options of a channel.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the head of a response; a stream may take longer to end.
    pub call_timeout: Duration,
    /// How often an idle connection is pinged while calls are open.
    pub keepalive_interval: Duration,
    /// How long a ping may take before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// Windows and frames.
    pub http2: Http2,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
            http2: Http2::CONTROL,
        }
    }
}

/// A process could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {target}: {reason}")]
pub struct ConnectError {
    target: String,
    reason: String,
}

impl ConnectError {
    /// The innermost error: "connection refused", not "transport error".
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl Channel {
    /// Connects now.
    pub async fn connect(address: &Address, options: &Options) -> Result<Self, ConnectError> {
        Self::dial(&endpoint(address, options), &address.to_string()).await
    }

    /// Connects now to the Unix socket at `path`.
    pub async fn connect_unix(path: &Path, options: &Options) -> Result<Self, ConnectError> {
        let target = format!("unix:{}", path.display());
        let endpoint = Endpoint::from_shared(target.clone())
            .map_err(|error| ConnectError { target: target.clone(), reason: innermost(&error) })?;
        Self::dial(&set_up(endpoint, options), &target).await
    }

    /// Connects on first use, and again whenever the connection is lost.
    pub fn lazy(address: &Address, options: &Options) -> Self {
        Self::new(endpoint(address, options).connect_lazy())
    }

    fn new(inner: transport::Channel) -> Self {
        Self { inner, flow: Flow::new(Budget::of_process()) }
    }

    async fn dial(endpoint: &Endpoint, target: &str) -> Result<Self, ConnectError> {
        endpoint
            .connect()
            .await
            .map(Self::new)
            .map_err(|error| ConnectError { target: target.to_owned(), reason: innermost(&error) })
    }
}

fn endpoint(address: &Address, options: &Options) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .expect("an address holds no character that a URI would not");
    set_up(endpoint, options)
}

fn set_up(endpoint: Endpoint, options: &Options) -> Endpoint {
    endpoint
        .connect_timeout(options.connect_timeout)
        .timeout(options.call_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .initial_stream_window_size(options.http2.stream_window)
        .initial_connection_window_size(options.http2.connection_window)
        .max_frame_size(options.http2.max_frame_size)
}

impl Service<Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        rpc::inject_context(request.headers_mut());
        let bounded = rpc::called_by(request.uri().path())
            .filter(|method| !method.is_bulk())
            .map(|method| (method, Arc::clone(&self.flow)));
        Answer { inner: self.inner.call(request), bounded }
    }
}

/// The head of a response, whose body is bounded if the method is one of ours and not the data
/// plane's.
#[derive(Debug)]
pub struct Answer {
    inner: ResponseFuture,
    bounded: Option<(&'static Method, Arc<Flow>)>,
}

impl Future for Answer {
    type Output = Result<http::Response<Body>, transport::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.inner).poll(cx));
        let bounded = self.bounded.take();
        Poll::Ready(answer.map(|response| match bounded {
            None => response,
            Some((method, flow)) => {
                response.map(|body| {
                    Body::new(ReceivedBody::of_response(body, method, Charge::new(flow)))
                })
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Addresses come from strangers.
        #[test]
        fn every_address_makes_an_endpoint(host in "[a-zA-Z0-9._-]{0,80}|\\[[0-9a-f:.]{2,20}\\]", port: u16) {
            if let Ok(address) = format!("{host}:{port}").parse() {
                endpoint(&address, &Options::default());
            }
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_is_named_with_the_reason() {
        let path = Path::new("/nowhere/shoal.sock");
        let error = Channel::connect_unix(path, &Options::default()).await.expect_err("it is not");
        let message = error.to_string();
        assert!(message.starts_with("cannot connect to unix:/nowhere/shoal.sock: "), "{message}");
    }

    #[tokio::test]
    async fn who_is_not_there_is_named_with_the_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = Address::from(listener.local_addr().expect("it is bound"));
        drop(listener);
        let error = Channel::connect(&address, &Options::default()).await.expect_err("it is gone");
        let message = error.to_string();
        assert!(message.starts_with(&format!("cannot connect to {address}: ")), "{message}");
        assert!(message.contains("refused"), "{message}");
    }
}
