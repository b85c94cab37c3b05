//! The events of the data plane.

use shoal_core::swarm::{ContentKey, Input, LinkKey};

use crate::store::StoreError;

/// Events of the data plane for the engine, over one bounded channel; while it is full, blocks
/// wait.
#[derive(Debug)]
pub enum Event {
    /// For the swarm state machine. It may be late: about a cancelled fetch, or a link that has
    /// ended.
    Swarm(Input),
    /// A neighbour sent what was not requested. Its fetch has ended.
    ProtocolBroken {
        /// The link.
        link: LinkKey,
    },
    /// A block could not be stored, for example because the disk is full: the download cannot
    /// continue.
    StoreFailed {
        /// The content.
        content: ContentKey,
        /// The error.
        error: StoreError,
    },
}
