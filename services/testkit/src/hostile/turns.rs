//! Attackers that request blocks and do not read them.

use futures_util::future::join_all;
use http::uri::PathAndQuery;
use shoal_proto::peer::v1::{PieceRange, RequestPieceRequest, RequestPieceResponse};
use tonic::{Request, Streaming, client::Grpc};
use tonic_prost::ProstCodec;

use super::channel_from;

/// Accepted calls without a link. Dropping them cancels them.
pub struct Stalled(Vec<Streaming<RequestPieceResponse>>);

impl Stalled {
    /// The number of calls.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all were refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Calls for the first pieces in `calls` calls, each on its own connection, and reads no answer.
pub async fn stall(victim: &str, id: &str, pieces: u32, calls: usize) -> anyhow::Result<Stalled> {
    let start = async |_| {
        let mut client = Grpc::new(channel_from("127.0.0.2", victim).await.ok()?);
        client.ready().await.ok()?;
        let ranges = (0..pieces.min(64)).map(|piece| PieceRange { piece, offset: 0, length: 0 });
        let request = RequestPieceRequest {
            content_id: id.to_owned(),
            ranges: ranges.collect(),
            ..RequestPieceRequest::default()
        };
        let codec = ProstCodec::<RequestPieceRequest, RequestPieceResponse>::default();
        let path = PathAndQuery::from_static("/shoal.peer.v1.PeerService/RequestPiece");
        let answer = client.server_streaming(Request::new(request), path, codec).await;
        Some(answer.ok()?.into_inner())
    };
    let started = join_all((0..calls).map(start)).await;
    Ok(Stalled(started.into_iter().flatten().collect()))
}
