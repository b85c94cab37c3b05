//! `shoal get`: fetches a content without a daemon.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::{
    lock::{Mutex, MutexGuard},
    shutdown,
};
use shoal_core::{
    content::{ContentId, Metadata},
    swarm::Priority,
};
use shoal_peer::{
    Node, Options, Phase, StatusWatch,
    store::{self, OneShot, StoreError, Stored},
};
use shoal_proto::control::v1::Priority as WirePriority;
use tokio::{
    task::spawn_blocking,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    name,
    one_shot::{self, PeerSources},
    seed,
};
use crate::{
    args::{GetArgs, SeedFor},
    destination::Destination,
    exit::{Exit, Failure},
    patience::Patience,
    progress::{Progress, Snapshot},
    summary::DownloadStats,
};

/// A deadline where there is none.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// After this time without a byte, the reason is shown.
const STALL: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: GetArgs, mut progress: Progress) -> anyhow::Result<()> {
    let started = Instant::now();
    let interrupted = shutdown::on_signal(shutdown::GRACE_OF_COMMAND)?;
    let destination = Destination::new(&args.output)?;
    progress.log_without_terminal();
    let options = options(&args)?;
    let link = tokio::select! {
        link = name::resolve(&args.wanted, &args.one_shot.ring.nodes) => link?,
        () = interrupted.cancelled() => {
            return Err(Failure::new(Exit::Interrupted, "interrupted; nothing was fetched").into());
        }
    };
    let sources = PeerSources::of(&args.one_shot, Some(&link))?;
    progress.set_id(link.id);
    one_shot::run(&args.one_shot, sources, &interrupted, async |node| {
        let interrupted = interrupted.clone();
        let patience = Patience::new(args.patience, started);
        let mut get = Get { node, id: link.id, interrupted, progress: &mut progress, patience };
        get.run(destination, options, started, args.seed).await
    })
    .await
}

fn options(args: &GetArgs) -> anyhow::Result<Options> {
    let priorities = args.priorities.iter().map(|wanted| {
        let priority = match wanted.priority {
            WirePriority::High => Priority::High,
            WirePriority::Unspecified => Priority::Normal,
            WirePriority::Low => Priority::Low,
            WirePriority::Skip => {
                let message = "shoal get fetches all files; shoal fetch can skip some";
                return Err(Failure::new(Exit::Usage, message));
            }
        };
        Ok((wanted.path.clone(), priority))
    });
    Ok(Options {
        sequential: args.sequential,
        priorities: priorities.collect::<Result<_, _>>()?,
        ..Options::default()
    })
}

struct Get<'a> {
    node: &'a Node,
    id: ContentId,
    interrupted: CancellationToken,
    progress: &'a mut Progress,
    patience: Patience,
}

impl Get<'_> {
    async fn run(
        &mut self,
        destination: Destination,
        options: Options,
        started: Instant,
        seed_for: Option<SeedFor>,
    ) -> anyhow::Result<()> {
        let interrupted = self.interrupted.clone();
        let output = Arc::new(Output { destination, interrupted, state: Mutex::default() });
        let mut status = self.join(&output, options).await?;
        let mut stats = DownloadStats::new(started);
        self.complete(&mut status, &mut stats, &output).await?;
        spawn_blocking(move || output.finish()).await??;
        self.progress.completed(self.id, &stats, Instant::now())?;
        match seed_for {
            None => Ok(()),
            Some(seed_for) => {
                let stop = self.end_of(seed_for);
                seed::share(status, &stop, self.progress).await
            }
        }
    }

    /// Joins the swarm, with the pieces that an earlier run has left.
    async fn join(&self, output: &Arc<Output>, options: Options) -> anyhow::Result<StatusWatch> {
        let (id, earlier) = (self.id, output.clone());
        if let Some(stored) = spawn_blocking(move || earlier.resume(id)).await?? {
            return Ok(self.node.add(stored, options).await?);
        }
        let output = output.clone();
        let begin = move |metadata| output.begin(metadata);
        Ok(self.node.fetch(id, options, begin).await?)
    }

    /// Shows the progress until the content is complete.
    async fn complete(
        &mut self,
        status: &mut StatusWatch,
        stats: &mut DownloadStats,
        output: &Output,
    ) -> anyhow::Result<()> {
        let mut stall = Stall { since: Instant::now(), bytes: 0, shown: String::new() };
        let far = Instant::now() + FAR;
        loop {
            let now = status.borrow_and_update().clone();
            if let Phase::Failed(error) = &now.phase {
                return Err(output.failure(error).into());
            }
            let snapshot = Snapshot::from(&*now);
            stats.add(Instant::now(), snapshot);
            stall.note(Instant::now(), snapshot.downloaded_bytes);
            self.patience.note(Instant::now(), snapshot.downloaded_bytes);
            if now.phase == Phase::Seeding {
                return Ok(());
            }
            self.progress.update(&snapshot)?;
            tokio::select! {
                changed = status.changed() => changed?,
                () = sleep_until((stall.since + STALL).into()) => self.explain(&mut stall).await?,
                () = sleep_until(self.patience.deadline().unwrap_or(far).into()) => {
                    let explained = self.node.explain(self.id).await?;
                    let cause = explained.map(|explained| explained.summary).unwrap_or_default();
                    self.progress.clear();
                    self.patience.check(Instant::now(), &cause)?;
                }
                () = self.interrupted.cancelled() => {
                    self.progress.clear();
                    let message = "interrupted; the same command resumes";
                    return Err(Failure::new(Exit::Interrupted, message).into());
                }
            }
        }
    }

    /// Shows why nothing arrives, unless the same reason was shown before.
    async fn explain(&self, stall: &mut Stall) -> anyhow::Result<()> {
        stall.since = Instant::now();
        if let Some(explanation) = self.node.explain(self.id).await?
            && explanation.summary != stall.shown
        {
            self.progress.note(&explanation.summary);
            stall.shown = explanation.summary;
        }
        Ok(())
    }

    /// A token that is cancelled after this time of seeding, or by a signal.
    fn end_of(&self, seed_for: SeedFor) -> CancellationToken {
        let stop = self.interrupted.child_token();
        if let SeedFor::Duration(time) = seed_for {
            let stop = stop.clone();
            tokio::spawn(async move {
                sleep(time).await;
                stop.cancel();
            });
        }
        stop
    }
}

/// A time without a new byte.
struct Stall {
    /// Its start, or when its reason was last requested.
    since: Instant,
    /// Bytes downloaded before it.
    bytes: u64,
    /// The reason that was shown.
    shown: String,
}

impl Stall {
    fn note(&mut self, now: Instant, bytes: u64) {
        if bytes != self.bytes {
            *self = Self { since: now, bytes, shown: String::new() };
        }
    }
}

/// The content's files. The methods block on the disk.
struct Output {
    destination: Destination,
    interrupted: CancellationToken,
    state: Mutex<OutputState>,
}

#[derive(Default)]
enum OutputState {
    /// The manifest is not known yet.
    #[default]
    Unknown,
    /// Being downloaded, next to the destination.
    Begun(OneShot),
    /// The content was already at the destination.
    Present,
}

impl Output {
    /// The state that an earlier run left, if it can be found without the content's name.
    fn resume(&self, id: ContentId) -> anyhow::Result<Option<Arc<Stored>>> {
        let Destination::As(path) = &self.destination else { return Ok(None) };
        if path.exists() {
            return Ok(None);
        }
        let resumed = OneShot::resume(path, id).map_err(Failure::from)?;
        Ok(resumed.map(|one_shot| self.keep(one_shot)))
    }

    /// Starts or resumes the download, or finds the complete content at the destination.
    fn begin(&self, metadata: Metadata) -> Result<Arc<Stored>, StoreError> {
        let path = self.destination.of(metadata.descriptor().name());
        if path.symlink_metadata().is_ok() {
            return self.present(&path, &metadata);
        }
        OneShot::begin(&path, metadata).map(|one_shot| self.keep(one_shot))
    }

    /// The complete content that an earlier run left; an error if `path` is anything else.
    fn present(&self, path: &Path, metadata: &Metadata) -> Result<Arc<Stored>, StoreError> {
        let present = store::find_at(path, metadata, &self.interrupted)?;
        OneShot::tidy(path, metadata.id())?;
        self.set(OutputState::Present);
        Ok(Stored::in_place(present))
    }

    fn keep(&self, one_shot: OneShot) -> Arc<Stored> {
        let stored = one_shot.stored().clone();
        self.set(OutputState::Begun(one_shot));
        stored
    }

    /// Moves the complete content to the destination.
    fn finish(&self) -> anyhow::Result<()> {
        match std::mem::take(&mut *self.lock()) {
            OutputState::Begun(one_shot) => {
                one_shot.finish(&self.interrupted).map_err(|error| self.failure(&error))?;
                Ok(())
            }
            OutputState::Present => Ok(()),
            OutputState::Unknown => Err(anyhow::anyhow!("the download was lost; start it again")),
        }
    }

    /// What failed, at the destination: the state beside it does not concern the user.
    fn failure(&self, error: &StoreError) -> Failure {
        let shown = match error {
            StoreError::DiskFull { .. } => StoreError::DiskFull { path: self.destination.path() },
            _ => return Failure::new(Exit::of_store(error), error.to_string()),
        };
        Failure::from(shown)
    }

    fn set(&self, state: OutputState) {
        *self.lock() = state;
    }

    fn lock(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock()
    }
}
