//! Gives memory back to the system when transfers are over: the allocator would keep it, and an
//! idle peer needs a third of that.

use std::time::Duration;

use shoal_common::memory::give_back;
use tokio::{task::spawn_blocking, time::sleep};

use crate::node::Node;

/// How often it is checked whether transfers are over.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Gives memory back whenever nothing has been sent or received for a while, until the peer stops.
pub(crate) async fn give_back_when_idle(node: Node) {
    let (mut moved, mut given_back_at) = (0, 0);
    loop {
        sleep(LOOK_EVERY).await;
        let Ok(contents) = node.list().await else { return };
        let bytes = contents.iter().map(|status| status.downloaded_bytes + status.uploaded_bytes);
        let now: u64 = bytes.sum();
        if now == moved && now != given_back_at && spawn_blocking(give_back).await.is_ok() {
            given_back_at = now;
        }
        moved = now;
    }
}
