//! Strangers that fill a ring's disks.

use futures_util::{StreamExt as _, stream};
use shoal_proto::dht::v1::{DeleteRequest, PutRequest, dht_service_client::DhtServiceClient};
use uuid::Uuid;

use super::channel_from;

/// The longest value that a ring takes.
const VALUE_BYTES: usize = 64 << 10;

/// Puts this many values as long as may be through a node, and deletes as many keys that never were. How
/// many calls were accepted.
pub async fn fill(node: &str, values: usize) -> anyhow::Result<usize> {
    /// Calls at a time.
    const AT_ONCE: usize = 8;
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
            let never_was = Uuid::new_v4().into_bytes().to_vec();
            let delete = DeleteRequest { key: never_was.into(), ..DeleteRequest::default() };
            let put = client.put(put).await.is_ok();
            usize::from(put) + usize::from(client.delete(delete).await.is_ok())
        }
    };
    let calls = stream::iter(0..values).map(fill).buffer_unordered(AT_ONCE);
    Ok(calls.fold(0, async |sum, accepted| sum + accepted).await)
}
