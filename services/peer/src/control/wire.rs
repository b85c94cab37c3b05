//! Conversion between the peer's own types and messages of `shoal.control.v1`.

use shoal_core::{content::PieceLength, swarm::Priority};
use shoal_proto::control::v1 as pb;
use tonic::{Code, Status as RpcStatus};

use crate::{
    daemon::code_of,
    status::{Cause, DiscoverySource, Explanation, Neighbour, Phase, Status},
};

/// The store's entry of a content, in addition to its swarm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keeping {
    pub(super) pinned: bool,
    pub(super) in_place: bool,
}

pub(super) fn status(status: &Status, keeping: Keeping) -> pb::ContentStatus {
    let Keeping { pinned, in_place } = keeping;
    pb::ContentStatus { pinned, in_place, ..status.into() }
}

/// Of a content without an entry in the store: neither pinned nor in place.
impl From<&Status> for pb::ContentStatus {
    fn from(status: &Status) -> Self {
        let (state, failure) = match &status.phase {
            Phase::Resolving => (pb::ContentState::Resolving, None),
            Phase::Downloading => (pb::ContentState::Downloading, None),
            Phase::Seeding => (pb::ContentState::Seeding, None),
            Phase::Failed(failure) => (pb::ContentState::Failed, Some(failure)),
        };
        Self {
            content_id: status.id.to_string(),
            name: status.name.clone(),
            state: state.into(),
            total_bytes: status.total_bytes,
            held_bytes: status.held_bytes,
            piece_count: status.piece_count,
            held_pieces: status.held_pieces,
            neighbours: status.neighbours,
            down_bytes_per_s: status.down_bytes_per_s,
            up_bytes_per_s: status.up_bytes_per_s,
            downloaded_bytes: status.downloaded_bytes,
            uploaded_bytes: status.uploaded_bytes,
            wasted_bytes: status.wasted_bytes,
            pinned: false,
            in_place: false,
            error: failure.map_or_else(String::new, ToString::to_string),
            error_code: failure.map_or(Code::Ok, |failure| code_of(failure)).into(),
            from_seeders_bytes: status.from_seeders_bytes,
        }
    }
}

pub(super) fn priorities(
    wire: Vec<pb::FilePriority>,
) -> Result<Vec<(String, Priority)>, RpcStatus> {
    let parse = |wire: pb::FilePriority| {
        let priority = match pb::Priority::try_from(wire.priority) {
            Ok(pb::Priority::Unspecified) => Priority::Normal,
            Ok(pb::Priority::Skip) => Priority::Skip,
            Ok(pb::Priority::Low) => Priority::Low,
            Ok(pb::Priority::High) => Priority::High,
            Err(error) => {
                return Err(RpcStatus::invalid_argument(format!("priorities: {error}")));
            }
        };
        Ok((wire.path, priority))
    };
    wire.into_iter().map(parse).collect()
}

/// A piece length of 0 means one that follows the size.
pub(super) fn piece_length(bytes: u64) -> Result<Option<PieceLength>, RpcStatus> {
    if bytes == 0 {
        return Ok(None);
    }
    let length = PieceLength::new(bytes);
    length.map(Some).map_err(|error| RpcStatus::invalid_argument(format!("piece_length: {error}")))
}

pub(super) fn explanation(explanation: Explanation) -> pb::ExplainResponse {
    let cause = match explanation.cause {
        Cause::None => pb::Cause::None,
        Cause::NoPeers => pb::Cause::NoPeers,
        Cause::NoManifest => pb::Cause::NoManifest,
        Cause::PiecesMissing => pb::Cause::PiecesMissing,
        Cause::Choked => pb::Cause::Choked,
        Cause::DownCap => pb::Cause::DownCap,
        Cause::NeighboursSlow => pb::Cause::NeighboursSlow,
        Cause::Snubbed => pb::Cause::Snubbed,
        Cause::Disk => pb::Cause::Disk,
        Cause::TrackerDown => pb::Cause::TrackerDown,
    };
    pb::ExplainResponse {
        cause: cause.into(),
        summary: explanation.summary,
        neighbours: explanation.neighbours.into_iter().map(neighbour).collect(),
        unavailable_pieces: explanation.unavailable_pieces,
        rarest_copies: explanation.rarest_copies,
        trackers: explanation.trackers.into_iter().map(source).collect(),
        ring_nodes: explanation.ring_nodes.into_iter().map(source).collect(),
    }
}

fn neighbour(neighbour: Neighbour) -> pb::NeighbourStatus {
    pb::NeighbourStatus {
        peer_id: neighbour.peer.to_string(),
        address: neighbour.address.to_string(),
        held_pieces: neighbour.held_pieces,
        interesting: neighbour.interesting,
        interested: neighbour.interested,
        choking_us: neighbour.choking_us,
        choked_by_us: neighbour.choked_by_us,
        snubbed: neighbour.snubbed,
        down_bytes_per_s: neighbour.down_bytes_per_s,
        up_bytes_per_s: neighbour.up_bytes_per_s,
        round_trip: neighbour.round_trip.try_into().ok(),
        outstanding_bytes: neighbour.outstanding_bytes,
        idle_reason: neighbour.idle_reason,
    }
}

fn source(source: DiscoverySource) -> pb::TrackerStatus {
    pb::TrackerStatus {
        address: source.address.to_string(),
        error: source.error.unwrap_or_default(),
        since_success: source.since_success.and_then(|since| since.try_into().ok()),
        peers_given: source.peers_given,
    }
}
