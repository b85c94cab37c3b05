//! The swarm brain: whom to serve, what to ask for, and of whom.
//!
//! [`Swarm`] is a state machine for all contents of one process, since slots, rates and memory are
//! the process's: `handle(now, input, &mut outputs)` and `next_deadline()`. It sees that blocks
//! arrive and leave, never their bytes. The shell around it moves those, and keeps the clock.

mod event;

pub use event::{
    BanReason, Capabilities, ContentKey, FetchEnd, FetchKey, Input, LinkKey, Output, PeerMessage,
    Priority, RefuseReason, ServeKey,
};
