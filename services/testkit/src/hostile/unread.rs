//! Calls whose responses are not read.

use std::time::Duration;

use futures_util::future::join_all;
use shoal_core::content::MAX_MANIFEST_BYTES;
use shoal_proto::peer::v1::{
    GetManifestRequest, GetManifestResponse, peer_service_client::PeerServiceClient,
};
use tokio::time::{Instant, sleep};
use tonic::{Status, Streaming, transport::Channel};

/// The flow-control window of a lazy reader: smaller than any response.
const WINDOW_BYTES: u32 = 1024;

/// Calls for a manifest whose answers are not read.
#[derive(Debug)]
pub struct LazyReaders(Vec<Streaming<GetManifestResponse>>);

impl LazyReaders {
    /// Makes `calls` calls over each of `connections` connections. Some may be refused.
    pub async fn start(address: &str, id: &str, connections: usize, calls: usize) -> Self {
        let mut readers = Vec::new();
        for _ in 0..connections {
            let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
            let endpoint = endpoint
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES);
            let channel = endpoint.connect().await.expect("the server listens");
            let requests = (0..calls).map(|_| {
                let mut client = PeerServiceClient::new(channel.clone());
                let request = GetManifestRequest {
                    content_id: id.to_owned(),
                    max_manifest_bytes: MAX_MANIFEST_BYTES,
                };
                async move { client.get_manifest(request).await }
            });
            let answers: Vec<Result<_, Status>> = join_all(requests).await;
            readers.extend(answers.into_iter().flatten().map(tonic::Response::into_inner));
        }
        Self(readers)
    }

    /// The number of accepted calls.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits for `patience` without reading. Then reads, and returns how many calls the server has
    /// ended meanwhile.
    pub async fn hung_up(self, patience: Duration) -> usize {
        sleep(patience).await;
        let deadline = Instant::now() + Duration::from_secs(5);
        let ended = self.0.into_iter().map(async |mut reader| {
            // A call that is open yields the whole manifest, an ended one an error.
            let read = async {
                while reader.message().await?.is_some() {}
                Ok::<_, Status>(())
            };
            tokio::time::timeout_at(deadline, read).await.is_ok_and(|read| read.is_err())
        });
        join_all(ended).await.into_iter().filter(|ended| *ended).count()
    }
}
