//! What the shell and the state machine exchange: inputs and outputs, settings, and the observable
//! state.

mod event;
mod settings;
mod status;

pub use event::{
    Attempt, BanReason, Capabilities, ContentKey, FetchEnd, FetchKey, FetchRange, Input, LinkKey,
    Output, PeerMessage, Priority, RefuseReason, ServeKey,
};
pub use settings::Settings;
pub use status::{ContentStatus, IdleReason, LinkStatus, PieceState, Totals, UplinkIdle};
