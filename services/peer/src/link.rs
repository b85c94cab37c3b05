//! A link: one `Exchange` stream between two peers for one content, dialled by either.
//!
//! Both ends say hello, then the engine accepts the link or not. From there on a task reads the
//! neighbour's messages; the engine's messages wait in a queue of [`QUEUE`] entries. A neighbour
//! that does not read them is dropped, not waited for.

use std::{
    net::IpAddr,
    pin::pin,
    time::{Duration, Instant},
};

use shoal_common::{
    Address,
    advertised::AdvertisedAddresses,
    channel::{Channel, Options},
};
use shoal_core::{
    PeerId,
    content::Layout,
    roster::{Origin, Refusal},
    swarm::{ContentKey, Input, LinkKey},
};
use shoal_proto::peer::v1::{ExchangeRequest, LinkMessage, peer_service_client::PeerServiceClient};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::{
    end_notice::EndNotice,
    event::Event,
    wire::{self, Hello, LinkToken, Received, WireError},
};

/// Messages that may wait for a neighbour to read them.
const QUEUE: usize = 1024;

/// Blocks that may wait; further ones wait for room at their sender.
const BLOCK_QUEUE: usize = 4;

/// The assumed round trip of a link until it is measured: that of a local network.
const UNMEASURED: Duration = Duration::from_millis(1);

/// Longest wait for the other end's Hello, which may have to fetch the manifest first.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait for a neighbour's bitfield, which follows its Hello.
const FIRST_WORD_PATIENCE: Duration = Duration::from_secs(30);

/// A link whose hellos were exchanged, for the engine to accept.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) content: ContentKey,
    pub(crate) peer: PeerId,
    /// The address to dial the neighbour; none if it advertises one that is not accepted.
    pub(crate) address: Option<Address>,
    pub(crate) complete: bool,
    pub(crate) serves_nothing: bool,
    /// What is proven about the neighbour.
    pub(crate) origin: Origin,
    pub(crate) round_trip: Duration,
    /// In the neighbour's calls to us.
    pub(crate) our_token: LinkToken,
    /// In our calls to the neighbour.
    pub(crate) their_token: LinkToken,
    pub(crate) voice: Voice,
}

/// The sender of messages to a neighbour.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) messages: mpsc::Sender<LinkMessage>,
    pub(crate) blocks: mpsc::Sender<LinkMessage>,
}

/// The engine's decision about a link.
pub(crate) type Admitted = Result<AdmittedLink, Refusal>;

/// A link that the engine has accepted, for its reader. In any case the engine gets exactly one
/// [`Event::LinkEnded`].
pub(crate) struct AdmittedLink {
    link: LinkKey,
    /// Cancelled when the engine closes the link.
    closed: CancellationToken,
    end: EndNotice<Event>,
}

impl AdmittedLink {
    pub(crate) fn new(
        link: LinkKey,
        closed: CancellationToken,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let end = EndNotice::new(events, Event::LinkEnded { link, offence: None });
        Self { link, closed, end }
    }
}

/// Why a link was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Connect(#[from] shoal_common::channel::ConnectError),
    #[error("the peer refused the link: {}", .0.message())]
    Status(#[from] Status),
    #[error("the peer did not say hello in time")]
    Silent,
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireError),
    #[error("another peer answers at its address: {0}")]
    OtherPeer(PeerId),
    #[error("it answers for another content")]
    OtherContent,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("this peer is stopping")]
    Stopping,
}

impl From<LinkError> for Status {
    fn from(error: LinkError) -> Self {
        let code = match &error {
            LinkError::Connect(_) | LinkError::Stopping => Code::Unavailable,
            LinkError::Status(status) => status.code(),
            LinkError::Silent => Code::DeadlineExceeded,
            LinkError::Wire(WireError::Version(..)) => Code::FailedPrecondition,
            LinkError::Wire(_) | LinkError::OtherPeer(_) | LinkError::OtherContent => {
                Code::InvalidArgument
            }
            LinkError::Refused(refusal) => match refusal {
                Refusal::Banned => Code::PermissionDenied,
                Refusal::Myself => Code::InvalidArgument,
                Refusal::Duplicate => Code::AlreadyExists,
                Refusal::Full | Refusal::Crowded => Code::ResourceExhausted,
                Refusal::NoContent => Code::NotFound,
            },
        };
        Self::new(code, error.to_string())
    }
}

/// A peer to dial for a content.
pub(crate) struct Dial {
    pub(crate) content: ContentKey,
    pub(crate) layout: Layout,
    pub(crate) peer: PeerId,
    pub(crate) address: Address,
    pub(crate) hello: Hello,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Dial {
    /// Makes a link and keeps it until either end drops it.
    pub(crate) async fn run(self) -> Result<(), LinkError> {
        let (voice, said) = greeted(&self.hello);
        let connecting = Instant::now();
        let channel = Channel::connect(&self.address, &Options::default()).await?;
        let round_trip = connecting.elapsed();

        let requests = said.map(|message| ExchangeRequest { message: Some(message) });
        let mut client = PeerServiceClient::new(channel);
        let (incoming, hello) = timeout(HELLO_PATIENCE, async {
            let mut incoming = client.exchange(requests).await?.into_inner();
            let first = incoming.message().await?.and_then(|response| response.message);
            Ok::<_, LinkError>((incoming, Hello::from_wire(first)?))
        })
        .await
        .map_err(|_| LinkError::Silent)??;
        if hello.content != self.hello.content {
            return Err(LinkError::OtherContent);
        }
        if hello.peer != self.peer {
            return Err(LinkError::OtherPeer(hello.peer));
        }

        let handshake = Handshake {
            content: self.content,
            peer: hello.peer,
            origin: Origin::Dialled(self.address.to_string()),
            address: Some(self.address),
            complete: hello.complete,
            serves_nothing: hello.serves_nothing,
            round_trip,
            our_token: self.hello.token,
            their_token: hello.token,
            voice,
        };
        let admitted = admit(&self.events, handshake).await?;
        let incoming = incoming.map(|response| response.map(|response| response.message));
        Reader { layout: self.layout, events: self.events }.run(admitted, incoming).await;
        Ok(())
    }
}

/// A neighbour that dialled us, after its Hello and its content were checked.
pub(crate) struct Guest {
    pub(crate) content: ContentKey,
    pub(crate) layout: Layout,
    pub(crate) theirs: Hello,
    /// The source address of the connection.
    pub(crate) observed: IpAddr,
    /// Whether another address than that is accepted.
    pub(crate) rule: AdvertisedAddresses,
    pub(crate) ours: Hello,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Guest {
    /// Has the engine accept the link, and reads it in a task of its own; the receiver yields the
    /// messages for the neighbour, our Hello first.
    pub(crate) async fn welcome(
        self,
        incoming: Streaming<ExchangeRequest>,
    ) -> Result<impl Stream<Item = LinkMessage> + Send + use<>, LinkError> {
        let (voice, said) = greeted(&self.ours);
        let handshake = Handshake {
            content: self.content,
            peer: self.theirs.peer,
            address: self.rule.accept(self.theirs.address, self.observed).ok(),
            complete: self.theirs.complete,
            serves_nothing: self.theirs.serves_nothing,
            origin: Origin::Seen(self.observed.to_canonical(), self.theirs.peer),
            round_trip: UNMEASURED,
            our_token: self.ours.token,
            their_token: self.theirs.token,
            voice,
        };
        let admitted = admit(&self.events, handshake).await?;
        let incoming = incoming.map(|request| request.map(|request| request.message));
        tokio::spawn(Reader { layout: self.layout, events: self.events }.run(admitted, incoming));
        Ok(said)
    }
}

/// A sender that has sent Hello, and the stream of its messages.
fn greeted(hello: &Hello) -> (Voice, impl Stream<Item = LinkMessage> + Send + use<>) {
    let (messages, queue) = mpsc::channel(QUEUE);
    let (blocks, block_queue) = mpsc::channel(BLOCK_QUEUE);
    messages.try_send(hello.to_wire()).expect("a new queue has room");
    let said = ReceiverStream::new(queue).merge(ReceiverStream::new(block_queue));
    (Voice { messages, blocks }, said)
}

async fn admit(
    events: &mpsc::Sender<Event>,
    handshake: Handshake,
) -> Result<AdmittedLink, LinkError> {
    let (admitted, answer) = oneshot::channel();
    let event = Event::Handshake(Box::new(handshake), admitted);
    events.send(event).await.map_err(|_| LinkError::Stopping)?;
    Ok(answer.await.map_err(|_| LinkError::Stopping)??)
}

/// Reads a link and reports to the engine, until the neighbour ends it or violates the protocol, or
/// the engine closes it.
struct Reader {
    layout: Layout,
    events: mpsc::Sender<Event>,
}

impl Reader {
    async fn run(
        self,
        admitted: AdmittedLink,
        incoming: impl Stream<Item = Result<Option<LinkMessage>, Status>>,
    ) {
        let AdmittedLink { link, closed, end } = admitted;
        let read = self.read(link, incoming);
        let offence = closed.run_until_cancelled(read).await.unwrap_or(Ok(())).err();
        end.give(Event::LinkEnded { link, offence }).await;
    }

    /// Ends without an error if the connection breaks: that is no offence.
    async fn read(
        &self,
        link: LinkKey,
        incoming: impl Stream<Item = Result<Option<LinkMessage>, Status>>,
    ) -> Result<(), WireError> {
        let mut incoming = pin!(incoming);
        let mut next = timeout(FIRST_WORD_PATIENCE, incoming.next()).await.unwrap_or(None);
        while let Some(Ok(message)) = next {
            let event = match wire::receive(message, &self.layout)? {
                Received::Message(message) => Event::Brain(Input::Message { link, message }),
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
