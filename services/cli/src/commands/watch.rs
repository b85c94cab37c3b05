//! `shoal watch`: the progress of a running peer's content.

use shoal_common::shutdown;
use shoal_core::content::ContentId;
use shoal_proto::control::v1::{ContentState, ContentStatus, WatchRequest, WatchResponse};
use tonic::{Code, Status, Streaming};

use crate::{
    args::WatchArgs,
    control::Control,
    exit::{Exit, Failure},
    progress::{Progress, Snapshot},
};

pub(crate) async fn run(args: WatchArgs, mut progress: Progress) -> anyhow::Result<()> {
    let interrupted = shutdown::on_signal(shutdown::GRACE_OF_COMMAND)?;
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    let mut changes = Changes::of(&mut control, args.id).await?;
    progress.set_id(args.id);
    progress.show_without_terminal();
    loop {
        let status = tokio::select! {
            status = changes.next() => status?,
            // The usual end of this command.
            () = interrupted.cancelled() => return Ok(()),
        };
        if let Some(status) = status {
            progress.update(&Snapshot::from(&status))?;
        } else {
            progress.note("removed");
            return Ok(());
        }
    }
}

/// The changes of a content's status.
pub(super) struct Changes(Streaming<WatchResponse>);

impl Changes {
    pub(super) async fn of(control: &mut Control, id: ContentId) -> anyhow::Result<Self> {
        let request = WatchRequest { content_id: id.to_string(), interval: None };
        let answer = control.observe.watch(request).await.map_err(Failure::from)?;
        Ok(Self(answer.into_inner()))
    }

    /// The next status; none if the content was removed. An error if it has failed.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<ContentStatus>> {
        while let Some(change) = self.0.message().await.map_err(lost)? {
            match change.status {
                Some(status) if status.state() == ContentState::Failed => {
                    let error = Status::new(status.error_code.into(), status.error);
                    return Err(Failure::refused(&error).into());
                }
                Some(status) => return Ok(Some(status)),
                // Only new pieces are reported.
                None => {}
            }
        }
        Ok(None)
    }
}

/// The stream ended: with each of these codes of the transport, the peer is gone.
fn lost(status: Status) -> Failure {
    match status.code() {
        Code::Unknown | Code::Cancelled | Code::Internal | Code::Unavailable => Failure::new(
            Exit::Unreachable,
            "the connection to the peer was lost; start shoal-peer again, and it resumes",
        ),
        _ => status.into(),
    }
}
