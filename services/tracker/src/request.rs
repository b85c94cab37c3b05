//! Validation of requests, field by field, before they have an effect.

use shoal_common::{advertised::AdvertisedAddresses, announced, status::Violations};
use shoal_core::{content::ContentId, registry::Announce};
use shoal_proto::tracker::v1::{
    AnnounceEvent, AnnounceRequest, GetSwarmRequest, ListSwarmsRequest,
};
use tonic::{Request, Status};

/// The longest request, in bytes: about seven times the longest valid one.
pub(crate) const MAX_BYTES: usize = 8 << 10;

const DEFAULT_PEERS: u32 = 50;
const MAX_PEERS: u32 = 200;
const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;

/// A valid [`AnnounceRequest`].
#[derive(Debug)]
pub(crate) struct ValidAnnounce {
    pub(crate) announce: Announce,
    pub(crate) event: AnnounceEvent,
}

/// A valid [`ListSwarmsRequest`].
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) after: Option<ContentId>,
    pub(crate) size: usize,
}

/// A valid [`GetSwarmRequest`].
#[derive(Debug)]
pub(crate) struct ValidGetSwarm {
    pub(crate) content: ContentId,
    pub(crate) max_peers: usize,
}

impl ValidAnnounce {
    /// Validates an announce; `rule` is for the peer's address.
    pub(crate) fn check(
        request: Request<AnnounceRequest>,
        rule: AdvertisedAddresses,
    ) -> Result<Self, Status> {
        let source = request.remote_addr().map(|remote| remote.ip());
        let source = source.ok_or_else(|| Status::internal("the connection has no address"))?;
        let request = request.into_inner();
        let mut violations = Violations::default();
        let event = AnnounceEvent::try_from(request.event);
        let event = violations.take("event", event.map_err(|_| "no such event"));
        let content = violations.take("content_id", request.content_id.parse());
        let peer = violations
            .take("peer", request.peer.ok_or("is missing"))
            .and_then(|peer| announced::peer(peer, source, rule, &mut violations));
        let (Some(event), Some(content), Some(mut peer)) = (event, content, peer) else {
            return Err(violations.into());
        };
        peer.complete |= event == AnnounceEvent::Completed;
        let numwant = or_default(request.numwant, DEFAULT_PEERS, MAX_PEERS);
        Ok(Self { announce: Announce { content, peer, source, numwant }, event })
    }
}

impl TryFrom<ListSwarmsRequest> for Page {
    type Error = Status;

    fn try_from(request: ListSwarmsRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let after = Some(request.page_token).filter(|token| !token.is_empty());
        let after = after.and_then(|token| violations.take("page_token", token.parse()));
        violations.refuse()?;
        Ok(Self { after, size: or_default(request.page_size, DEFAULT_PAGE, MAX_PAGE) })
    }
}

impl TryFrom<GetSwarmRequest> for ValidGetSwarm {
    type Error = Status;

    fn try_from(request: GetSwarmRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let content = violations.take("content_id", request.content_id.parse());
        let content = content.ok_or(violations)?;
        Ok(Self { content, max_peers: or_default(request.max_peers, DEFAULT_PEERS, MAX_PEERS) })
    }
}

/// Zero means the default; a number above `max` means `max`.
fn or_default(asked: u32, default: u32, max: u32) -> usize {
    (if asked == 0 { default } else { asked.min(max) }) as usize
}
