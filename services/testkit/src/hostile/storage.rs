//! Attackers that fill a ring's disks.

use futures_util::{StreamExt as _, stream};
use shoal_proto::dht::v1::{DeleteRequest, PutRequest, dht_service_client::DhtServiceClient};
use uuid::Uuid;

use super::channel_from;

/// The largest value that a ring accepts.
const VALUE_BYTES: usize = 64 << 10;

/// Puts `values` values of the largest size through a node, and deletes as many keys that never
/// existed. Returns how many calls were accepted.
pub async fn fill(node: &str, values: usize) -> anyhow::Result<usize> {
    /// Concurrent calls.
    const CONCURRENCY: usize = 8;
    let client = DhtServiceClient::new(channel_from("127.0.0.2", node).await?);
    let fill = |_| {
        let mut client = client.clone();
        async move {
            let key = Uuid::new_v4().into_bytes().to_vec();
            let put = PutRequest {
                key: key.into(),
                value: vec![7; VALUE_BYTES].into(),
                ..PutRequest::default()
            };
            let unknown_key = Uuid::new_v4().into_bytes().to_vec();
            let delete = DeleteRequest { key: unknown_key.into(), ..DeleteRequest::default() };
            let put = client.put(put).await.is_ok();
            usize::from(put) + usize::from(client.delete(delete).await.is_ok())
        }
    };
    let calls = stream::iter(0..values).map(fill).buffer_unordered(CONCURRENCY);
    Ok(calls.fold(0, async |sum, accepted| sum + accepted).await)
}
