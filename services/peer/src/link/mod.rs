//! A link: one `Exchange` stream between two peers for one content, dialled by either.
//!
//! Both ends say hello, then the engine accepts the link or not. From there on a task reads the
//! neighbour's messages; ours wait in a bounded queue. A neighbour that does not read them is
//! dropped, not waited for.

mod connect;
mod error;
mod event;
mod handshake;
mod hello;
mod reader;
mod sender;
pub(crate) mod wire;

pub(crate) use self::{
    connect::{Dial, IncomingLink},
    error::LinkError,
    event::{Admitted, AdmittedLink, Event},
    handshake::Handshake,
    hello::{Hello, LinkToken},
    sender::{BlockQueue, LinkSender, QueueFull},
};
