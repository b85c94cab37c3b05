//! `shoal fetch`: fetches a content with a running peer.

use std::time::{Duration, Instant};

use shoal_common::shutdown;
use shoal_core::{
    Address,
    content::{ContentId, Link},
};
use shoal_proto::control::v1::{self as pb, ContentState, ExplainRequest, FetchRequest};
use tokio::time::sleep_until;

use super::{name, watch::Changes};
use crate::{
    args::{FetchArgs, PatienceArgs},
    control::{Control, text_or_bytes},
    exit::{Exit, Failure},
    patience::Patience,
    progress::{Progress, Snapshot},
    summary::DownloadStats,
};

/// A deadline where there is none.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(crate) async fn run(args: FetchArgs, mut progress: Progress) -> anyhow::Result<()> {
    let link = name::resolve(&args.wanted, &args.ring.nodes).await?;
    let id = link.id;
    progress.set_id(id);
    progress.log_without_terminal();
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    let started = Instant::now();
    let request = request(&args, &link)?;
    if args.detach {
        control.change.fetch(request).await.map_err(Failure::from)?;
        progress.note(&format!("the peer fetches it; shoal watch {id} shows the progress"));
        return Ok(());
    }
    let without_copy =
        FetchRequest { export_to: String::new(), export_to_bytes: Vec::new(), ..request.clone() };
    control.change.fetch(without_copy).await.map_err(Failure::from)?;
    let stats = follow(&mut control, id, started, args.patience, &mut progress).await?;
    if args.to.is_some() {
        // The content is complete, so the answer comes when the copy is made or has failed.
        control.change.fetch(request).await.map_err(Failure::from)?;
    }
    Ok(progress.completed(id, &stats, Instant::now())?)
}

fn request(args: &FetchArgs, link: &Link) -> anyhow::Result<FetchRequest> {
    let export_to = args.to.as_deref().map(std::path::absolute).transpose()?;
    let (export_to, export_to_bytes) = text_or_bytes(export_to.unwrap_or_default().into());
    let priorities = args.priorities.iter().map(|wanted| pb::FilePriority {
        path: wanted.path.clone(),
        priority: wanted.priority.into(),
    });
    let all = |flag: &[Address], link: &[String]| {
        flag.iter().map(ToString::to_string).chain(link.iter().cloned()).collect()
    };
    Ok(FetchRequest {
        content_id: link.id.to_string(),
        trackers: all(&args.trackers, link.trackers()),
        dht: all(&args.ring.nodes, link.ring_nodes()),
        export_to,
        export_to_bytes,
        sequential: args.sequential,
        priorities: priorities.collect(),
        pin: args.pin,
    })
}

/// Shows the progress until everything wanted is complete.
async fn follow(
    control: &mut Control,
    id: ContentId,
    started: Instant,
    limits: PatienceArgs,
    progress: &mut Progress,
) -> anyhow::Result<DownloadStats> {
    let interrupted = shutdown::on_signal(shutdown::GRACE_OF_COMMAND)?;
    let mut changes = Changes::of(control, id).await?;
    let mut stats = DownloadStats::new(started);
    let mut patience = Patience::new(limits, started);
    let far = started + FAR;
    loop {
        let status = tokio::select! {
            status = changes.next() => status?,
            () = sleep_until(patience.deadline().unwrap_or(far).into()) => {
                let request = ExplainRequest { content_id: id.to_string() };
                let explained = control.observe.explain(request).await;
                let cause = explained.map(|answer| answer.into_inner().summary).unwrap_or_default();
                progress.clear();
                patience.check(Instant::now(), &cause)?;
                continue;
            }
            () = interrupted.cancelled() => {
                progress.clear();
                let message =
                    format!("interrupted; the peer continues, and shoal rm {id} stops it");
                return Err(Failure::new(Exit::Interrupted, message).into());
            }
        };
        let Some(status) = status else {
            let message = format!("{id} was removed from the peer before it was complete");
            return Err(Failure::new(Exit::NotFound, message).into());
        };
        let snapshot = Snapshot::from(&status);
        let now = Instant::now();
        stats.add(now, snapshot);
        patience.note(now, snapshot.downloaded_bytes);
        if status.state() == ContentState::Seeding {
            return Ok(stats);
        }
        progress.update(&snapshot)?;
    }
}
