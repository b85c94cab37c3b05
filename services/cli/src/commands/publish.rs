//! `shoal publish`: publishes a file or directory with a running peer.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use shoal_common::{shutdown, units::ByteSize};
use shoal_core::content::{BlobNumber, BlockRange};
use shoal_peer::store::Stored;
use shoal_proto::control::v1::{
    LinkHandling, PublishRequest, UploadEnd, UploadRequest, UploadStart, upload_request::Part,
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;

use super::local;
use crate::{
    args::{LinkPolicy, PublishArgs},
    control::{Control, text_or_bytes},
    exit::{Exit, Failure},
    progress::{Progress, State},
};

/// Bytes of a message.
const CHUNK_BYTES: u32 = 256 << 10;
/// Messages in the queue to the connection. While it is full, the reader waits.
const READ_AHEAD: usize = 8;

/// An id, and a link with it.
type Published = (String, String);

pub(crate) async fn run(args: PublishArgs, mut progress: Progress) -> anyhow::Result<()> {
    let interrupted = shutdown::on_signal(shutdown::GRACE_OF_COMMAND)?;
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    let published = async {
        if args.in_place {
            in_place(&args, &mut control).await
        } else {
            upload(&args, &mut control, &mut progress).await
        }
    };
    let published = tokio::select! {
        published = published => published,
        () = interrupted.cancelled() => {
            Err(Failure::new(Exit::Interrupted, "interrupted; nothing was published").into())
        }
    };
    progress.clear();
    let (id, link) = published?;
    Ok(progress.published(&id, &link)?)
}

async fn in_place(args: &PublishArgs, control: &mut Control) -> anyhow::Result<Published> {
    let (path, path_bytes) = text_or_bytes(std::path::absolute(&args.path)?.into_os_string());
    let content = &args.content;
    let (name, name_bytes) = text_or_bytes(content.name.clone().unwrap_or_default());
    let request = PublishRequest {
        path,
        path_bytes,
        piece_length: content.piece_length.map_or(0, ByteSize::bytes),
        super_seeding: args.super_seeding,
        links: match content.links {
            LinkPolicy::Follow => LinkHandling::Unspecified,
            LinkPolicy::Skip => LinkHandling::Skip,
            LinkPolicy::Refuse => LinkHandling::Refuse,
        }
        .into(),
        preserve: content.preserve,
        name,
        name_bytes,
    };
    let answer = control.change.publish(request).await.map_err(Failure::from)?.into_inner();
    Ok((answer.content_id, answer.link))
}

/// Streams a copy to the peer.
///
/// The files are hashed first, to verify that the peer stores the same content: files that change
/// meanwhile must not become a content that never existed.
async fn upload(
    args: &PublishArgs,
    control: &mut Control,
    progress: &mut Progress,
) -> anyhow::Result<Published> {
    let hashed = local::hash(&args.path, &args.content, progress).await?;
    let id = hashed.manifest.id();
    progress.set_id(id);
    let total_bytes = hashed.manifest.descriptor().stored_bytes();
    let (messages, parts) = mpsc::channel(READ_AHEAD);
    let sent = Arc::new(AtomicU64::new(0));
    let sender = PartSender { messages, sent: sent.clone() };
    let pin = args.pin;
    let stored = Stored::in_place(hashed);
    let reader = spawn_blocking(move || sender.send_all(&stored, pin));
    let call = control.change.upload(ReceiverStream::new(parts));
    let answer = local::shown(progress, State::Uploading, total_bytes, &sent, call).await?;
    // If a file cannot be read, the peer only reports that the upload ended early.
    reader.await??;
    let answer = answer.map_err(Failure::from)?.into_inner();
    if answer.content_id != id.to_string() {
        bail!("the files changed while they were read; publish them again");
    }
    Ok((answer.content_id, answer.link))
}

/// Sends the parts of an upload, from the thread that reads the files.
struct PartSender {
    messages: mpsc::Sender<UploadRequest>,
    /// Bytes read.
    sent: Arc<AtomicU64>,
}

/// The peer has ended the call; its answer has the reason.
struct Ended;

impl PartSender {
    /// Sends all parts. Fails if a file cannot be read, or has changed.
    fn send_all(self, stored: &Stored, pin: bool) -> anyhow::Result<()> {
        let manifest = stored.manifest().context("files in place have a manifest")?;
        let start = UploadStart { descriptor: manifest.descriptor().encode(), pin };
        let encoded = manifest.encoded().chunks(CHUNK_BYTES as usize);
        let parts = encoded.map(|bytes| Part::Manifest(Bytes::copy_from_slice(bytes)));
        // If the peer has ended the call, there is nothing more to send.
        if [Part::Start(start)]
            .into_iter()
            .chain(parts)
            .try_for_each(|part| self.send(part))
            .is_err()
        {
            return Ok(());
        }
        let layout = manifest.layout();
        let of_manifest = layout.pieces_of(BlobNumber::MANIFEST).len();
        let holes: HashSet<_> = manifest.holes().collect();
        for piece in layout.pieces().skip(of_manifest).filter(|piece| !holes.contains(piece)) {
            let whole = layout.whole(piece);
            for offset in (0..whole.length).step_by(CHUNK_BYTES as usize) {
                let length = CHUNK_BYTES.min(whole.length - offset);
                let mut chunk = vec![0; length as usize];
                stored.read(BlockRange { piece, offset, length }, &mut chunk)?;
                self.sent.fetch_add(length.into(), Ordering::Relaxed);
                if self.send(Part::Chunk(chunk.into())).is_err() {
                    return Ok(());
                }
            }
        }
        let _ = self.send(Part::End(UploadEnd {}));
        Ok(())
    }

    fn send(&self, part: Part) -> Result<(), Ended> {
        self.messages.blocking_send(UploadRequest { part: Some(part) }).map_err(|_| Ended)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shoal_peer::store::{self, HashOptions};

    use super::*;

    /// The parts of an upload of `path`, with a change after it is hashed.
    async fn parts_of(path: &Path, change: impl FnOnce()) -> (Vec<Part>, anyhow::Result<()>) {
        let hashed = store::hash(path, &HashOptions::default(), |_| ()).unwrap();
        change();
        let (messages, mut receiver) = mpsc::channel(READ_AHEAD);
        let sender = PartSender { messages, sent: Arc::default() };
        let stored = Stored::in_place(hashed);
        let reader = spawn_blocking(move || sender.send_all(&stored, false));
        let mut parts = Vec::new();
        while let Some(message) = receiver.recv().await {
            parts.push(message.part.unwrap());
        }
        (parts, reader.await.unwrap())
    }

    #[tokio::test]
    async fn a_tree_is_sent_as_manifest_and_pieces_without_holes() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("a"), vec![7; CHUNK_BYTES as usize + 1]).unwrap();
        std::fs::write(here.path().join("b"), vec![7; CHUNK_BYTES as usize + 1]).unwrap();
        std::fs::write(here.path().join("zeros"), vec![0; CHUNK_BYTES as usize]).unwrap();
        std::fs::create_dir(here.path().join("empty")).unwrap();
        let (parts, result) = parts_of(here.path(), || ()).await;
        result.unwrap();
        let lengths: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Start(_) => "start".to_owned(),
                Part::Manifest(_) => "manifest".to_owned(),
                Part::Chunk(chunk) => chunk.len().to_string(),
                Part::End(_) => "end".to_owned(),
            })
            .collect();
        let piece = "65536";
        assert_eq!(lengths, ["start", "manifest", piece, piece, piece, piece, "1", "end"]);
    }

    #[tokio::test]
    async fn a_file_that_becomes_shorter_is_not_published() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("a");
        std::fs::write(&file, vec![7; 10]).unwrap();
        let (parts, result) = parts_of(&file, || std::fs::write(&file, [7; 5]).unwrap()).await;
        assert!(result.unwrap_err().to_string().contains("was changed"));
        assert!(!parts.iter().any(|part| matches!(part, Part::End(_))));
    }
}
