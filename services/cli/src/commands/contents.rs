//! `shoal ls`, `rm` and `pin`: the contents of the peer.

use serde::Serialize;
use shoal_proto::control::v1::{
    ContentState, ContentStatus, ListRequest, PinRequest, RemoveRequest,
};

use crate::{
    args::{Format, LsArgs, PinArgs, RmArgs},
    control::Control,
    exit::Failure,
    output::{self, Align, Table, bytes, rate},
    progress::{Snapshot, State},
};

pub(crate) async fn list(args: LsArgs, format: Format) -> anyhow::Result<()> {
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    let answer = control.observe.list(ListRequest {}).await.map_err(Failure::from)?;
    let contents = answer.into_inner().contents;
    match format {
        Format::Json => output::json(&contents.iter().map(Listed::from).collect::<Vec<_>>())?,
        Format::Human => output::line(table(&contents).render())?,
    }
    Ok(())
}

pub(crate) async fn remove(args: RmArgs) -> anyhow::Result<()> {
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    for id in args.ids {
        let request = RemoveRequest { content_id: id.to_string() };
        control.change.remove(request).await.map_err(Failure::from)?;
    }
    Ok(())
}

pub(crate) async fn pin(args: PinArgs) -> anyhow::Result<()> {
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    for id in args.ids {
        let request = PinRequest { content_id: id.to_string(), pinned: !args.off };
        control.change.pin(request).await.map_err(Failure::from)?;
    }
    Ok(())
}

/// A content in JSON.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(flatten)]
    snapshot: Snapshot,
    pinned: bool,
    in_place: bool,
    error: &'a str,
}

impl<'a> From<&'a ContentStatus> for Listed<'a> {
    fn from(status: &'a ContentStatus) -> Self {
        Self {
            id: &status.content_id,
            name: &status.name,
            snapshot: status.into(),
            pinned: status.pinned,
            in_place: status.in_place,
            error: &status.error,
        }
    }
}

fn table(contents: &[ContentStatus]) -> Table<8> {
    let mut table = Table::new([
        ("ID", Align::Left),
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("HELD", Align::Right),
        ("STATE", Align::Left),
        ("PEERS", Align::Right),
        ("DOWN", Align::Right),
        ("UP", Align::Right),
    ]);
    for content in contents {
        table.row([
            content.content_id.clone(),
            content.name.clone(),
            bytes(content.total_bytes),
            held(content),
            state(content),
            content.neighbours.to_string(),
            rate(content.down_bytes_per_s),
            rate(content.up_bytes_per_s),
        ]);
    }
    table
}

/// Rounded down: 100 % means complete.
fn held(content: &ContentStatus) -> String {
    let percent = u128::from(content.held_bytes) * 100 / u128::from(content.total_bytes.max(1));
    let is_complete = content.total_bytes == 0 && content.state() == ContentState::Seeding;
    format!("{} %", if is_complete { 100 } else { percent })
}

fn state(content: &ContentStatus) -> String {
    let mut words = match State::from(content.state()) {
        State::Failed => format!("failed: {}", content.error),
        state => state.name().to_owned(),
    };
    if content.pinned {
        words.push_str(", pinned");
    }
    if content.in_place {
        words.push_str(", in place");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_listed_with_readable_sizes() {
        let content = ContentStatus {
            content_id: "ab".to_owned(),
            name: "model\u{7}".to_owned(),
            state: ContentState::Downloading.into(),
            total_bytes: 50_000_000,
            held_bytes: 49_999_999,
            neighbours: 3,
            pinned: true,
            ..ContentStatus::default()
        };
        let table = table(&[content]).render();
        let row: Vec<_> =
            table.lines().nth(1).unwrap().split("  ").filter(|c| !c.is_empty()).collect();
        assert_eq!(
            row,
            [
                "ab",
                "model\\u{7}",
                "50.00 MB",
                "99 %",
                "downloading, pinned",
                "    3",
                "0 B/s",
                "0 B/s"
            ]
            .map(str::trim_start)
            .into_iter()
            .collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_empty_content_is_complete_once_it_is_seeded() {
        let seeding = ContentStatus { state: ContentState::Seeding.into(), ..Default::default() };
        assert_eq!(held(&seeding), "100 %");
        assert_eq!(held(&ContentStatus::default()), "0 %");
    }
}
