//! How a link is made: dialled, or accepted. Both ends say hello, then the engine decides.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use shoal_common::{
    advertised::AdvertisedAddresses,
    channel::{Channel, Options},
};
use shoal_core::{Address, PeerId, peer_list::Origin, swarm::ContentKey};
use shoal_proto::peer::v1::{ExchangeRequest, LinkMessage, peer_service_client::PeerServiceClient};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Streaming;

use super::{
    error::LinkError,
    event::{AdmittedLink, Event},
    handshake::Handshake,
    hello::Hello,
    reader::Reader,
    sender::LinkSender,
};

/// The assumed round trip of a link until it is measured: that of a local network.
const UNMEASURED: Duration = Duration::from_millis(1);

/// Longest wait for the other end's Hello, which may have to fetch the manifest first.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// A peer to dial for a content.
pub(crate) struct Dial {
    pub(crate) content: ContentKey,
    pub(crate) piece_count: u32,
    pub(crate) peer: PeerId,
    pub(crate) address: Address,
    pub(crate) hello: Hello,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Dial {
    /// Makes a link and keeps it until either end drops it.
    pub(crate) async fn run(self) -> Result<(), LinkError> {
        let (sender, said) = LinkSender::greeting(&self.hello);
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
            origin: Origin::Dialled(self.address.clone()),
            address: Some(self.address),
            complete: hello.complete,
            serves_nothing: hello.serves_nothing,
            round_trip,
            our_token: self.hello.token,
            their_token: hello.token,
            sender,
        };
        let admitted = admit(&self.events, handshake).await?;
        let incoming = incoming.map(|response| response.map(|response| response.message));
        Reader { piece_count: self.piece_count, events: self.events }.run(admitted, incoming).await;
        Ok(())
    }
}

/// A neighbour that dialled us, after its Hello and its content were checked.
pub(crate) struct IncomingLink {
    pub(crate) content: ContentKey,
    pub(crate) piece_count: u32,
    pub(crate) theirs: Hello,
    /// The source address of the connection.
    pub(crate) observed: IpAddr,
    /// Whether another address than that is accepted.
    pub(crate) rule: AdvertisedAddresses,
    pub(crate) ours: Hello,
    pub(crate) events: mpsc::Sender<Event>,
}

impl IncomingLink {
    /// Has the engine accept the link, and reads it in a task of its own; the receiver yields the
    /// messages for the neighbour, our Hello first.
    pub(crate) async fn accept(
        self,
        incoming: Streaming<ExchangeRequest>,
    ) -> Result<impl Stream<Item = LinkMessage> + Send + use<>, LinkError> {
        let (sender, said) = LinkSender::greeting(&self.ours);
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
            sender,
        };
        let admitted = admit(&self.events, handshake).await?;
        let incoming = incoming.map(|request| request.map(|request| request.message));
        tokio::spawn(
            Reader { piece_count: self.piece_count, events: self.events }.run(admitted, incoming),
        );
        Ok(said)
    }
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
