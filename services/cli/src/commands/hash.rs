//! `shoal hash`: the id that files have as a content.

use std::path::Path;

use serde_json::json;
use shoal_core::content::Manifest;
use shoal_peer::store::Hashed;

use super::local;
use crate::{
    args::{Format, HashArgs},
    output,
    progress::Progress,
};

pub(crate) async fn run(
    args: HashArgs,
    format: Format,
    mut progress: Progress,
) -> anyhow::Result<()> {
    let hashed = local::hash(&args.path, None, &mut progress).await?;
    progress.clear();
    match format {
        Format::Json => output::json(&to_json(&hashed)),
        Format::Human => output::line(describe(&args.path, &hashed.manifest)),
    }?;
    Ok(())
}

/// The id, then what `b3sum` prints for each file.
fn describe(path: &Path, manifest: &Manifest) -> String {
    let mut lines = vec![manifest.id().to_string()];
    for file in manifest.files() {
        let shown = if manifest.is_directory() { path.join(&file.path) } else { path.to_owned() };
        lines.push(format!("{}  {}", hex(&file.root), shown.display()));
    }
    lines.join("\n")
}

fn to_json(hashed: &Hashed) -> serde_json::Value {
    let manifest = &hashed.manifest;
    let files = manifest
        .files()
        .iter()
        .map(|file| json!({ "path": file.path, "bytes": file.size, "blake3": hex(&file.root) }));
    json!({
        "id": manifest.id().to_string(),
        "name": manifest.name(),
        "bytes": manifest.layout().total_bytes(),
        "piece_length": manifest.layout().piece_length().get(),
        "piece_count": manifest.layout().piece_count(),
        "files": files.collect::<Vec<_>>(),
    })
}

fn hex(root: &[u8; 32]) -> String {
    shoal_core::content::ContentId::from_bytes(*root).to_string()
}
