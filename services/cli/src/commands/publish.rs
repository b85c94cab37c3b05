//! `shoal publish`: hands a file or directory to a running peer.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use shoal_common::shutdown;
use shoal_peer::store::{self, Found, Tree};
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
/// Messages read ahead of the connection. When they are full, the reader waits.
const READ_AHEAD: usize = 8;

/// An id, and a link that carries it.
type Published = (String, String);

pub(crate) async fn run(args: PublishArgs, mut progress: Progress) -> anyhow::Result<()> {
    let interrupted = shutdown::on_signal()?;
    let mut control = Control::connect(&args.control.control).await?;
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
        piece_length: piece_length(args),
        super_seeding: args.super_seeding,
    };
    let answer = control.change.publish(request).await.map_err(Failure::from)?.into_inner();
    Ok((answer.content_id, answer.link))
}

async fn upload(
    args: &PublishArgs,
    control: &mut Control,
    progress: &mut Progress,
) -> anyhow::Result<Published> {
    let path = args.path.clone();
    let tree = spawn_blocking(move || store::walk(&path)).await?.map_err(Failure::from)?;
    let total_bytes = tree.files.iter().map(Found::size).sum();
    let start = UploadStart {
        name: tree.name.clone(),
        directory: tree.is_directory,
        piece_length: piece_length(args),
        total_bytes,
        pin: args.pin,
    };
    let (messages, parts) = mpsc::channel(READ_AHEAD);
    let sent = Arc::new(AtomicU64::new(0));
    let outlet = Outlet { messages, sent: sent.clone() };
    let reader = spawn_blocking(move || outlet.send_tree(start, tree));
    let call = control.change.upload(ReceiverStream::new(parts));
    let answer = local::shown(progress, State::Uploading, total_bytes, &sent, call).await?;
    // A file that cannot be read ends the upload early, and the peer complains of that.
    reader.await??;
    let answer = answer.map_err(Failure::from)?.into_inner();
    Ok((answer.content_id, answer.link))
}

fn piece_length(args: &PublishArgs) -> u64 {
    args.piece_length.map_or(0, |length| length.bytes())
}

/// Where the parts of an upload go, from the thread that reads the files.
struct Outlet {
    messages: mpsc::Sender<UploadRequest>,
    /// Bytes read.
    sent: Arc<AtomicU64>,
}

/// The peer has ended the call, and its answer tells why.
struct Ended;

impl Outlet {
    /// Sends all parts. An error tells what could not be read.
    fn send_tree(self, start: UploadStart, tree: Tree) -> anyhow::Result<()> {
        if self.send(Part::Start(start)).is_err() {
            return Ok(());
        }
        for file in &tree.files {
            if self.send_file(file)?.is_err() {
                return Ok(());
            }
        }
        let empty = tree.empty_directories.into_iter().map(Part::EmptyDirectory);
        // If the peer has ended the call, there is nobody to tell more.
        let _ = empty.chain([Part::End(UploadEnd {})]).try_for_each(|part| self.send(part));
        Ok(())
    }

    fn send_file(&self, found: &Found) -> anyhow::Result<Result<(), Ended>> {
        let source = &found.source;
        let mut file = File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
        let header = UploadFile {
            path: found.path.clone(),
            size: found.size(),
            executable: found.executable,
        };
        if self.send(Part::File(header)).is_err() {
            return Ok(Err(Ended));
        }
        let mut left = found.size();
        while left > 0 {
            let chunk = read_chunk(&mut file, left, source)?;
            left -= chunk.len() as u64;
            self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if self.send(Part::Chunk(chunk)).is_err() {
                return Ok(Err(Ended));
            }
        }
        if file.read(&mut [0])? > 0 {
            bail!("{} grew while it was read; publish it again", source.display());
        }
        Ok(Ok(()))
    }

    fn send(&self, part: Part) -> Result<(), Ended> {
        self.messages.blocking_send(UploadRequest { part: Some(part) }).map_err(|_| Ended)
    }
}

/// The next bytes of a file that has so many left.
fn read_chunk(file: &mut File, left: u64, path: &Path) -> anyhow::Result<Bytes> {
    let length = left.min(CHUNK_BYTES);
    let mut chunk = Vec::with_capacity(length as usize);
    let read = file.take(length).read_to_end(&mut chunk);
    let read = read.with_context(|| format!("cannot read {}", path.display()))?;
    if (read as u64) < length {
        bail!("{} became shorter while it was read; publish it again", path.display());
    }
    Ok(chunk.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of an upload of what lies at `path`, with files grown or cut after the walk.
    async fn parts_of(path: &Path, meanwhile: impl FnOnce()) -> (Vec<Part>, anyhow::Result<()>) {
        let tree = store::walk(path).unwrap();
        meanwhile();
        let (messages, mut receiver) = mpsc::channel(READ_AHEAD);
        let outlet = Outlet { messages, sent: Arc::default() };
        let reader = spawn_blocking(move || outlet.send_tree(UploadStart::default(), tree));
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
    async fn a_file_that_changes_meanwhile_is_not_published() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("a");
        for (bytes, complaint) in [(5, "became shorter"), (15, "grew")] {
            std::fs::write(&file, vec![7; 10]).unwrap();
            let change = || std::fs::write(&file, vec![7; bytes]).unwrap();
            let (parts, result) = parts_of(&file, change).await;
            assert!(result.unwrap_err().to_string().contains(complaint));
            assert!(!parts.iter().any(|part| matches!(part, Part::End(_))));
        }
    }
}
