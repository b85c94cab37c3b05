//! The task that reads a link.

use std::{pin::pin, time::Duration};

use shoal_core::swarm::LinkKey;
use shoal_proto::peer::v1::LinkMessage;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::{
    event::{AdmittedLink, Event},
    wire::{self, Received, WireError},
};

/// Longest wait for a neighbour's bitfield, which follows its Hello.
const FIRST_MESSAGE_PATIENCE: Duration = Duration::from_secs(30);

/// Reads a link and reports to the engine, until the neighbour ends it or violates the protocol, or
/// the engine closes it.
pub(super) struct Reader {
    pub(super) piece_count: u32,
    pub(super) events: mpsc::Sender<Event>,
}

impl Reader {
    pub(super) async fn run(
        self,
        admitted: AdmittedLink,
        incoming: impl Stream<Item = Result<Option<LinkMessage>, Status>>,
    ) {
        let AdmittedLink { link, closed, end } = admitted;
        let read = self.read(link, incoming);
        let offence = closed.run_until_cancelled(read).await.unwrap_or(Ok(())).err();
        end.give(Event::Ended { link, offence }).await;
    }

    /// Ends without an error if the connection breaks: that is no offence.
    async fn read(
        &self,
        link: LinkKey,
        incoming: impl Stream<Item = Result<Option<LinkMessage>, Status>>,
    ) -> Result<(), WireError> {
        let mut incoming = pin!(incoming);
        let mut next = timeout(FIRST_MESSAGE_PATIENCE, incoming.next()).await.unwrap_or(None);
        while let Some(Ok(message)) = next {
            let event = match wire::parse(message, self.piece_count)? {
                Received::Message(message) => Event::Message { link, message },
                Received::InLink(message) => Event::InLink { link, message },
            };
            if self.events.send(event).await.is_err() {
                break;
            }
            next = incoming.next().await;
        }
        Ok(())
    }
}
