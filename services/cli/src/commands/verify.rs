//! `shoal verify`: reads a content of the peer again, and names its damaged files.

use serde_json::json;
use shoal_core::content::Escaped;
use shoal_proto::control::v1::{VerifyRequest, VerifyResponse};

use crate::{
    args::{Format, VerifyArgs},
    control::Control,
    exit::{Exit, Failure},
    output::{self, count},
};

pub(crate) async fn run(args: VerifyArgs, format: Format) -> anyhow::Result<()> {
    let id = args.id;
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    let request = VerifyRequest { content_id: id.to_string() };
    let found = control.observe.verify(request).await.map_err(Failure::from)?.into_inner();
    match format {
        Format::Json => output::json(&json!({
            "id": id.to_string(),
            "verified_pieces": found.verified_pieces,
            "damaged_pieces": found.damaged_pieces,
            "damaged_files": names(&found),
            "damaged_file_count": found.damaged_file_count,
        }))?,
        Format::Human => output::line(describe(&found))?,
    }
    if found.damaged_pieces == 0 {
        return Ok(());
    }
    let message = format!(
        "{} of {id} are damaged; run shoal rm {id}, and fetch or publish it again",
        count(found.damaged_pieces.into(), "piece")
    );
    Err(Failure::new(Exit::Damaged, message).into())
}

fn names(found: &VerifyResponse) -> Vec<String> {
    found.damaged_files.iter().map(|path| Escaped(path).to_string()).collect()
}

fn describe(found: &VerifyResponse) -> String {
    let mut lines: Vec<_> = names(found).iter().map(|name| format!("damaged: {name}")).collect();
    let more = found.damaged_file_count as usize - found.damaged_files.len();
    if more > 0 {
        lines.push(format!("damaged: {} more", count(more as u64, "file")));
    }
    lines.push(format!("verified: {}", count(found.verified_pieces.into(), "piece")));
    lines.join("\n")
}
