//! `shoal swarm`: whom a tracker knows.

use serde_json::json;
use shoal_common::{
    Address,
    channel::{Channel, Options},
};
use shoal_core::content::Link;
use shoal_proto::{
    tracker::v1::{
        GetSwarmRequest, GetSwarmResponse, tracker_service_client::TrackerServiceClient,
    },
    types::v1::{Location, PeerInfo},
};

use crate::{
    args::{Format, SwarmArgs},
    exit::{Exit, Failure},
    output::{self, Align, Table},
};

pub(crate) async fn run(args: SwarmArgs, format: Format) -> anyhow::Result<()> {
    let tracker = match args.tracker {
        Some(tracker) => tracker,
        None => first_tracker(&args.link)?,
    };
    let channel = Channel::connect(&tracker, &Options::default()).await?;
    let request =
        GetSwarmRequest { content_id: args.link.id.to_string(), max_peers: args.max_peers };
    let answer = TrackerServiceClient::new(channel).get_swarm(request).await;
    let answer = answer.map_err(Failure::from)?.into_inner();
    match format {
        Format::Json => output::json(&to_json(&answer))?,
        Format::Human => output::line(describe(&answer))?,
    }
    Ok(())
}

fn first_tracker(link: &Link) -> anyhow::Result<Address> {
    let Some(address) = link.trackers().first() else {
        let message = "no tracker to ask; give --tracker HOST:PORT, or a link that names one";
        return Err(Failure::new(Exit::Usage, message).into());
    };
    Ok(address.parse()?)
}

fn describe(answer: &GetSwarmResponse) -> String {
    let swarm = answer.swarm.clone().unwrap_or_default();
    let all = u64::from(swarm.complete_count) + u64::from(swarm.incomplete_count);
    let mut text = format!(
        "{}: {} complete, {} incomplete",
        output::count(all, "peer"),
        swarm.complete_count,
        swarm.incomplete_count
    );
    if !answer.peers.is_empty() {
        text.push('\n');
        text.push_str(&table(&answer.peers).render());
    }
    if (answer.peers.len() as u64) < all {
        text.push_str("\n... and others; these were chosen at random");
    }
    text
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

fn to_json(answer: &GetSwarmResponse) -> serde_json::Value {
    let swarm = answer.swarm.clone().unwrap_or_default();
    let peers = answer.peers.iter().map(|peer| {
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
        "id": swarm.content_id,
        "complete_count": swarm.complete_count,
        "incomplete_count": swarm.incomplete_count,
        "peers": peers.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use shoal_proto::tracker::v1::SwarmInfo;

    use super::*;

    fn answer(incomplete_count: u32) -> GetSwarmResponse {
        GetSwarmResponse {
            swarm: Some(SwarmInfo {
                content_id: "ab".to_owned(),
                complete_count: 1,
                incomplete_count,
            }),
            peers: vec![PeerInfo {
                peer_id: "2f1e".to_owned(),
                address: "10.0.0.2:7072".to_owned(),
                location: Some(Location { zone: "z".to_owned(), ..Location::default() }),
                complete: true,
            }],
        }
    }

    #[test]
    fn a_swarm_is_a_count_and_a_table() {
        assert_eq!(
            describe(&answer(0)),
            "\
1 peer: 1 complete, 0 incomplete
ADDRESS        PEER ID  COMPLETE  LOCATION
10.0.0.2:7072  2f1e     yes       z"
        );
        assert!(describe(&answer(300)).ends_with("chosen at random"));
        assert_eq!(to_json(&answer(0))["peers"][0]["address"], "10.0.0.2:7072");
    }
}
