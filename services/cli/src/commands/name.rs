//! `shoal name`: names of contents. The ring stores the id as text, with the key `name/NAME`.

use shoal_core::{
    Address,
    content::{ContentId, Link, Name, Wanted},
};
use shoal_proto::dht::v1::{DeleteRequest, GetRequest, PutRequest};

use crate::{
    args::{Format, NameArgs, NameCommand},
    exit::{Exit, Failure},
    output,
    progress::Progress,
    ring::{Client, Repeat, RingSession},
};

pub(crate) async fn run(args: NameArgs, format: Format, progress: &Progress) -> anyhow::Result<()> {
    let mut ring = RingSession::new(&args.ring.nodes);
    match args.command {
        NameCommand::Set { name, id } => set(&mut ring, &name, id, progress).await,
        NameCommand::Get { name } => {
            let id = look_up(&mut ring, &name).await?.to_string();
            match format {
                Format::Json => {
                    output::json(&serde_json::json!({ "name": name.to_string(), "id": id }))?;
                }
                Format::Human => output::line(id)?,
            }
            Ok(())
        }
        NameCommand::Rm { name } => {
            let request = DeleteRequest { key: name.key().into(), ..DeleteRequest::default() };
            ring.call(Repeat::Harmless, async |mut client: Client| {
                client.delete(request.clone()).await
            })
            .await?;
            Ok(())
        }
    }
}

async fn set(
    ring: &mut RingSession,
    name: &Name,
    id: ContentId,
    progress: &Progress,
) -> anyhow::Result<()> {
    let (key, value) = (name.key().into(), id.to_string().into());
    let request = PutRequest { key, value, ..PutRequest::default() };
    let put = async |mut client: Client| client.put(request.clone()).await;
    let copies = ring.call(Repeat::Harmless, put).await?.durable_copies;
    progress.note(&format!("durable copies: {copies}"));
    Ok(())
}

/// The id of a name's content.
async fn look_up(ring: &mut RingSession, name: &Name) -> anyhow::Result<ContentId> {
    let request = GetRequest { key: name.key().into(), direct: false };
    let get = async |mut client: Client| client.get(request.clone()).await;
    let answer = match ring.call(Repeat::Harmless, get).await {
        Err(failure) if failure.exit() == Exit::NotFound => {
            let message =
                format!("the ring knows nothing called {name}; set the name with shoal name set");
            return Err(Failure::new(Exit::NotFound, message).into());
        }
        answer => answer?,
    };
    let id = std::str::from_utf8(&answer.value).ok().and_then(|text| text.parse().ok());
    Ok(id.ok_or_else(|| {
        let message = format!(
            "the ring's value for {name} is not a content id; repair it with shoal name set"
        );
        Failure::new(Exit::Failed, message)
    })?)
}

/// A link to the wanted content; a name is looked up in the ring of these nodes.
pub(super) async fn resolve(wanted: &Wanted, ring_nodes: &[Address]) -> anyhow::Result<Link> {
    match wanted {
        Wanted::Link(link) => Ok(link.clone()),
        Wanted::Name(name) if ring_nodes.is_empty() => {
            let message = format!(
                "{name} is not an id (64 lower-case hex digits), and names are looked up in the ring; \
                 give --dht HOST:PORT"
            );
            Err(Failure::new(Exit::Usage, message).into())
        }
        Wanted::Name(name) => {
            let id = look_up(&mut RingSession::new(ring_nodes), name).await?;
            Ok(Link::new(id, Vec::new(), Vec::new())?)
        }
    }
}
