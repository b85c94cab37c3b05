//! `shoal hash`: the id that files have as a content.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde_json::json;
use shoal_core::content::{ContentId, EntryNumber, Escaped, Manifest, PieceHash};
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
    let hashed = local::hash(&args.path, &args.content, &mut progress).await?;
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
    for (number, file) in manifest.files() {
        lines.push(checksum(&file.root, &below(path, manifest, number)));
    }
    lines.join("\n")
}

/// A line of `b3sum`: a name with a backslash or a newline is escaped, and marked by a backslash at
/// the start.
fn checksum(root: &PieceHash, path: &Path) -> String {
    let path = path.as_os_str().to_string_lossy();
    let (mark, path) = if path.contains(['\\', '\n']) {
        ("\\", path.replace('\\', "\\\\").replace('\n', "\\n"))
    } else {
        ("", path.into_owned())
    };
    format!("{mark}{}  {path}", hex(root))
}

fn below(path: &Path, manifest: &Manifest, number: EntryNumber) -> PathBuf {
    let below = manifest.path_of(number);
    if below.is_empty() { path.to_owned() } else { path.join(OsStr::from_bytes(&below)) }
}

fn to_json(hashed: &Hashed) -> serde_json::Value {
    let manifest = &hashed.manifest;
    let files = manifest.files().map(|(number, file)| {
        let path = Escaped(&manifest.path_of(number)).to_string();
        json!({ "path": path, "bytes": file.size, "blake3": hex(&file.root) })
    });
    json!({
        "id": manifest.id().to_string(),
        "name": Escaped(manifest.name()).to_string(),
        "bytes": manifest.descriptor().blob_bytes(),
        "piece_length": manifest.layout().piece_length().get(),
        "piece_count": manifest.layout().piece_count(),
        "files": files.collect::<Vec<_>>(),
    })
}

fn hex(root: &PieceHash) -> String {
    ContentId::from_bytes(*root).to_string()
}
