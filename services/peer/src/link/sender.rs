//! The queues of messages to a neighbour.

use shoal_proto::peer::v1::{LinkMessage, link_message::Kind};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};

use super::{hello::Hello, wire};

/// Messages that may wait for a neighbour to read them.
const QUEUE: usize = 1024;

/// Blocks that may wait; further ones wait for room at their sender.
const BLOCK_QUEUE: usize = 4;

/// Sends messages to a neighbour.
#[derive(Clone, Debug)]
pub(crate) struct LinkSender {
    messages: mpsc::Sender<LinkMessage>,
    blocks: BlockQueue,
}

/// The queue of blocks on a link. Other messages overtake those that wait in it.
#[derive(Clone, Debug)]
pub(crate) struct BlockQueue(mpsc::Sender<LinkMessage>);

/// There is no room for a message: the neighbour does not read its link, or the link has ended.
#[derive(Debug)]
pub(crate) struct QueueFull;

/// The link has ended.
#[derive(Debug)]
pub(crate) struct Ended;

impl LinkSender {
    /// A sender that has sent Hello, and the stream of its messages.
    pub(super) fn greeting(
        hello: &Hello,
    ) -> (Self, impl Stream<Item = LinkMessage> + Send + use<>) {
        let (messages, queue) = mpsc::channel(QUEUE);
        let (blocks, block_queue) = mpsc::channel(BLOCK_QUEUE);
        messages.try_send(hello.to_wire()).expect("a new queue has room");
        let stream = ReceiverStream::new(queue).merge(ReceiverStream::new(block_queue));
        (Self { messages, blocks: BlockQueue(blocks) }, stream)
    }

    /// Queues a message.
    pub(crate) fn send(&self, kind: Kind) -> Result<(), QueueFull> {
        self.messages.try_send(wire::message(kind)).map_err(|_| QueueFull)
    }

    pub(crate) const fn blocks(&self) -> &BlockQueue {
        &self.blocks
    }

    /// A sender of messages to a test; blocks are refused.
    #[cfg(test)]
    pub(crate) fn to(messages: mpsc::Sender<LinkMessage>) -> Self {
        let (blocks, _) = mpsc::channel(1);
        Self { messages, blocks: BlockQueue(blocks) }
    }
}

impl BlockQueue {
    /// Sends a block, or the refusal of one, once there is room.
    pub(crate) async fn send(&self, kind: Kind) -> Result<(), Ended> {
        self.0.send(wire::message(kind)).await.map_err(|_| Ended)
    }
}
