//! `shoal seed`: seeds a file or directory until interrupted.

use shoal_common::shutdown;
use shoal_peer::{Options, StatusWatch, store::Stored};
use tokio_util::sync::CancellationToken;

use super::{
    local,
    one_shot::{self, PeerSources},
};
use crate::{
    args::SeedArgs,
    exit::{Exit, Failure},
    output::bytes,
    progress::{Progress, Snapshot},
};

pub(crate) async fn run(args: SeedArgs, mut progress: Progress) -> anyhow::Result<()> {
    let interrupted = shutdown::on_signal(shutdown::GRACE_OF_COMMAND)?;
    let sources = PeerSources::of(&args.one_shot, None)?;
    let hashed = tokio::select! {
        hashed = local::hash(&args.path, &args.content, &mut progress) => hashed?,
        () = interrupted.cancelled() => {
            return Err(Failure::new(Exit::Interrupted, "interrupted; nothing was shared").into());
        }
    };
    let stored = Stored::in_place(hashed);
    let id = stored.id();
    let link = sources.link(id)?.to_string();
    let options = Options { super_seeding: args.super_seeding, ..Options::default() };
    one_shot::run(&args.one_shot, sources, &interrupted, async |node| {
        let status = node.add(stored, options).await?;
        progress.set_id(id);
        progress.published(&id.to_string(), &link)?;
        share(status, &interrupted, &mut progress).await
    })
    .await
}

/// Shows the progress of seeding until `stop`.
pub(super) async fn share(
    mut status: StatusWatch,
    stop: &CancellationToken,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    loop {
        let now = status.borrow_and_update().clone();
        one_shot::check(&now)?;
        progress.update(&Snapshot::from(&*now))?;
        tokio::select! {
            changed = status.changed() => changed?,
            () = stop.cancelled() => {
                progress.clear();
                progress.note(&format!("stopped; {} sent", bytes(now.uploaded_bytes)));
                return Ok(());
            }
        }
    }
}
