//! `shoal publish`: publishes a file or directory with a running peer.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use shoal_common::{shutdown, units::ByteSize};
use shoal_core::content::{FileEntry, PieceLength};
use shoal_peer::store::Hashed;
use shoal_proto::control::v1::{
    PublishRequest, UploadEnd, UploadFile, UploadRequest, UploadStart, upload_request::Part,
};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;

use super::local;
use crate::{
    args::PublishArgs,
    control::Control,
    exit::{Exit, Failure},
    progress::{Progress, State},
};

/// Bytes of a message.
const CHUNK_BYTES: u64 = 256 << 10;
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
    let path: PathBuf = std::path::absolute(&args.path)?;
    let Some(path) = path.to_str() else { bail!("{} is not valid UTF-8", path.display()) };
    let request = PublishRequest {
        path: path.to_owned(),
        piece_length: args.piece_length.map_or(0, ByteSize::bytes),
        super_seeding: args.super_seeding,
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
    let piece_length = args.piece_length.map(|length| PieceLength::new(length.bytes()));
    let hashed = local::hash(&args.path, piece_length.transpose()?, progress).await?;
    let id = hashed.manifest.id();
    progress.set_id(id);
    let total_bytes = hashed.manifest.layout().total_bytes();
    let (messages, parts) = mpsc::channel(READ_AHEAD);
    let sent = Arc::new(AtomicU64::new(0));
    let sender = PartSender { messages, sent: sent.clone() };
    let pin = args.pin;
    let reader = spawn_blocking(move || sender.send_all(&hashed, pin));
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
    /// Sends all parts. Fails if a file cannot be read.
    fn send_all(self, hashed: &Hashed, pin: bool) -> anyhow::Result<()> {
        let manifest = &hashed.manifest;
        let start = UploadStart {
            name: manifest.name().to_owned(),
            directory: manifest.is_directory(),
            piece_length: manifest.layout().piece_length().get().into(),
            total_bytes: manifest.layout().total_bytes(),
            pin,
            content_id: manifest.id().to_string(),
        };
        if self.send(Part::Start(start)).is_err() {
            return Ok(());
        }
        for file in manifest.files() {
            let source = if manifest.is_directory() {
                hashed.path.join(&file.path)
            } else {
                hashed.path.clone()
            };
            if self.send_file(file, &source)?.is_err() {
                return Ok(());
            }
        }
        let empty = manifest.empty_directories().iter().cloned().map(Part::EmptyDirectory);
        // If the peer has ended the call, there is nothing more to send.
        let _ = empty.chain([Part::End(UploadEnd {})]).try_for_each(|part| self.send(part));
        Ok(())
    }

    fn send_file(&self, entry: &FileEntry, source: &Path) -> anyhow::Result<Result<(), Ended>> {
        let cannot = |what| format!("cannot {what} {}", source.display());
        let mut file = File::open(source).with_context(|| cannot("open"))?;
        let header =
            UploadFile { path: entry.path.clone(), size: entry.size, executable: entry.executable };
        if self.send(Part::File(header)).is_err() {
            return Ok(Err(Ended));
        }
        let mut left = entry.size;
        while left > 0 {
            let chunk = read_chunk(&mut file, left).with_context(|| cannot("read"))?;
            left -= chunk.len() as u64;
            self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if self.send(Part::Chunk(chunk)).is_err() {
                return Ok(Err(Ended));
            }
        }
        Ok(Ok(()))
    }

    fn send(&self, part: Part) -> Result<(), Ended> {
        self.messages.blocking_send(UploadRequest { part: Some(part) }).map_err(|_| Ended)
    }
}

/// The next bytes of a file of which `left` are unread. Fails if the file has become shorter.
fn read_chunk(file: &mut File, left: u64) -> io::Result<Bytes> {
    let mut chunk = vec![0; left.min(CHUNK_BYTES) as usize];
    file.read_exact(&mut chunk)?;
    Ok(chunk.into())
}

#[cfg(test)]
mod tests {
    use shoal_peer::store;

    use super::*;

    /// The parts of an upload of `path`, with a change after it is hashed.
    async fn parts_of(path: &Path, change: impl FnOnce()) -> (Vec<Part>, anyhow::Result<()>) {
        let hashed = store::hash(path, None, |_| ()).unwrap();
        change();
        let (messages, mut receiver) = mpsc::channel(READ_AHEAD);
        let sender = PartSender { messages, sent: Arc::default() };
        let reader = spawn_blocking(move || sender.send_all(&hashed, false));
        let mut parts = Vec::new();
        while let Some(message) = receiver.recv().await {
            parts.push(message.part.unwrap());
        }
        (parts, reader.await.unwrap())
    }

    #[tokio::test]
    async fn a_tree_is_sent_file_by_file() {
        let here = tempfile::tempdir().unwrap();
        std::fs::write(here.path().join("a"), vec![7; CHUNK_BYTES as usize + 1]).unwrap();
        std::fs::create_dir(here.path().join("empty")).unwrap();
        let (parts, result) = parts_of(here.path(), || ()).await;
        result.unwrap();
        let lengths: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Start(_) => "start".to_owned(),
                Part::File(file) => format!("{} {}", file.path, file.size),
                Part::Chunk(chunk) => chunk.len().to_string(),
                Part::EmptyDirectory(path) => path.clone(),
                Part::End(_) => "end".to_owned(),
            })
            .collect();
        assert_eq!(lengths, ["start", "a 262145", "262144", "1", "empty", "end"]);
    }

    #[tokio::test]
    async fn a_file_that_becomes_shorter_is_not_published() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("a");
        std::fs::write(&file, vec![7; 10]).unwrap();
        let (parts, result) = parts_of(&file, || std::fs::write(&file, [7; 5]).unwrap()).await;
        assert!(result.unwrap_err().to_string().starts_with("cannot read "));
        assert!(!parts.iter().any(|part| matches!(part, Part::End(_))));
    }
}
