//! `shoal swarms`: all swarms of a tracker.

use serde_json::{Value, json};
use shoal_common::channel::{Channel, Options};
use shoal_proto::tracker::v1::{
    ListSwarmsRequest, SwarmInfo, tracker_service_client::TrackerServiceClient,
};

use crate::{
    args::{Format, SwarmsArgs},
    exit::Failure,
    output::{self, Align, Table},
};

/// The longest page that a tracker returns.
const PAGE_SIZE: u32 = 1_000;

pub(crate) async fn run(args: SwarmsArgs, format: Format) -> anyhow::Result<()> {
    let channel = Channel::connect(&args.tracker, &Options::default()).await?;
    let mut tracker = TrackerServiceClient::new(channel);
    let mut swarms = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListSwarmsRequest { page_size: PAGE_SIZE, page_token };
        let page = tracker.list_swarms(request).await.map_err(Failure::from)?.into_inner();
        swarms.extend(page.swarms);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    match format {
        Format::Json => output::json(&swarms.iter().map(to_json).collect::<Vec<_>>())?,
        Format::Human => output::line(describe(&swarms))?,
    }
    Ok(())
}

fn describe(swarms: &[SwarmInfo]) -> String {
    let count = output::count(swarms.len() as u64, "swarm");
    if swarms.is_empty() {
        return count;
    }
    let mut table =
        Table::new([("ID", Align::Left), ("COMPLETE", Align::Right), ("INCOMPLETE", Align::Right)]);
    for swarm in swarms {
        table.row([
            swarm.content_id.clone(),
            swarm.complete_count.to_string(),
            swarm.incomplete_count.to_string(),
        ]);
    }
    format!("{count}\n{}", table.render())
}

fn to_json(swarm: &SwarmInfo) -> Value {
    json!({
        "id": swarm.content_id,
        "complete_count": swarm.complete_count,
        "incomplete_count": swarm.incomplete_count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swarms_are_a_count_and_a_table() {
        let swarm = SwarmInfo { content_id: "ab".into(), complete_count: 12, incomplete_count: 3 };
        assert_eq!(
            describe(std::slice::from_ref(&swarm)),
            "1 swarm\nID  COMPLETE  INCOMPLETE\nab        12           3"
        );
        assert_eq!(describe(&[]), "0 swarms");
        assert_eq!(to_json(&swarm)["complete_count"], 12);
    }
}
