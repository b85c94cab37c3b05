//! `shoal swarm`: the peers of a swarm, from a tracker or the ring.

use serde_json::json;
use shoal_common::{
    channel::{Channel, Options},
    dns::{DnsCache, LookUpError},
    trackers::trackers_of,
};
use shoal_core::{
    Address,
    content::{ContentId, Link},
};
use shoal_proto::{
    dht::v1::GetPeersRequest,
    tracker::v1::{
        GetSwarmRequest, GetSwarmResponse, tracker_service_client::TrackerServiceClient,
    },
    types::v1::{Location, PeerInfo},
};

use super::name;
use crate::{
    args::{Format, SwarmArgs},
    exit::{Exit, Failure},
    output::{self, Align, Table},
    ring::{Client, Repeat, RingSession},
};

pub(crate) async fn run(args: SwarmArgs, format: Format) -> anyhow::Result<()> {
    let link = name::resolve(&args.wanted, &args.ring.nodes).await?;
    let swarm = match source(args.tracker, args.ring.nodes, &link)? {
        Source::Tracker(tracker) => ask_tracker(&tracker, link.id, args.max_peers).await?,
        Source::Ring(nodes) => ask_ring(&nodes, link.id, args.max_peers).await?,
    };
    match format {
        Format::Json => output::json(&swarm.to_json())?,
        Format::Human => output::line(swarm.describe())?,
    }
    Ok(())
}

/// Where to ask.
enum Source {
    Tracker(Address),
    Ring(Vec<Address>),
}

/// Flags take precedence over the link.
fn source(
    tracker: Option<Address>,
    ring_nodes: Vec<Address>,
    link: &Link,
) -> anyhow::Result<Source> {
    if let Some(tracker) = tracker {
        return Ok(Source::Tracker(tracker));
    }
    if !ring_nodes.is_empty() {
        return Ok(Source::Ring(ring_nodes));
    }
    if let Some(tracker) = link.trackers().first() {
        return Ok(Source::Tracker(tracker.parse()?));
    }
    if link.ring_nodes().is_empty() {
        let message = "no tracker or ring node to ask; give --tracker HOST:PORT or \
                       --dht HOST:PORT, or a link with one";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let ring_nodes = link.ring_nodes().iter().map(|address| address.parse());
    Ok(Source::Ring(ring_nodes.collect::<Result<_, _>>()?))
}

/// Asks the swarm's trackers, among those of a name, one after another until one answers.
async fn ask_tracker(tracker: &Address, id: ContentId, max_peers: u32) -> anyhow::Result<Swarm> {
    let unreachable = |error: LookUpError| Failure::new(Exit::Unreachable, error.to_string());
    let trackers = DnsCache::default().addresses(tracker).await.map_err(unreachable)?;
    let mut failed = None;
    for tracker in trackers_of(id, &trackers) {
        match ask_one(&tracker, id, max_peers).await {
            Ok(swarm) => return Ok(swarm),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.expect("a name that was looked up has an address"))
}

async fn ask_one(tracker: &Address, id: ContentId, max_peers: u32) -> anyhow::Result<Swarm> {
    let channel = Channel::connect(tracker, &Options::default()).await?;
    let request = GetSwarmRequest { content_id: id.to_string(), max_peers };
    let answer = TrackerServiceClient::new(channel).get_swarm(request).await;
    let GetSwarmResponse { swarm, peers } = answer.map_err(Failure::from)?.into_inner();
    let swarm = swarm.unwrap_or_default();
    let (complete, incomplete) = (swarm.complete_count.into(), swarm.incomplete_count.into());
    let has_others = (peers.len() as u64) < complete + incomplete;
    Ok(Swarm { id, complete, incomplete, peers, has_others })
}

async fn ask_ring(nodes: &[Address], id: ContentId, max_peers: u32) -> anyhow::Result<Swarm> {
    let request = GetPeersRequest { content_id: id.to_string(), max_peers, direct: false };
    let get_peers = async |mut client: Client| client.get_peers(request.clone()).await;
    let peers = RingSession::new(nodes).call(Repeat::Harmless, get_peers).await?.peers;
    if peers.is_empty() {
        let message = format!("the ring knows no peer of {id}");
        return Err(Failure::new(Exit::NotFound, message).into());
    }
    let complete = peers.iter().filter(|peer| peer.complete).count() as u64;
    let incomplete = peers.len() as u64 - complete;
    let has_others = peers.len() as u64 >= max_peers.into();
    Ok(Swarm { id, complete, incomplete, peers, has_others })
}

/// The peers of a swarm.
struct Swarm {
    id: ContentId,
    complete: u64,
    incomplete: u64,
    peers: Vec<PeerInfo>,
    /// The swarm has, or may have, more peers than these.
    has_others: bool,
}

impl Swarm {
    fn describe(&self) -> String {
        let all = output::count(self.complete + self.incomplete, "peer");
        let mut text = format!("{all}: {} complete, {} incomplete", self.complete, self.incomplete);
        if !self.peers.is_empty() {
            text.push('\n');
            text.push_str(&table(&self.peers).render());
        }
        if self.has_others {
            text.push_str("\n... and others; these were chosen at random");
        }
        text
    }

    fn to_json(&self) -> serde_json::Value {
        let peers = self.peers.iter().map(|peer| {
            let location = peer.location.clone().unwrap_or_default();
            json!({
                "peer_id": peer.peer_id,
                "address": peer.address,
                "complete": peer.complete,
                "region": location.region,
                "zone": location.zone,
                "node": location.node,
            })
        });
        json!({
            "id": self.id.to_string(),
            "complete_count": self.complete,
            "incomplete_count": self.incomplete,
            "peers": peers.collect::<Vec<_>>(),
        })
    }
}

fn table(peers: &[PeerInfo]) -> Table<4> {
    let mut table = Table::new([
        ("ADDRESS", Align::Left),
        ("PEER ID", Align::Left),
        ("COMPLETE", Align::Left),
        ("LOCATION", Align::Left),
    ]);
    for peer in peers {
        table.row([
            peer.address.clone(),
            peer.peer_id.clone(),
            if peer.complete { "yes" } else { "no" }.to_owned(),
            peer.location.as_ref().map(place).unwrap_or_default(),
        ]);
    }
    table
}

fn place(location: &Location) -> String {
    let parts = [&location.region, &location.zone, &location.node];
    parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swarm(has_others: bool) -> Swarm {
        Swarm {
            id: ContentId::from_bytes([0; 32]),
            complete: 1,
            incomplete: 0,
            peers: vec![PeerInfo {
                peer_id: "2f1e".to_owned(),
                address: "10.0.0.2:7072".to_owned(),
                location: Some(Location { zone: "z".to_owned(), ..Location::default() }),
                complete: true,
            }],
            has_others,
        }
    }

    #[test]
    fn a_swarm_is_a_count_and_a_table() {
        assert_eq!(
            swarm(false).describe(),
            "\
1 peer: 1 complete, 0 incomplete
ADDRESS        PEER ID  COMPLETE  LOCATION
10.0.0.2:7072  2f1e     yes       z"
        );
        assert!(swarm(true).describe().ends_with("chosen at random"));
        assert_eq!(swarm(false).to_json()["peers"][0]["address"], "10.0.0.2:7072");
    }

    #[test]
    fn flags_take_precedence_over_the_link() {
        let id = "0".repeat(64);
        let (tracker, node): (Address, Address) =
            ("flag:7070".parse().unwrap(), "flag:7071".parse().unwrap());
        let asked = |tracker: Option<&Address>, nodes: &[&Address], link: &str| {
            let link = format!("shoal:{id}{link}").parse().unwrap();
            let nodes = nodes.iter().map(|&node| node.clone()).collect();
            source(tracker.cloned(), nodes, &link).map(|source| match source {
                Source::Tracker(tracker) => tracker.to_string(),
                Source::Ring(nodes) => nodes[0].to_string(),
            })
        };
        let both = "?tr=link:7070&dht=link:7071";
        assert_eq!(asked(Some(&tracker), &[&node], both).unwrap(), "flag:7070");
        assert_eq!(asked(None, &[&node], both).unwrap(), "flag:7071");
        assert_eq!(asked(None, &[], both).unwrap(), "link:7070");
        assert_eq!(asked(None, &[], "?dht=link:7071").unwrap(), "link:7071");
        assert!(asked(None, &[], "").is_err());
    }
}
